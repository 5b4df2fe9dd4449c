"""Pictures as points: stated preprocessing, and refusal of what does not fit."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

import ornstein
from ornstein.core import DataError
from ornstein.images import Extractor, Features, to_tensor
from ornstein.images.features import require_comparable


class _Means(nn.Module):
    """Mean of each colour, after the range that came."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3))


class _Flat(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1)


def _pictures(n: int = 5, side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def _points(values: np.ndarray, **other: str) -> Features:
    return Features(np.asarray(values), **{"extractor": "points", "resize": "none", "range": "any", **other})


def test_the_shipped_network_gives_its_pooled_activations() -> None:
    judge = ornstein.load("emoji-classifier")
    extractor = Extractor.of_judge(judge)
    pictures = _pictures(3, 128)
    features = extractor.extract(pictures)
    with torch.inference_mode():
        expected = judge.network.features(to_tensor(pictures)).numpy()
    np.testing.assert_allclose(features.values, expected, rtol=1e-4, atol=1e-5)
    assert features.values.dtype == np.float64
    assert features.extractor.startswith("emoji-classifier@")
    assert (features.resize, features.range) == ("128 px, as they are", "-1 to 1")


def test_pixels_are_repeated_where_the_side_is_a_multiple() -> None:
    extractor = Extractor("flat", _Flat(), side=16, low=0, high=255)
    features = extractor.extract(_pictures())
    expected = _pictures().repeat(2, 1).repeat(2, 2).transpose(0, 3, 1, 2).reshape(5, -1)
    np.testing.assert_allclose(features.values, expected, atol=1e-4)
    assert features.resize == "8 px, each pixel repeated 2 times"


@pytest.mark.parametrize("side", [20, 40])
def test_other_sizes_are_resized_as_pillow_does(side: int) -> None:
    """Antialiased bicubic in floating point, clipped but not rounded (as Parmar et al. 2022 advise)."""
    pictures = _pictures(2, 30)
    ours = Extractor("flat", _Flat(), side=side, low=0, high=255).extract(pictures)
    for picture, row in zip(pictures, ours.values, strict=True):
        for channel, values in enumerate(row.reshape(3, side, side)):
            plane = PIL.Image.fromarray(picture[:, :, channel].astype(np.float32))
            theirs = np.asarray(plane.resize((side, side), PIL.Image.Resampling.BICUBIC)).clip(0, 255)
            np.testing.assert_allclose(values, theirs, atol=1e-2)
    assert ours.resize == f"30 px, bicubic with antialiasing to {side} px"


def test_batches_and_their_cut_change_nothing() -> None:
    extractor = Extractor("means", _Means(), side=8, low=0, high=1)
    pictures = _pictures(150)
    whole = extractor.extract(pictures)
    pieces = extractor.extract(iter([pictures[:7], pictures[7:140], pictures[140:]]))
    np.testing.assert_array_equal(whole.values, pieces.values)
    np.testing.assert_allclose(whole.values, pictures.reshape(150, -1, 3).mean(1) / 255, atol=1e-6)
    require_comparable(whole, pieces, same_n=True)


def test_other_weights_have_another_fingerprint() -> None:
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(192, 2)) for _ in range(2)]
    names = [Extractor("net", network, side=8).name for network in networks]
    assert names[0] != names[1]
    networks[1].load_state_dict(networks[0].state_dict())
    assert Extractor("net", networks[1], side=8).name == names[0]


def test_dropout_sleeps() -> None:
    extractor = Extractor("dropped", nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), side=8)
    np.testing.assert_array_equal(extractor.extract(_pictures()).values, extractor.extract(_pictures()).values)


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (_pictures().astype(np.float32), "uint8"),
        (_pictures()[..., 0], "uint8"),
        (_pictures()[:, :4], "square"),
        (_pictures()[:0], "no picture"),
        ([_pictures(), _pictures(side=16)], "one size"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(pictures: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Extractor("means", _Means(), side=16).extract(pictures)


def test_networks_that_return_something_else_are_refused() -> None:
    with pytest.raises(DataError, match=r"must return \(5, numbers of each\).*\(5, 3, 8, 8\)"):
        Extractor("pictures", nn.Identity(), side=8).extract(_pictures())
    with pytest.raises(DataError, match="low < high"):
        Extractor("means", _Means(), side=8, low=1, high=1)


def test_features_are_finite_and_a_matrix() -> None:
    values = np.zeros((4, 2))
    values[1, 1] = np.nan
    with pytest.raises(DataError, match="1 of 4 pictures"):
        _points(values)
    for shape in ((4,), (0, 2), (2, 2, 2)):
        with pytest.raises(DataError, match="shape"):
            _points(np.zeros(shape))


def test_sets_that_came_about_differently_are_refused() -> None:
    values = np.zeros((4, 2))
    for what in ("extractor", "resize", "range"):
        with pytest.raises(DataError, match=f"another {what}"):
            require_comparable(_points(values), _points(values), _points(values, **{what: "other"}))
    with pytest.raises(DataError, match="2 and of 3 numbers"):
        require_comparable(_points(values), _points(np.zeros((4, 3))))
    with pytest.raises(DataError, match="4 and of 3 pictures"):
        require_comparable(_points(values), _points(values[:3]), same_n=True)
    require_comparable(_points(values), _points(values[:3]))
