"""A convolutional autoencoder, 8 times smaller along each side: the first stage of latent diffusion.

Rombach et al. 2022 ("High-Resolution Image Synthesis with Latent Diffusion Models") train a KL-regularised autoencoder and
then diffuse in its latent space. Ours starts convolving at a quarter of the resolution (pixel-unshuffle), which keeps it
cheap on a CPU: (B, 3, H, W) in [−1, 1] ↔ (B, 4, H/8, W/8), 48 times fewer numbers.

The bottleneck is a variational one with a *fixed* posterior standard deviation σ: training decodes z + σ·ε and penalises
|z|², which is the KL divergence to N(0, I) up to a constant. So the decoder tolerates errors of size σ in its input, the
size of a diffusion sampler's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.checks import require_at_least, require_multiples
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float

DOWNSAMPLING = 8
NORM_GROUPS = 8
_UNSHUFFLE = 4


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder: channels at a quarter and at an eighth of the resolution, residual blocks at each."""

    latent_channels: int = 4
    quarter_channels: int = 64
    eighth_channels: int = 160
    encoder_blocks: int = 2
    decoder_blocks: int = 3

    def __post_init__(self) -> None:
        channels = {"quarter_channels": self.quarter_channels, "eighth_channels": self.eighth_channels}
        require_multiples(NORM_GROUPS, "normalised in groups", channels)
        require_at_least(1, latent_channels=self.latent_channels)
        require_at_least(0, encoder_blocks=self.encoder_blocks, decoder_blocks=self.decoder_blocks)


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))), the second convolution zero at the start: the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm(x)))
        return x + self.conv2(functional.silu(h))


class Autoencoder(nn.Module):
    """Pictures ↔ latents. `latent_mean` and `latent_std` standardise each latent channel over the training pictures."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        quarter, eighth = config.quarter_channels, config.eighth_channels
        pixels = 3 * _UNSHUFFLE**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(_UNSHUFFLE),
            nn.Conv2d(pixels, quarter, 3, padding=1),
            *(ResidualBlock(quarter) for _ in range(config.encoder_blocks)),
            nn.Conv2d(quarter, eighth, 3, stride=2, padding=1),
            *(ResidualBlock(eighth) for _ in range(config.encoder_blocks)),
            nn.GroupNorm(NORM_GROUPS, eighth),
            nn.SiLU(),
            nn.Conv2d(eighth, config.latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent_channels, eighth, 3, padding=1),
            *(ResidualBlock(eighth) for _ in range(config.decoder_blocks)),
            nn.Conv2d(eighth, 4 * quarter, 1),
            nn.PixelShuffle(2),
            *(ResidualBlock(quarter) for _ in range(config.decoder_blocks)),
            nn.GroupNorm(NORM_GROUPS, quarter),
            nn.SiLU(),
            nn.Conv2d(quarter, pixels, 3, padding=1),
            nn.PixelShuffle(_UNSHUFFLE),
        )
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def encode_raw(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels h w"]:
        """Latents before standardisation, as the training objective sees them."""
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] % DOWNSAMPLING or pixels.shape[3] % DOWNSAMPLING:
            raise DataError(
                f"the autoencoder takes pictures (batch, 3, height, width) with sides divisible by {DOWNSAMPLING},"
                f" got {tuple(pixels.shape)}"
            )
        return self.encoder(pixels)

    def encode(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels h w"]:
        """Pictures in [−1, 1] → latents of mean 0 and standard deviation 1 per channel over the training pictures."""
        z = self.encode_raw(pixels)
        return (z - self.latent_mean.view(1, -1, 1, 1)) / self.latent_std.view(1, -1, 1, 1)

    def decode(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Standardised latents → pictures; values are not clipped to [−1, 1] here."""
        if latents.ndim != 4 or latents.shape[1] != self.config.latent_channels:
            raise DataError(f"the decoder takes latents (batch, {self.config.latent_channels}, h, w), got {tuple(latents.shape)}")
        return self.decoder(latents * self.latent_std.view(1, -1, 1, 1) + self.latent_mean.view(1, -1, 1, 1))
