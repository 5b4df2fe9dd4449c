"""Between what a policy says and what a robot is told: whatever comes in, what goes out is within the limits.

The law, for every sequence of actions whatever they hold, with e_t what goes out at step t and p the tool's target, p_t = p_{t−1} + (e_t)_xyz:

    low ≤ e_t ≤ high;   |e_t − e_{t−1}| ≤ rate;   |e_t − 2 e_{t−1} + e_{t−2}| ≤ jerk;   p_t in the workspace and the way to it out of the keep-out boxes

It holds because nothing goes out from which the robot could not be braked within the limits, from where it then is: what is asked for is checked
together with the whole way to rest that would follow it, and where that is not allowed, less of it is taken, or the way to rest of the step before
(Gurriet et al. 2018, "Towards a Framework for Realizable Safety Critical Control": a backup policy). It bounds commands; it does not know what they are for.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ornstein.core.errors import DataError
from ornstein.safety.braking import Gear, brake, next_commands, sent, way_to_rest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ornstein.safety.limits import Box, ShieldLimits

#: Steps that a way to rest may take.
_LONGEST = 64
_HALVINGS = 6


class Guarded(NamedTuple):
    """action: float32 (A,), what may go out. reasons: why it is not what came in, in the order of `REASONS`; empty where it is."""

    action: NDArray[np.float32]
    reasons: tuple[str, ...]


#: Why the shield interferes, and what it then does.
REASONS = {
    "stopped": "it was stopped: it comes to rest until it is released",
    "stale": "the observation is old: it comes to rest until there is a new one",
    "late": "the policy did not answer in time: it comes to rest",
    "shape": "not as many numbers as the robot has dimensions",
    "not a number": "NaN, infinite, or no number at all",
    "lost": "the tool is not where it was sent: the measurement is believed",
    "bounds": "beyond the bounds of a dimension",
    "rate": "too much change at once, or too much change of that",
    "workspace": "the tool would leave the workspace, or could not be braked in it",
    "keep out": "the tool would enter a box that it must keep out of",
}


class Shield:
    """One for each robot, for as long as it is switched on: limits between commands hold over episodes, policies and connections."""

    def __init__(self, limits: ShieldLimits) -> None:
        self.limits = limits
        self._gears = tuple(_gear(limits, k) for k in range(len(limits.low)))
        #: How often each reason came up since it was made.
        self.counts: Counter[str] = Counter()
        self._stopped = ""
        self._command = [0.0 if not gear.absolute else min(max(0.0, gear.low), gear.high) for gear in self._gears]
        self._change = [0.0] * len(self._gears)
        self._begun = False
        #: Whether it may stop at once from whatever it does: then what is within bounds and room needs no further look.
        self._stops_at_once = not limits.keep_out and all(
            gear.rate >= gear.high - gear.low and gear.jerk >= 2 * (gear.high - gear.low) for gear in self._gears
        )
        self._target: list[float] | None = None
        self._room: list[tuple[float, float]] = []

    @property
    def stopped(self) -> str:
        """Why it was stopped, empty while it is not."""
        return self._stopped

    def stop(self, why: str) -> None:
        """Come to rest and stay there, whatever is asked for, until `release`."""
        self._stopped = why.strip() or "no reason was given"

    def release(self) -> None:
        """Somebody looked and it may go on."""
        self._stopped = ""

    def guard(
        self,
        action: Any,
        *,
        tool: Sequence[float] | NDArray[np.floating] | None = None,
        held: Sequence[float] | None = None,
        age: float = 0.0,
        late: bool = False,
    ) -> Guarded:
        """What may go out instead of `action`.

        Args:
            action: whatever a policy answered. tool: the measured place of the tool [m], where boxes limit it; its target is followed from there on. held: of
                each dimension that says where to be, where the robot is before its first command, NaN where that is not known; 0, or what is nearest to it,
                unless told. age: of the observation that the policy saw [s]. late: whether there is no answer, and `action` is to be left aside.

        Raises:
            DataError: boxes limit a tool whose place was never told.
        """
        reasons: list[str] = []
        if not self._begun and held is not None:
            self._begin(held)
        self._begun = True
        self._watch(age, late, reasons)
        wanted = None if reasons else self._read(action, reasons)
        if self.limits.axes is not None and (self.limits.workspace is not None or self.limits.keep_out):
            self._locate(tool, reasons)
        following = self._as_it_is(wanted) if self._stops_at_once and wanted is not None else None
        if following is None:
            resting = [brake(gear, c, d) for gear, c, d in zip(self._gears, self._command, self._change, strict=True)]
            following = resting if wanted is None else self._reachable(wanted, reasons)
            following = self._allowed(following, resting, reasons)
        self._change = [new - old for new, old in zip(following, self._command, strict=True)]
        self._command = following
        if self._target is not None and self.limits.axes is not None:
            self._target = [p + following[k] for p, k in zip(self._target, self.limits.axes, strict=True)]
            self._make_room(self._target)
        self.counts.update(reasons)
        return Guarded(np.array(following, np.float32), tuple(name for name in REASONS if name in reasons))

    def _begin(self, held: Sequence[float]) -> None:
        """From where the robot is."""
        for k, (gear, place) in enumerate(zip(self._gears, held, strict=True)):
            if gear.absolute and math.isfinite(place):
                self._command[k] = sent(min(max(float(place), gear.low), gear.high))

    def _watch(self, age: Any, late: bool, reasons: list[str]) -> None:
        age = age if isinstance(age, int | float) else math.inf
        old = not age <= self.limits.stale_after  # an age that is not a number is old
        if not age <= self.limits.stop_after:
            self.stop(f"no new observation for {self.limits.stop_after:g} s")
        reasons += ["stopped"] * bool(self._stopped) + ["stale"] * old + ["late"] * late

    def _read(self, action: Any, reasons: list[str]) -> list[float] | None:
        """The numbers asked for, within bounds; None where they are none."""
        try:
            given = np.asarray(action)
            plain = given.dtype.kind in "fiu" and given.shape == (len(self._gears),)
            numbers = [float(number) for number in given] if plain else None
        except Exception:  # whatever it is, it is no action
            numbers, given = None, np.empty(0)
        if numbers is None:
            reasons.append("shape" if given.shape != (len(self._gears),) else "not a number")
            return None
        if not all(map(math.isfinite, numbers)):
            reasons.append("not a number")
            return None
        bounded = [min(max(number, gear.low), gear.high) for number, gear in zip(numbers, self._gears, strict=True)]
        if any(not low <= number <= high for number, low, high in zip(numbers, self.limits.low, self.limits.high, strict=True)):
            reasons.append("bounds")
        return bounded

    def _locate(self, tool: Sequence[float] | NDArray[np.floating] | None, reasons: list[str]) -> None:
        """Follow the measured tool where it is not where it was sent."""
        measured = _point(tool)
        if self._target is None:
            if measured is None:
                raise DataError(
                    "this shield keeps the tool in boxes: it must be told where the tool is, three finite numbers [m]"
                )
            self._believe(measured)
        elif measured is not None and math.dist(measured, self._target) > self.limits.slip:
            reasons.append("lost")
            self._room = []
            self._believe(measured)

    def _believe(self, place: list[float]) -> None:
        self._target = place
        self._make_room(place)

    def _make_room(self, place: list[float]) -> None:
        """The workspace. A tool that is outside, or cannot be braked before it is, may come back and may not go further."""
        box = self.limits.workspace
        if box is None or (
            self._room and all(low == a and high == b for (low, high), a, b in zip(self._room, box.low, box.high, strict=True))
        ):
            return
        assert self.limits.axes is not None
        self._room = []
        for axis, (k, low, high) in enumerate(zip(self.limits.axes, box.low, box.high, strict=True)):
            way = way_to_rest(self._gears[k], self._command[k], self._change[k], _LONGEST) or []
            passed = [place[axis], *(place[axis] + total for total in _sums(way))]
            self._room.append((min(low, *passed), max(high, *passed)))

    def _as_it_is(self, wanted: list[float]) -> list[float] | None:
        """As it goes over the wire, if the tool stays in its room; it can stop there. None where more is to be looked at."""
        following = np.array(wanted, np.float32).tolist()
        if self._target is not None and self.limits.axes is not None:
            for place, (low, high), k in zip(self._target, self._room, self.limits.axes, strict=False):
                if not low <= place + following[k] <= high:
                    return None
        return following

    def _reachable(self, wanted: list[float], reasons: list[str]) -> list[float]:
        """As near to what is asked for as rate and jerk allow, so that it can still be brought to rest within bounds."""
        found = []
        for number, gear, command, change in zip(wanted, self._gears, self._command, self._change, strict=True):
            least, most = next_commands(gear, command, change)
            near = sent(min(max(number, least, gear.low), most, gear.high))
            if gear.jerk < 2 * gear.rate and not self._levels(gear, command, near):
                near = self._less(near, brake(gear, command, change), partial(self._levels, gear, command))
            found.append(near)
        if any(abs(a - b) > 1e-6 * (gear.high - gear.low) for a, b, gear in zip(found, wanted, self._gears, strict=True)):
            reasons.append("rate")
        return found

    def _levels(self, gear: Gear, command: float, following: float) -> bool:
        return way_to_rest(gear, following, following - command, _LONGEST) is not None

    def _to_the_wall(self, axis: int, wanted: float, fits: Callable[[float], bool]) -> float:
        """No further than the room reaches, as far as float32 says it."""
        assert self._target is not None
        low, high = (edge - self._target[axis] for edge in self._room[axis])
        clipped = sent(min(max(wanted, low), high))
        return clipped if fits(clipped) else float(np.nextafter(np.float32(clipped), np.float32(low + high) / 2))

    def _less(self, wanted: float, resting: float, fine: Callable[[float], bool]) -> float:
        """Between the way to rest, which is allowed, and what is asked for, which is not."""
        allowed, refused = resting, wanted
        for _ in range(_HALVINGS):
            middle = sent(0.5 * (allowed + refused))
            if fine(middle):
                allowed = middle
            else:
                refused = middle
        return allowed

    def _allowed(self, wanted: list[float], resting: list[float], reasons: list[str]) -> list[float]:
        """The same where the tool may go there and be braked behind; else less of it."""
        if self._target is None or self.limits.axes is None:
            return wanted
        following = list(wanted)
        for axis, k in enumerate(self.limits.axes if self._room else ()):
            gear, command = self._gears[k], self._command[k]

            def fits(one: float, gear: Gear = gear, command: float = command, axis: int = axis) -> bool:
                return self._fits(gear, command, one, axis)

            if following[k] != resting[k] and not fits(following[k]):
                following[k] = self._to_the_wall(axis, following[k], fits)
                if not fits(following[k]):
                    following[k] = self._less(following[k], resting[k], fits)
                if "workspace" not in reasons:
                    reasons.append("workspace")
        if self.limits.keep_out and not self._keeps_out(following):
            reasons.append("keep out")
            # Turning and gripping go on; only the tool's way is shortened.
            still = [resting[k] if k in self.limits.axes else one for k, one in enumerate(following)]
            allowed, refused = still, following
            for _ in range(_HALVINGS):
                middle = [sent(0.5 * (a + b)) for a, b in zip(allowed, refused, strict=True)]
                ways = [self._fits(self._gears[k], self._command[k], middle[k], axis) for axis, k in enumerate(self.limits.axes)]
                if all(ways) and self._keeps_out(middle):
                    allowed = middle
                else:
                    refused = middle
            following = allowed
        return following

    def _fits(self, gear: Gear, command: float, following: float, axis: int) -> bool:
        """Whether after this command the tool can be braked within the room along one axis."""
        if not self._room:
            return True
        assert self._target is not None
        way = way_to_rest(gear, following, following - command, _LONGEST)
        if way is None:
            return False
        low, high = self._room[axis]
        place = self._target[axis]
        return all(low <= place + total <= high for total in _sums([following, *way]))

    def _keeps_out(self, following: list[float]) -> bool:
        """Whether the way there and to rest goes through no box; one that the tool is in already may be left, and not gone deeper into."""
        assert self._target is not None
        assert self.limits.axes is not None
        ways = []
        for k in self.limits.axes:
            way = way_to_rest(self._gears[k], following[k], following[k] - self._command[k], _LONGEST)
            if way is None:
                return False
            ways.append(_sums([following[k], *way]))
        longest = max(map(len, ways))
        places = [self._target] + [
            [start + sums[min(step, len(sums) - 1)] for start, sums in zip(self._target, ways, strict=True)]
            for step in range(longest)
        ]
        return all(_clear(box, places) for box in self.limits.keep_out)


def _point(tool: Any) -> list[float] | None:
    """Three finite numbers; None where it is anything else."""
    try:
        measured = [float(x) for x in tool]
    except (TypeError, ValueError, OverflowError):
        return None
    return measured if len(measured) == 3 and all(map(math.isfinite, measured)) else None


def _clear(box: Box, places: list[list[float]]) -> bool:
    if box.holds(places[0]):
        depths = [min(min(x - a, b - x) for a, x, b in zip(box.low, place, box.high, strict=True)) for place in places]
        return all(after <= before for before, after in zip(depths, depths[1:], strict=False))
    return not any(box.meets(a, b) for a, b in zip(places, places[1:], strict=False))


def _sums(steps: list[float]) -> list[float]:
    total, found = 0.0, []
    for step in steps:
        total += step
        found.append(total)
    return found


def _gear(limits: ShieldLimits, k: int) -> Gear:
    """Less the rounding of what is sent: four commands make the change of a change."""
    low, high = limits.low[k], limits.high[k]
    rounding = 4 * float(np.spacing(np.float32(max(abs(low), abs(high)))))
    # Where bounds alone allow no more, nothing is taken off: what is allowed goes out as it came in.
    rate = limits.rate[k] if limits.rate[k] >= high - low else limits.rate[k] - rounding
    jerk = limits.jerk[k] if limits.jerk[k] >= 2 * (high - low) else limits.jerk[k] - rounding
    return Gear(*_inward(low, high), rate, jerk, limits.absolute[k])


def _inward(low: float, high: float) -> tuple[float, float]:
    """As float32 numbers that lie within."""
    below, above = np.float32(low), np.float32(high)
    if float(below) < low:
        below = np.nextafter(below, np.float32(np.inf))
    if float(above) > high:
        above = np.nextafter(above, np.float32(-np.inf))
    return float(below), float(above)
