from __future__ import annotations

import numpy as np
import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.images import autoencoder_loss, psnr, to_pixels, to_tensor
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig


def test_every_byte_survives_the_round_trip() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    tensor = to_tensor(pixels)
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert np.array_equal(to_pixels(tensor), pixels)
    assert np.array_equal(to_pixels(torch.full((1, 3, 1, 1), 7.0)), np.full((1, 1, 1, 3), 255))


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        to_tensor(np.zeros((1, 8, 8, 3), np.float32))


def test_psnr_of_a_known_error() -> None:
    a = np.full((2, 4, 4, 3), 100, np.uint8)
    b = a.copy()
    b[0] += 10
    np.testing.assert_allclose(psnr(a, b), [20 * np.log10(255 / 10), 100.0])


class _Identity(Autoencoder):
    """Stores the picture itself as its latent, eight times larger: the loss of a perfect reconstruction."""

    def __init__(self) -> None:
        super().__init__(AutoencoderConfig(quarter_channels=8, eighth_channels=8))
        self.encoder = torch.nn.Sequential()
        self.decoder = torch.nn.Sequential()
        self.latent_mean = torch.zeros(3)
        self.latent_std = torch.ones(3)


def test_loss_of_a_perfect_reconstruction_is_the_prior_alone() -> None:
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    generator = torch.Generator().manual_seed(1)
    loss, log = autoencoder_loss(
        _Identity(), pixels, generator, latent_noise=0.0, prior_weight=0.5, edge_weight=1.0, equivariance_weight=1.0
    )
    torch.testing.assert_close(loss, 0.5 * pixels.square().mean())
    assert log["psnr"] > 100


def test_bottleneck_noise_has_the_stated_size() -> None:
    pixels = torch.zeros(8, 3, 32, 32)
    _, log = autoencoder_loss(
        _Identity(), pixels, torch.Generator().manual_seed(2), latent_noise=0.3, prior_weight=0.0, edge_weight=0.0,
        equivariance_weight=0.0,
    )  # fmt: skip
    # Mean absolute value of N(0, σ²) is σ √(2/π).
    assert abs(log["absolute"].item() - 0.3 * (2 / np.pi) ** 0.5) < 0.005


def test_latent_statistics_follow_the_data() -> None:
    model = _Identity()
    generator = torch.Generator().manual_seed(3)
    for _ in range(600):
        pixels = torch.randn(16, 3, 8, 8, generator=generator) * torch.tensor([0.5, 1.0, 2.0]).view(1, 3, 1, 1) + 1.5
        autoencoder_loss(model, pixels, generator, latent_noise=0.0, prior_weight=0.0, edge_weight=0.0, equivariance_weight=0.0)
    torch.testing.assert_close(model.latent_mean, torch.full((3,), 1.5), atol=0.05, rtol=0.05)
    torch.testing.assert_close(model.latent_std, torch.tensor([0.5, 1.0, 2.0]), atol=0.05, rtol=0.05)


def test_every_term_of_the_loss_is_what_it_says() -> None:
    """A decoder that always answers with the same ramp, against a flat picture: each term by hand."""

    class Ramp(torch.nn.Module):
        latent_mean, latent_std = torch.zeros(4), torch.ones(4)

        def encode_raw(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.full((len(pixels), 4, 2, 2), 0.5) + 0 * pixels.mean()

        def decoder(self, z: torch.Tensor) -> torch.Tensor:
            side = 8 * z.shape[-1]
            return (torch.arange(side) / side).expand(len(z), 3, side, side) + 0 * z.mean()

    weights = {"latent_noise": 0.0, "prior_weight": 0.0, "edge_weight": 0.0, "equivariance_weight": 0.0}
    pixels = torch.zeros(2, 3, 16, 16)

    def loss(**changes: float) -> float:
        model, rng = Ramp(), torch.Generator().manual_seed(0)
        return float(autoencoder_loss(model, pixels, rng, **{**weights, **changes})[0])  # type: ignore[arg-type]

    absolute = np.mean(np.arange(16) / 16)
    assert loss() == pytest.approx(absolute)
    assert loss(edge_weight=1.0) == pytest.approx(absolute + 1 / 16)  # across columns 1/16, across rows nothing
    assert loss(equivariance_weight=1.0) == pytest.approx(absolute + np.mean(np.arange(8) / 8))
    assert loss(prior_weight=1.0) == pytest.approx(absolute + 0.25)
