from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ornstein.core import Camera, Channel, ContractError, EmbodimentContract, NormalizationStatistics

STATISTICS = NormalizationStatistics.from_arrays({"action": np.arange(14.0).reshape(2, 7)})
CONTRACT = EmbodimentContract(
    robot="arm-a",
    cameras=(Camera("front", 96, 128), Camera("wrist", 64, 64)),
    state=(Channel("x", "m", -1.0, 1.0), Channel("yaw", "rad", -3.14, 3.14)),
    action=(Channel("dx", "m", -0.05, 0.05), Channel("dyaw", "rad", -0.3, 0.3), Channel("gripper", "1", 0.0, 1.0)),
    action_frame="delta, base frame",
    rotation="extrinsic xyz Euler, radians",
    gripper="0 open … 1 closed",
    control_hz=5.0,
    chunk_length=1,
    statistics=STATISTICS,
)
# Every field, changed: the line that must name it.
CHANGES = [
    (replace(CONTRACT, robot="arm-b"), "robot: arm-a != arm-b"),
    (replace(CONTRACT, cameras=(Camera("front", 96, 128),)), "cameras: front, wrist != front"),
    (replace(CONTRACT, cameras=(Camera("front", 64, 128), CONTRACT.cameras[1])), "cameras.front.height: 96 != 64"),
    (replace(CONTRACT, cameras=(Camera("front", 96, 64), CONTRACT.cameras[1])), "cameras.front.width: 128 != 64"),
    (
        replace(CONTRACT, cameras=(CONTRACT.cameras[0], Camera("wrist", 64, 64, "BGR"))),
        "cameras.wrist.color: RGB != BGR",
    ),
    (replace(CONTRACT, cameras=CONTRACT.cameras[::-1]), "cameras: front, wrist != wrist, front"),
    (replace(CONTRACT, state=CONTRACT.state[::-1]), "state: x, yaw != yaw, x"),
    (
        replace(CONTRACT, state=(Channel("x", "mm", -1.0, 1.0), CONTRACT.state[1])),
        "state.x.unit: m != mm",
    ),
    (
        replace(CONTRACT, action=(*CONTRACT.action[:2], Channel("gripper", "1", -1.0, 1.0))),
        "action.gripper.low: 0.0 != -1.0",
    ),
    (
        replace(CONTRACT, action=(Channel("dx", "m", -0.05, float(np.nextafter(0.05, 1))), *CONTRACT.action[1:])),
        "action.dx.high: 0.05 != 0.05000000000000001",
    ),
    (replace(CONTRACT, action_frame="absolute"), "action_frame: delta, base frame != absolute"),
    (replace(CONTRACT, rotation="axis angle"), "rotation: extrinsic xyz Euler, radians != axis angle"),
    (replace(CONTRACT, gripper="0 closed … 1 open"), "gripper: 0 open … 1 closed != 0 closed … 1 open"),
    (replace(CONTRACT, control_hz=10), "control_hz: 5.0 != 10.0"),
    (replace(CONTRACT, chunk_length=4), "chunk_length: 1 != 4"),
]


@pytest.mark.parametrize(("other", "line"), CHANGES, ids=[line.split(":")[0] for _, line in CHANGES])
def test_a_difference_is_one_line_that_names_the_field(other: EmbodimentContract, line: str) -> None:
    assert CONTRACT.differences(other) == [line]
    assert other.fingerprint != CONTRACT.fingerprint
    with pytest.raises(ContractError, match="the policy does not fit the environment") as caught:
        CONTRACT.require_match(other, "the policy", "the environment")
    assert line in str(caught.value)


def test_every_field_is_covered_above() -> None:
    named = {line.split(":")[0].split(".")[0] for _, line in CHANGES}
    assert named | {"statistics"} == {field.name for field in fields(EmbodimentContract)}
    parts = {line.split(":")[0].split(".")[2] for _, line in CHANGES if line.count(".") >= 2 and "." in line.split(":")[0]}
    both = {field.name for field in fields(Camera)} | {field.name for field in fields(Channel)}
    assert parts == both - {"name"}


