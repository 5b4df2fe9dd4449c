"""Whatever comes in, what goes out is within the limits: the law of `ornstein.safety.shield`, checked on what went out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.core import Channel, EmbodimentContract
from ornstein.core.errors import DataError
from ornstein.evaluation.trials import Trial, limits_of, try_scene
from ornstein.safety import REASONS, Box, Shield, ShieldedPolicy, ShieldLimits, violations
from ornstein.simulation.tabletop import TabletopEnv, contract

BODY = contract({})
ROOM = Box((0.31, -0.24, 0.012), (0.74, 0.24, 0.32))
POST = Box((0.5, -0.02, 0.0), (0.53, 0.02, 0.2))
HOME = (0.45, 0.0, 0.2)
_JUNK: tuple[Any, ...] = (
    None, "left", [1, 2], np.full(7, np.nan), np.full(7, np.inf), np.full(7, -np.inf), np.full(7, 1e300), np.full(7, 5e-324), {},
    np.zeros((7, 1)), np.zeros(8), np.zeros(7, complex), np.zeros(7, object), [np.nan] * 6 + [1], np.zeros(7, bool), b"1234567", [[]], object(), 1.0,
)  # fmt: skip


def limits(rate: float = 0.3, jerk: float = 0.15) -> ShieldLimits:
    return ShieldLimits.of(BODY, rate=rate, jerk=jerk).within(ROOM, POST)


def followed(shield: Shield, actions: list[Any]) -> np.ndarray:
    """What goes out to a robot that does what it is told."""
    place, out = np.array(HOME), []
    for action in actions:
        out.append(shield.guard(action, tool=place).action)
        place = place + out[-1][:3].astype(np.float64)
    return np.stack(out)


def sequence(kind: str, rng: np.random.Generator, steps: int) -> list[Any]:
    """Actions that mean no good."""
    low, high = BODY.action_low, BODY.action_high
    match kind:
        case "far beyond":
            return list(rng.normal(size=(steps, 7)) * 10.0 ** rng.integers(-3, 12, (steps, 1)))
        case "to and fro":
            return [high if k % 2 else low for k in range(steps)]
        case "into a corner":
            way = np.where(rng.random(7) < 0.5, low, high)
            return [way] * steps
        case "slowly faster":
            return [np.minimum(high, high * k / 20) * np.sign(rng.normal(size=7)) for k in range(steps)]
        case "junk":
            return [_JUNK[int(rng.integers(len(_JUNK)))] if rng.random() < 0.5 else rng.uniform(low, high) for _ in range(steps)]
        case _:
            return list(rng.uniform(low, high, (steps, 7)))


KINDS = ("plausible", "far beyond", "to and fro", "into a corner", "slowly faster", "junk")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rate", "jerk"), [(1.0, 2.0), (0.5, 1.0), (0.3, 0.15), (0.1, 0.02), (0.05, 1.0)])
def test_nothing_that_comes_in_breaks_the_law(kind: str, rate: float, jerk: float) -> None:
    by, rng = limits(rate, jerk), np.random.default_rng(KINDS.index(kind))
    for _ in range(4):
        shield = Shield(by)
        out = followed(shield, sequence(kind, rng, 120))
        assert out.dtype == np.float32
        assert violations(out, by, HOME) == []


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(0.02, 1.0),
    jerk=st.floats(0.01, 2.0),
    corner=st.tuples(*[st.floats(0.33, 0.7), st.floats(-0.2, 0.2), st.floats(0.03, 0.28)]),
    size=st.floats(0.005, 0.1),
)
def test_the_law_holds_for_any_limits_and_boxes(seed: int, rate: float, jerk: float, corner: Any, size: float) -> None:
    """Also for a box thinner than a step."""
    post = Box(corner, (corner[0] + size, corner[1] + 0.004, corner[2] + size))
    by = ShieldLimits.of(BODY, rate=rate, jerk=jerk).within(ROOM, *([] if post.holds(HOME) else [post]))
    rng = np.random.default_rng(seed)
    actions = [one for kind in rng.permutation(KINDS)[:3] for one in sequence(str(kind), rng, 25)]
    assert violations(followed(Shield(by), actions), by, HOME) == []


def test_what_is_allowed_goes_out_as_it_came_in() -> None:
    by, rng = ShieldLimits.of(BODY).within(ROOM), np.random.default_rng(3)
    shield, place = Shield(by), np.array(HOME)
    for _ in range(300):
        action = rng.uniform(BODY.action_low, BODY.action_high).astype(np.float32)
        inside = ((place + action[:3] > ROOM.low) & (place + action[:3] < ROOM.high)).all()
        out = shield.guard(action, tool=place)
        if inside:
            np.testing.assert_array_equal(out.action, action)
            assert out.reasons == ()
        else:
            assert out.reasons == ("workspace",)
        place = place + out.action[:3].astype(np.float64)
    assert set(shield.counts) == {"workspace"}


@pytest.mark.parametrize(("rate", "jerk"), [(1.0, 2.0), (0.2, 0.4), (0.2, 0.05)])
def test_a_wall_is_reached_and_not_passed(rate: float, jerk: float) -> None:
    """As near as a millimetre, and it is left again at full speed."""
    by = ShieldLimits.of(BODY, rate=rate, jerk=jerk).within(ROOM)
    shield, right = Shield(by), np.array([0, 0.03, 0, 0, 0, 0, 0], np.float32)
    out = followed(shield, [right] * 60)
    assert 0.24 - 1e-3 < out[:, 1].astype(float).sum() <= 0.24
    assert not out[-1, :6].any()
    assert shield.guard(np.array([0, 0, 0.03, 0, 0, 0, 0], np.float32), tool=(0.45, 0.24, 0.2)).action[2] > 0


def test_a_box_is_gone_around_if_the_policy_does_and_not_entered_if_not() -> None:
    by = ShieldLimits.of(BODY).within(ROOM, Box((0.5, -0.02, 0.0), (0.53, 0.02, 0.32)))
    forward, aside = np.array([0.03, 0, 0, 0, 0, 0, 0], np.float32), np.array([0, 0.03, 0, 0, 0, 0, 0], np.float32)
    out = followed(Shield(by), [forward] * 8)
    assert 0.049 < out[:, 0].astype(float).sum() <= 0.05
    around = followed(Shield(by), [aside, *[forward] * 5])
    assert around[:, 0].sum() == pytest.approx(0.15, abs=1e-6)


def test_a_tool_outside_comes_back_and_goes_no_further() -> None:
    by = ShieldLimits.of(BODY).within(ROOM)
    shield, place = Shield(by), np.array([0.45, 0.30, 0.2])
    out, back = (np.array([0, dy, 0, 0, 0, 0, 0], np.float32) for dy in (0.03, -0.03))
    assert shield.guard(out, tool=place).action[1] == 0
    place = place + shield.guard(back, tool=place).action[:3]
    assert place[1] == pytest.approx(0.27)
    assert shield.guard(out, tool=place).action[1] == 0  # nor out again
    place = place + shield.guard(back, tool=place).action[:3] + shield.guard(back, tool=place).action[:3]
    assert place[1] == pytest.approx(0.21)
    inside = Shield(ShieldLimits.of(BODY).within(None, POST))
    assert inside.guard(np.array([-0.01, 0, 0, 0, 0, 0, 0]), tool=(0.512, 0.0, 0.1)).action[0] == pytest.approx(-0.01)
    assert inside.guard(np.array([0.01, 0, 0, 0, 0, 0, 0]), tool=(0.502, 0.0, 0.1)).action[0] == 0


def test_a_stop_lasts_until_it_is_released() -> None:
    """It brakes within the limits, keeps its grip, and what is asked for meanwhile counts for nothing."""
    by = ShieldLimits.of(BODY, rate=0.25, jerk=0.5)
    shield, full = Shield(by), BODY.action_high
    before = [shield.guard(full).action for _ in range(6)]
    np.testing.assert_allclose(before[-1], full, atol=1e-6)
    shield.stop("the red button")
    after = [shield.guard(full) for _ in range(6)]
    assert {one.reasons for one in after} == {("stopped",)}
    assert violations(np.stack([*before, *[one.action for one in after]]), by, HOME) == []
    assert not after[-1].action[:6].any()
    assert after[-1].action[6] == 1.0
    assert shield.stopped == "the red button"
    shield.release()
    assert shield.guard(full).action[0] > 0


def test_old_observations_hold_it_and_then_stop_it() -> None:
    shield, full = Shield(ShieldLimits.of(BODY)), BODY.action_high
    assert shield.guard(full, age=0.4).reasons == ()
    held = shield.guard(full, age=0.6)
    assert (held.reasons, held.action[:6].any()) == (("stale",), False)
    assert shield.guard(full, age=0.1).reasons == ()
    assert shield.guard(full, late=True).reasons == ("late",)
    for age in (2.5, float("nan"), float("inf")):
        shield = Shield(ShieldLimits.of(BODY))
        assert shield.guard(full, age=age).reasons == ("stopped", "stale")
        assert shield.guard(full).reasons == ("stopped",)


def test_a_tool_that_is_elsewhere_is_believed() -> None:
    shield = Shield(ShieldLimits.of(BODY).within(ROOM))
    right = np.array([0, 0.03, 0, 0, 0, 0, 0], np.float32)
    assert shield.guard(right, tool=(0.45, 0.1, 0.2)).reasons == ()
    assert shield.guard(right, tool=(0.45, 0.07, 0.2)).reasons == ()  # it lags behind
    assert shield.guard(right, tool=(0.45, 0.235, 0.16)).reasons == ("lost", "workspace")
    assert shield.guard(right, tool=(0.45, np.nan, 0.2)).reasons == ("workspace",)
    with pytest.raises(DataError, match="told where the tool is"):
        Shield(ShieldLimits.of(BODY).within(ROOM)).guard(right)


def test_where_to_be_begins_where_the_robot_is() -> None:
    """And the law is judged from there; a place that is not known, or beyond the bounds, is the nearest that may be."""
    names = ("dx", "dy", "dz", "grip", "lift")
    body = replace(BODY, action=tuple(Channel(name, "1", *((-1, 1) if name[0] == "d" else (0.5, 2))) for name in names))
    by = ShieldLimits.of(body, rate=0.1)
    up = [0, 0, 0, 2, 2]
    for held, first in (((0, 0, 0, 1.0, 1.5), (1.15, 1.65)), ((0, 0, 0, np.nan, 9.0), (0.65, 2.0))):
        shield = Shield(by)
        out = np.stack([shield.guard(up, held=held).action, *[shield.guard(up, held=(9,) * 5).action for _ in range(4)]])
        np.testing.assert_allclose(out[0, 3:], first, atol=1e-5)
        assert violations(out, by, held=held) == []
    resting = Shield(by)
    assert violations(np.stack([resting.guard(None).action for _ in range(3)]), by) == []
    assert "rate" in violations(np.array([up]), by)


@pytest.mark.parametrize("tool", ["abc", 5, [None] * 3, np.zeros((3, 1)), [10**400] * 3, (1, 2), [np.nan] * 3, object()])
def test_a_place_that_is_none_is_not_believed(tool: Any) -> None:
    shield = Shield(ShieldLimits.of(BODY).within(ROOM))
    with pytest.raises(DataError, match="told where the tool is"):
        shield.guard(BODY.action_high, tool=tool)
    shield.guard(BODY.action_low, tool=HOME)
    assert "lost" not in shield.guard(BODY.action_low, tool=tool).reasons
    assert "stale" in shield.guard(BODY.action_low, age=None).reasons  # type: ignore[arg-type]


def test_junk_rests_and_says_so() -> None:
    for junk in _JUNK:
        found = Shield(ShieldLimits.of(BODY)).guard(junk)
        assert not found.action.any() or found.reasons == ("bounds",), junk
        assert found.reasons in (("shape",), ("not a number",), ("bounds",), ()), (junk, found.reasons)
        assert set(found.reasons) <= set(REASONS)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"low": (0.0,) * 6}, "one for each dimension"),
        ({"high": (np.nan,) * 7}, "finite low < high"),
        ({"low": (0.01,) * 7, "high": (0.02,) * 7}, "able to rest"),
        ({"rate": (0.0,) * 7}, "rate and jerk"),
        ({"jerk": (np.inf,) * 7}, "rate and jerk"),
        ({"axes": None, "workspace": ROOM}, "no dx, dy and dz"),
        ({"axes": (0, 1, 7)}, "three different dimensions"),
        ({"axes": (0, 1, 1)}, "three different dimensions"),
        ({"axes": (0, 1, 6)}, "three different dimensions"),
        ({"high": (1e39,) * 7}, "float32 cannot hold"),
        (
            {"low": (0,) * 6 + (1e4,), "high": (1,) * 6 + (1e4 + 0.01,), "rate": (0.01,) * 7, "jerk": (0.01,) * 7},
            "steps of float32",
        ),
        ({"stale_after": 3.0}, "stale_after at most stop_after"),
        ({"slip": 0.0}, "positive"),
    ],
)
def test_limits_that_limit_nothing_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        replace(ShieldLimits.of(BODY), **change)
    with pytest.raises(DataError, match="low below"):
        Box((0, 0, 0), (1, 0, 1))


class Careless:
    """Says whatever it was given to say."""

    def __init__(self, answers: list[Any], body: EmbodimentContract = BODY) -> None:
        self.contract, self.answers, self.resets = body, answers, 0

    def reset(self) -> None:
        self.resets += 1

    def act(self, observation: Any) -> Any:
        return self.answers.pop(0)


def test_a_policy_behind_a_shield_is_held_over_its_episodes() -> None:
    by = ShieldLimits.of(BODY, rate=0.1).within(ROOM)
    policy = ShieldedPolicy(Careless([BODY.action_high, np.full(7, np.nan), BODY.action_high]), by)
    seen: Any = {"agent_pos": np.array([*HOME, 0, 0, 0, 0], np.float32), "pixels": {}, "instruction": ""}
    first = policy.act(seen)
    assert policy.last is not None
    assert policy.last.reasons == ("rate",)
    policy.reset()
    assert policy.policy.resets == 1  # type: ignore[attr-defined]
    second = policy.act(seen)
    assert policy.last.reasons == ("not a number",)
    third = policy.act(seen)
    assert violations(np.stack([first, second, third]), by, HOME) == []
    assert policy.shield.counts == {"rate": 2, "not a number": 1}
    blind = replace(BODY, state=BODY.state[3:])
    with pytest.raises(DataError, match="x, y and z are needed"):
        ShieldedPolicy(Careless([], blind), by)
    with pytest.raises(DataError, match="dimensions"):
        ShieldedPolicy(Careless([], replace(BODY, action=BODY.action[:6])), by)


class Diving:
    """Drives the tool out of the workspace and asks for too much."""

    contract = BODY
    plan = ""

    def reset(self) -> None:
        """It remembers nothing."""

    def act(self, observation: Any, env: TabletopEnv) -> np.ndarray:
        return np.array([0, 0.03, 0, 0, 0, 0, 7.0], np.float32)


def test_trials_are_behind_a_shield_and_count_what_it_did() -> None:
    env = TabletopEnv(cameras={}, max_steps=20)
    try:
        held = try_scene(Diving(), env, 5, limits=limits_of(env))
        free = try_scene(Diving(), env, 5)
    finally:
        env.close()
    assert held.shielded["bounds"] == held.steps
    assert held.shielded["workspace"] > 5
    assert held.clipped == 0
    assert free.clipped >= free.steps
    assert free.shielded == {}
    assert Trial.from_json(held.to_json()).shielded == held.shielded


@pytest.mark.parametrize(
    ("commands", "law"),
    [
        ([[0.031, 0, 0, 0, 0, 0, 0]], ["bounds", "rate", "jerk"]),
        ([[0, 0, 0, 0, 0, 0, -0.001]], ["bounds"]),
        ([[np.nan] * 7], ["finite"]),
        ([[0, 0, 0.0105, 0, 0, 0, 0]], ["rate"]),
        ([[0, 0, 0.01, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]], ["jerk"]),
        ([[0, 0.01 * min(k, 3), 0, 0, 0, 0, 0] for k in range(1, 12)], ["workspace"]),
        ([[0.01 * min(k, 3), 0, -0.01, 0, 0, 0, 0] for k in range(1, 4)], ["keep out"]),
        ([[0, 0, 0.01, 0, 0, 0, 0.1], [0, 0, 0.02, 0, 0, 0, 0.2]], []),
    ],
)
def test_what_breaks_the_law_is_seen(commands: list[list[float]], law: list[str]) -> None:
    """By the check that all other tests rely on."""
    by = replace(ShieldLimits.of(BODY, rate=0.2, jerk=0.3), rate=(0.0101,) * 6 + (0.2,)).within(ROOM, POST)
    assert violations(np.array(commands), by, HOME) == law


@pytest.mark.parametrize("kind", KINDS)
def test_the_short_way_is_the_long_way(kind: str) -> None:
    """Where it may stop at once, less is computed and nothing else goes out."""
    by, rng = ShieldLimits.of(BODY).within(ROOM), np.random.default_rng(9)
    actions = [one for _ in range(3) for one in sequence(kind, rng, 150)]
    short, long = Shield(by), Shield(by)
    assert short._stops_at_once
    long._stops_at_once = False
    place = np.array([0.45, 0.26, 0.2])  # outside at first
    for action in actions:
        one, other = short.guard(action, tool=place), long.guard(action, tool=place)
        np.testing.assert_array_equal(one.action, other.action)
        assert one.reasons == other.reasons
        place = place + one.action[:3].astype(np.float64)
