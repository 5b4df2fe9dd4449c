"""Whether commands kept the shield's law: checked on what went out, by nothing that the shield itself uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ornstein.safety.limits import ShieldLimits

#: Of sums of float64 [m].
_ROUNDING = 1e-9
_POINTS_A_STEP = 50


def violations(commands: NDArray[np.floating], limits: ShieldLimits, start: Sequence[float] | None = None) -> list[str]:
    """What of the law (see `ornstein.safety.shield`) a sequence of commands breaks, in words; empty where it keeps all of it.

    Args:
        commands: (T, A), in their order, the first of them from rest. start: where the tool's target was before the first [m]; boxes are not looked at without.
    """
    sent = np.asarray(commands, np.float64)
    if not np.isfinite(sent).all():
        return ["finite"]
    still = np.zeros((2, sent.shape[1]))
    changes = np.diff(np.vstack([still, sent]), axis=0)
    found = ["bounds"] * bool((sent < limits.low).any() or (sent > limits.high).any())
    found += ["rate"] * bool((np.abs(changes) > limits.rate).any())
    found += ["jerk"] * bool((np.abs(np.diff(changes, axis=0)) > limits.jerk).any())
    if start is None or limits.axes is None:
        return found
    places = np.array(start) + np.vstack([np.zeros(3), np.cumsum(sent[:, list(limits.axes)], axis=0)])
    if limits.workspace is not None:
        below, above = np.array(limits.workspace.low) - _ROUNDING, np.array(limits.workspace.high) + _ROUNDING
        found += ["workspace"] * bool(((places < below) | (places > above)).any())
    for box in limits.keep_out:
        ways = np.linspace(places[:-1], places[1:], _POINTS_A_STEP)
        inside = (ways > np.array(box.low) + _ROUNDING) & (ways < np.array(box.high) - _ROUNDING)
        found += ["keep out"] * bool(inside.all(-1).any())
    return found