def test_it_matches_itself() -> None:
    assert CONTRACT.differences(replace(CONTRACT)) == []
    CONTRACT.require_match(replace(CONTRACT), "the policy", "the environment")


def test_several_differences_are_all_listed() -> None:
    other = replace(CONTRACT, robot="arm-b", control_hz=10.0)
    with pytest.raises(ContractError) as caught:
        CONTRACT.require_match(other, "a", "b")
    assert "robot" in str(caught.value)
    assert "control_hz" in str(caught.value)


def test_statistics_are_compared_only_where_both_have_them() -> None:
    others = NormalizationStatistics.from_arrays({"action": np.ones((2, 7))})
    assert CONTRACT.differences(replace(CONTRACT, statistics=None)) == []
    assert replace(CONTRACT, statistics=None).differences(CONTRACT) == []
    line = f"statistics: {STATISTICS.fingerprint} != {others.fingerprint}"
    assert CONTRACT.differences(replace(CONTRACT, statistics=others)) == [line]
    assert replace(CONTRACT, statistics=None).fingerprint == CONTRACT.fingerprint


def test_bounds_as_arrays() -> None:
    np.testing.assert_array_equal(CONTRACT.action_low, [-0.05, -0.3, 0.0])
    np.testing.assert_array_equal(CONTRACT.action_high, [0.05, 0.3, 1.0])
    assert CONTRACT.action_low.dtype == CONTRACT.action_high.dtype == np.float64


BOUNDS = st.tuples(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300)).filter(lambda pair: pair[0] < pair[1])
CHANNELS = st.lists(
    st.builds(lambda name, unit, pair: Channel(name, unit, *pair), st.text(max_size=9), st.text(max_size=3), BOUNDS),
    max_size=4,
    unique_by=lambda channel: channel.name,
).map(tuple)


@given(CHANNELS, CHANNELS, st.floats(1e-3, 1e6), st.booleans())
def test_json_keeps_every_bit(state: tuple[Channel, ...], action: tuple[Channel, ...], rate: float, measured: bool) -> None:
    contract = replace(CONTRACT, state=state, action=action, control_hz=rate, statistics=STATISTICS if measured else None)
    again = EmbodimentContract.from_json(json.loads(json.dumps(contract.to_json())))
    assert again == contract
    assert again.fingerprint == contract.fingerprint


def test_an_integer_bound_is_the_same_contract() -> None:
    integers = replace(CONTRACT, action=(*CONTRACT.action[:2], Channel("gripper", "1", 0, 1)))
    assert integers.fingerprint == CONTRACT.fingerprint


@pytest.mark.parametrize("group", [None, "cameras", "state", "action"])
@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_reading_is_strict(group: str | None, change: str) -> None:
    data = json.loads(json.dumps(CONTRACT.to_json()))
    part = data if group is None else data[group][0]
    if change == "missing":
        key = "gripper" if group is None else "name"
        del part[key]
    else:
        key = "colour_space"
        part[key] = "sRGB"
    with pytest.raises(ContractError, match=key):
        EmbodimentContract.from_json(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [("control_hz", "fast"), ("control_hz", 0), ("chunk_length", 0), ("cameras", 3), ("statistics", {"count": 1})],
)
def test_impossible_values_are_refused_on_reading(key: str, value: object) -> None:
    with pytest.raises(ContractError):
        EmbodimentContract.from_json({**CONTRACT.to_json(), key: value})


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_bounds_must_be_finite_and_ordered(low: float, high: float) -> None:
    with pytest.raises(ContractError, match="'dx'"):
        Channel("dx", "m", low, high)


def test_cameras_have_pixels_a_known_order_and_names_of_their_own() -> None:
    with pytest.raises(ContractError, match="0 × 64"):
        Camera("front", 0, 64)
    with pytest.raises(ContractError, match="'GBR'"):
        Camera("front", 64, 64, "GBR")
    with pytest.raises(ContractError, match="repeat a name: front, front"):
        replace(CONTRACT, cameras=(Camera("front", 1, 1), Camera("front", 2, 2)))
