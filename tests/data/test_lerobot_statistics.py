from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.data.lerobot_statistics import QUANTILES, Moments, PixelCounts, quantiles


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 5), st.floats(-1e6, 1e6), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_merged_moments_are_those_of_everything_together(lengths: list[int], width: int, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(offset, 1.5, (length, width)).astype(np.float32) for length in lengths]
    merged = Moments.of(parts[0])
    for part in parts[1:]:
        merged = merged.merge(Moments.of(part))
    together = np.concatenate(parts).astype(np.float64)
    assert merged.count == len(together)
    np.testing.assert_allclose(merged.mean, together.mean(0), rtol=1e-12, atol=1e-12)
    # A large offset costs what float64 costs, and not what subtracting squares costs.
    np.testing.assert_allclose(merged.std, together.std(0), rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(merged.minimum, together.min(0))
    np.testing.assert_array_equal(merged.maximum, together.max(0))


def test_scalars_booleans_and_one_row() -> None:
    moments = Moments.of(np.array([True, False, False, False]))
    assert moments.to_json(quantiles(np.array([True, False, False, False])))["mean"] == [0.25]
    single = Moments.of(np.array([[3, 4]], np.int64))
    described = single.to_json(quantiles(np.array([[3, 4]])))
    assert described["std"] == [0.0, 0.0]
    assert described["q01"] == described["q99"] == [3.0, 4.0]
    assert described["count"] == [1]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_pixel_counts_give_what_numpy_gives_on_all_pixels(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = int(rng.integers(0, 256))  # a narrow range, so that values repeat
    parts = [rng.integers(low, min(low + 9, 256), (length, 5, 4, 3)).astype(np.uint8) for length in lengths]
    merged = PixelCounts.of(parts[0])
    for part in parts[1:]:
        merged = merged.merge(PixelCounts.of(part))
    pixels = np.concatenate(parts).reshape(-1, 3) / 255
    expected = {"min": pixels.min(0), "max": pixels.max(0), "mean": pixels.mean(0), "std": pixels.std(0)}
    expected |= {key: np.quantile(pixels, q, axis=0) for key, q in QUANTILES.items()}
    found = merged.to_json()
    assert found["count"] == [sum(lengths)]
    for key, value in expected.items():
        assert np.shape(found[key]) == (3, 1, 1)
        np.testing.assert_allclose(np.ravel(found[key]), value, rtol=1e-12, atol=1e-12, err_msg=key)
