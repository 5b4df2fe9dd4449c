from __future__ import annotations

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig


@pytest.fixture(scope="module")
def network() -> Autoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Autoencoder(AutoencoderConfig(quarter_channels=16, eighth_channels=16, encoder_blocks=1, decoder_blocks=1))


def test_forty_eight_times_fewer_numbers(network: Autoencoder) -> None:
    pixels = torch.zeros(2, 3, 128, 128)
    latents = network.encode(pixels)
    assert latents.shape == (2, 4, 16, 16)
    assert pixels.numel() == 48 * latents.numel()
    assert network.decode(latents).shape == pixels.shape


def test_standardisation_cancels_between_encode_and_decode(network: Autoencoder) -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    with torch.no_grad():
        plain = network.decoder(network.encode_raw(pixels))
        network.latent_mean.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
        network.latent_std.copy_(torch.tensor([0.1, 2.0, 7.0, 1.0]))
        torch.testing.assert_close(network.decode(network.encode(pixels)), plain, rtol=1e-4, atol=1e-5)


def test_latents_keep_their_place(network: Autoencoder) -> None:
    """Fully convolutional: a picture shifted by eight pixels has a latent shifted by one cell, away from the borders."""
    generator = torch.Generator().manual_seed(2)
    wide = torch.rand(1, 3, 128, 192, generator=generator)
    with torch.no_grad():  # without the norms, which look at the whole picture
        for module in network.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.weight.zero_()
        a, b = network.encode_raw(wide[..., :128]), network.encode_raw(wide[..., 8:136])
    torch.testing.assert_close(a[..., 5:11], b[..., 4:10], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 127, 128), (1, 4, 128, 128), (3, 128, 128)])
def test_wrong_shapes_are_refused(network: Autoencoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="divisible by 8"):
        network.encode(torch.zeros(shape))
