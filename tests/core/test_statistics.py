from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from ornstein.core import DataError, NormalizationStatistics

FINITE = st.floats(-1e6, 1e6)
FRAMES = st_numpy.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 8)), elements=FINITE)


def _of(frames: np.ndarray) -> NormalizationStatistics:
    return NormalizationStatistics.from_arrays({"action": frames})


@given(FRAMES)
def test_they_are_numpys(frames: np.ndarray) -> None:
    statistics = _of(frames)
    assert statistics.count == len(frames)
    for table, expected in (("mean", frames.mean(0)), ("std", frames.std(0)), ("minimum", frames.min(0))):
        np.testing.assert_array_equal(getattr(statistics, table)["action"], expected)
    np.testing.assert_array_equal(statistics.maximum["action"], frames.max(0))


@given(FRAMES)
def test_denormalize_undoes_normalize(frames: np.ndarray) -> None:
    statistics = _of(frames)
    again = statistics.denormalize("action", statistics.normalize("action", frames))
    np.testing.assert_allclose(again, frames, rtol=1e-12, atol=1e-9)


def test_normalised_data_have_mean_0_and_std_1() -> None:
    frames = np.random.default_rng(0).normal([3.0, -100.0], [0.01, 40.0], (10_000, 2))
    z = _of(frames).normalize("action", frames)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1234.567, 1e-9])
def test_a_dimension_that_never_moves_stays_finite(constant: float) -> None:
    statistics = _of(np.full((1000, 1), constant))
    z = statistics.normalize("action", np.array([constant, constant + 1.0])[:, None])
    np.testing.assert_allclose(z[:, 0], [0.0, 1.0], atol=1e-9)  # not 1 / rounding error


def test_a_small_but_real_spread_is_not_taken_for_constant() -> None:
    frames = np.random.default_rng(0).normal(0.5, 1e-5, (1000, 1))
    np.testing.assert_allclose(_of(frames).normalize("action", frames).std(), 1, rtol=1e-9)


def test_leading_axes_and_dtypes_are_kept() -> None:
    statistics = _of(np.arange(12.0).reshape(4, 3))
    chunk = np.zeros((2, 5, 3), np.float32)
    assert statistics.normalize("action", chunk).shape == (2, 5, 3)
    assert statistics.normalize("action", chunk).dtype == np.float32
    assert statistics.normalize("action", chunk.astype(np.float64)).dtype == np.float64
    assert statistics.normalize("action", chunk.astype(np.int64)).dtype == np.float32


@given(FRAMES)
def test_json_keeps_every_bit(frames: np.ndarray) -> None:
    statistics = _of(frames)
    again = NormalizationStatistics.from_json(json.loads(json.dumps(statistics.to_json())))
    assert again == statistics
    assert again.fingerprint == statistics.fingerprint


def test_the_fingerprint_changes_with_the_last_bit_of_any_number() -> None:
    statistics = _of(np.random.default_rng(0).normal(size=(10, 3)))
    seen = {statistics.fingerprint, replace(statistics, count=11).fingerprint}
    for table in ("mean", "std", "minimum", "maximum"):
        numbers = getattr(statistics, table)["action"]
        nudged = (numbers[0], float(np.nextafter(numbers[1], np.inf)), numbers[2])
        seen.add(replace(statistics, **{table: {"action": nudged}}).fingerprint)
    assert len(seen) == 6
    assert all(len(fingerprint) == 16 and int(fingerprint, 16) >= 0 for fingerprint in seen)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_located(bad: float) -> None:
    frames = np.zeros((5, 3))
    frames[3, 1] = bad
    with pytest.raises(DataError, match=r"'action': 1 numbers are not finite, the first in frame 3, dimension 1"):
        _of(frames)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (2, 2, 2)])
def test_shapes_without_frames_or_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="non-empty"):
        _of(np.zeros(shape))


def test_features_must_have_as_many_frames() -> None:
    with pytest.raises(DataError, match="as many frames"):
        NormalizationStatistics.from_arrays({"action": np.zeros((3, 1)), "state": np.zeros((4, 1))})
    with pytest.raises(DataError, match="at least one feature"):
        NormalizationStatistics.from_arrays({})


def test_a_wrong_feature_or_width_is_named() -> None:
    statistics = _of(np.zeros((2, 3)))
    with pytest.raises(DataError, match="no statistics of 'state'"):
        statistics.normalize("state", np.zeros(3))
    with pytest.raises(DataError, match=r"3 dimensions, got an array of shape \(7,\)"):
        statistics.denormalize("action", np.zeros(7))


def test_impossible_tables_are_refused() -> None:
    good = _of(np.arange(6.0).reshape(3, 2)).to_json()
    for change, words in [
        ({"count": 0}, "at least one frame"),
        ({"std": {"action": [1.0, -1.0]}}, "negative"),
        ({"mean": {"action": [1.0]}}, "2 numbers"),
        ({"mean": {"state": [1.0, 2.0]}}, "names"),
        ({"mean": {"action": [1.0, float("nan")]}}, "not finite"),
        ({"minimum": {"action": [9.0, 9.0]}}, "above maximum"),
        ({"mean": {"action": ["a", "b"]}}, "not a number"),
        ({"extra": 1}, "keys"),
    ]:
        with pytest.raises(DataError, match=words):
            NormalizationStatistics.from_json({**good, **change})
