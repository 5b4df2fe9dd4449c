from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ornstein.actions import UniformBins
from ornstein.core.errors import DataError
from ornstein.simulation.tabletop import contract

BINS = UniformBins.from_contract(contract())


@given(st.lists(st.floats(0, 1), min_size=7, max_size=7), st.integers(2, 1024))
def test_round_trip_within_half_a_bin(places: list[float], num_bins: int) -> None:
    bins = UniformBins(BINS.low, BINS.high, num_bins)
    low, high = np.array(bins.low), np.array(bins.high)
    action = low + np.array(places) * (high - low)
    tokens, clipped = bins.encode(action)
    assert clipped == 0
    rounding = np.finfo(np.float32).eps * np.maximum(np.abs(low), np.abs(high))  # decode() gives float32
    assert np.all(np.abs(bins.decode(tokens) - action) <= (high - low) / num_bins / 2 + rounding)


@given(st.lists(st.integers(0, 255), min_size=7, max_size=7))
def test_every_token_decodes_to_itself(tokens: list[int]) -> None:
    assert BINS.encode(BINS.decode(np.array(tokens)))[0].tolist() == tokens


def test_the_papers_layout() -> None:
    assert BINS.num_bins == 256
    assert len(BINS.low) == 7
    assert BINS.encode(np.array(BINS.low))[0].tolist() == [0] * 7
    assert BINS.encode(np.array(BINS.high))[0].tolist() == [255] * 7
    centers = BINS.decode(np.stack([np.zeros(7, int), np.full(7, 255)]))
    width = (np.array(BINS.high) - np.array(BINS.low)) / 256
    np.testing.assert_allclose(centers[0], np.array(BINS.low) + width / 2, rtol=1e-5)
    np.testing.assert_allclose(centers[1], np.array(BINS.high) - width / 2, rtol=1e-5)


def test_what_is_outside_is_clipped_and_counted() -> None:
    action = np.array([BINS.low, BINS.high])
    action[0, 0] -= 1
    action[1, 6] += 1
    tokens, clipped = BINS.encode(action)
    assert clipped == 2
    assert tokens[0, 0] == 0
    assert tokens[1, 6] == 255
    assert BINS.encode(np.float32(BINS.high))[1] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BINS.encode(np.full(7, np.nan)), "not finite"),
        (lambda: BINS.encode(np.zeros(6)), "7 numbers"),
        (lambda: BINS.decode(np.full(7, 256)), "0 … 255"),
        (lambda: BINS.decode(np.zeros(3, int)), "7 tokens"),
        (lambda: UniformBins((0.0,), (0.0,)), "below its upper"),
        (lambda: UniformBins((0.0,), (1.0, 2.0)), "as many lower"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]
