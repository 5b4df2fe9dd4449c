"""How one dimension of a command comes to rest within its limits of rate and jerk, step by step.

What is decided here is decided from the present command and its last change alone: whoever follows it is, a step later, on the rest of the same way.
So a way to rest that is allowed once stays allowed. Commands are rounded as they are sent, float32, so that what is foreseen is what comes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_HALVINGS = 12


class Gear(NamedTuple):
    """Limits of one dimension, less the rounding of what is sent. absolute: it says where to be and not how far to move."""

    low: float
    high: float
    rate: float
    jerk: float
    absolute: bool


def sent(command: float) -> float:
    """As it goes over the wire."""
    return float(np.float32(command))


def next_commands(gear: Gear, command: float, change: float) -> tuple[float, float]:
    """The least and the greatest command that rate and jerk allow to follow."""
    return command + max(-gear.rate, change - gear.jerk), command + min(gear.rate, change + gear.jerk)


def brake(gear: Gear, command: float, change: float) -> float:
    """The next command on the way to rest: of the change where a command says where to be, of the command too where it says how far to move."""
    least, most = max(-gear.rate, change - gear.jerk), min(gear.rate, change + gear.jerk)
    if gear.absolute:
        return sent(command + min(max(0.0, least), most))
    if command < 0.0:
        return -brake(gear, -command, -change)
    if least <= -command <= most and command <= gear.jerk:
        return 0.0
    if command + least + _levelling(gear, least) >= 0.0:
        return sent(command + least)
    # Less, so that it does not swing through: the most braking from which it still levels off in time.
    hard, soft = least, most
    for _ in range(_HALVINGS):
        middle = 0.5 * (hard + soft)
        if command + middle + _levelling(gear, middle) >= 0.0:
            soft = middle
        else:
            hard = middle
    return sent(command + soft)


def _levelling(gear: Gear, change: float) -> float:
    """How much further a command goes down while a falling change comes to nothing."""
    if change >= 0.0:
        return 0.0
    steps = int(-change / gear.jerk)
    return steps * change + gear.jerk * steps * (steps + 1) / 2


def way_to_rest(gear: Gear, command: float, change: float, longest: int) -> list[float] | None:
    """The commands that follow until nothing changes any more; None if that takes longer, or a command out of bounds."""
    way: list[float] = []
    while change != 0.0 or (command != 0.0 and not gear.absolute):
        following = brake(gear, command, change)
        if len(way) == longest or not gear.low <= following <= gear.high:
            return None
        command, change = following, following - command
        way.append(command)
    return way
