from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ornstein.actions import QuantileBins
from ornstein.core.errors import DataError
from ornstein.simulation.tabletop import contract

CONTRACT = contract()
LOW, HIGH = CONTRACT.action_low.astype(float), CONTRACT.action_high.astype(float)


def _actions(n: int, seed: int = 0) -> np.ndarray:
    """Mostly still, a few fast, the gripper open or closed."""
    rng = np.random.default_rng(seed)
    places = np.clip(rng.normal(0.5, 0.08, (n, 7)), 0, 1)
    places[rng.random((n, 7)) < 0.3] = 0.5
    places[:, 6] = rng.random(n) < 0.4
    return LOW + places * (HIGH - LOW)


@given(st.lists(st.floats(0, 1), min_size=7, max_size=7), st.integers(2, 300))
def test_round_trip_within_half_of_its_bin(places: list[float], num_bins: int) -> None:
    bins = QuantileBins.fit(_actions(400), CONTRACT, num_bins)
    action = LOW + np.array(places) * (HIGH - LOW)
    tokens, clipped = bins.encode(action)
    assert clipped == 0
    widths = np.diff(np.asarray(bins.edges))[np.arange(7), tokens]
    assert np.all(np.abs(bins.decode(tokens) - action) <= widths / 2 + 1e-7)
    assert bins.encode(bins.decode(tokens))[0].tolist() == tokens.tolist()


def test_bins_hold_equal_shares_of_what_does_not_repeat() -> None:
    rng = np.random.default_rng(1)
    values = LOW + np.clip(rng.normal(0.5, 0.1, (50_000, 7)), 0, 1) * (HIGH - LOW)
    tokens, _ = QuantileBins.fit(values, CONTRACT, 64).encode(values)
    shares = np.bincount(tokens[:, 2], minlength=64) / len(values)
    assert shares.max() < 1.3 / 64
    assert shares.min() > 0.7 / 64


def test_frequent_actions_are_told_apart_more_finely_than_by_equal_bins() -> None:
    actions = _actions(20_000)
    bins = QuantileBins.fit(actions, CONTRACT, 64)
    moving = actions[np.abs(actions[:, 0] - (LOW + HIGH)[0] / 2) > 1e-9]
    error = np.abs(bins.decode(bins.encode(moving)[0]) - moving)[:, 0].mean()
    assert error < 0.6 * (HIGH - LOW)[0] / 64 / 4  # equal bins are off by a quarter of their width on average


def test_a_number_that_is_most_of_the_data_leaves_as_many_bins() -> None:
    bins = QuantileBins.fit(np.tile(LOW, (100, 1)), CONTRACT, 16)
    assert all(len(edges) == 17 and (np.diff(edges) > 0).all() for edges in bins.edges)
    assert all(edges[0] == low and edges[-1] == high for edges, low, high in zip(bins.edges, LOW, HIGH, strict=True))


def test_what_is_outside_is_clipped_and_counted() -> None:
    bins = QuantileBins.fit(_actions(100), CONTRACT, 8)
    tokens, clipped = bins.encode(np.array([LOW - 1, HIGH]))
    assert clipped == 7
    assert tokens[0].tolist() == [0] * 7
    assert tokens[1].tolist() == [7] * 7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: QuantileBins.fit(np.full((3, 7), np.nan), CONTRACT, 4), "not finite"),
        (lambda: QuantileBins.fit(np.zeros((0, 7)), CONTRACT, 4), "at least one action"),
        (lambda: QuantileBins.fit(np.zeros((3, 6)), CONTRACT, 4), "7 numbers"),
        (lambda: QuantileBins.fit(_actions(9), CONTRACT, 1), "2 bins"),
        (lambda: QuantileBins(((0.0, 0.0, 1.0),)), "ascend strictly"),
        (lambda: QuantileBins(((0.0, 0.5, 1.0), (0.0, 1.0))), "same number of edges"),
        (lambda: QuantileBins.fit(_actions(9), CONTRACT, 4).decode(np.full(7, 4)), "0 … 3"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]
