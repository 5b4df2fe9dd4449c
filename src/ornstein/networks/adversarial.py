"""Two generators with their discriminators, for small pictures: a modern pair and the classical one.

`R3GAN` follows Huang et al. 2024 ("The GAN is dead; long live the GAN!"): residual networks without any normalisation, leaky
ReLU, bilinear resampling, Fix-up initialisation (Zhang et al. 2019: the last layer of every block starts at zero, the first
is scaled by the number of blocks), and a generator that starts from a learned 4×4 basis scaled by the latent. Our blocks hold two
3×3 convolutions where the paper has a grouped bottleneck, and both networks work on patches of 2×2 pixels, as the U-Net does.

`DCGAN` follows Radford et al. 2016: strided 4×4 (transposed) convolutions, batch normalisation, tanh, weights from N(0, 0.02²).

Both map z ~ N(0, I) of shape (B, latent_size) to pictures (B, 3, S, S) in about [−1, 1]; the discriminators map pictures to (B,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.checks import require_at_least
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float

_SLOPE = 0.2
_PATCH = 2


@dataclass(frozen=True)
class R3GANConfig:
    """Side of the picture in pixels, of the latent, blocks a level, and the channels of the levels from 4×4 up to S/2 × S/2."""

    resolution: int = 32
    latent_size: int = 64
    blocks: int = 2
    channels: tuple[int, ...] = (136, 80, 40)

    def __post_init__(self) -> None:
        require_at_least(1, latent_size=self.latent_size, blocks=self.blocks, **_named(self.channels))
        _require_levels(self.resolution, len(self.channels), 4 * _PATCH)


@dataclass(frozen=True)
class DCGANConfig:
    """Side of the picture in pixels, of the latent, and the channels of the levels from 4×4 up to S/2 × S/2."""

    resolution: int = 32
    latent_size: int = 64
    channels: tuple[int, ...] = (288, 144, 72)

    def __post_init__(self) -> None:
        require_at_least(1, latent_size=self.latent_size, **_named(self.channels))
        _require_levels(self.resolution, len(self.channels), 8)


def _named(channels: tuple[int, ...]) -> dict[str, int]:
    return {f"channels[{k}]": number for k, number in enumerate(channels)}


def _require_levels(resolution: int, levels: int, first: int) -> None:
    if levels < 1 or resolution != first * 2 ** (levels - 1):
        raise DataError(f"{levels} levels of channels give pictures of {first * 2 ** max(levels - 1, 0)} px, not {resolution}")


class AdversarialPair(nn.Module):
    """A `generator` and the `discriminator` that it is trained against."""

    def __init__(self, config: R3GANConfig | DCGANConfig) -> None:
        super().__init__()
        self.config = config
        if isinstance(config, R3GANConfig):
            self.generator: nn.Module = ResidualGenerator(config)
            self.discriminator: nn.Module = ResidualDiscriminator(config)
        else:
            self.generator, self.discriminator = _dcgan_generator(config), _dcgan_discriminator(config)

    def draw(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch 3 side side"]:
        """Pictures, not clipped.

        Raises:
            DataError: z has another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.config.latent_size:
            raise DataError(f"this generator takes latents (batch, {self.config.latent_size}), got {tuple(z.shape)}")
        return self.generator(z)

    def judge(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, " batch"]:
        """Logits: how real the discriminator takes each picture to be.

        Raises:
            DataError: the pictures have another size.
        """
        side = self.config.resolution
        if pictures.shape[1:] != (3, side, side):
            raise DataError(f"this discriminator takes pictures (batch, 3, {side}, {side}), got {tuple(pictures.shape)}")
        return self.discriminator(pictures)


class FixupBlock(nn.Module):
    """x + conv(leaky(conv(x))); the second convolution is zero at the start, the first scaled to 1/√(number of blocks)."""

    def __init__(self, channels: int, of_blocks: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, 3, gain=of_blocks**-0.5)
        self.conv2 = _conv(channels, channels, 3, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.leaky_relu(self.conv1(x), _SLOPE))


class ResidualGenerator(nn.Module):
    """z → a learned 4×4 basis, scaled → levels of blocks, twice as large each → patches → pixels."""

    def __init__(self, config: R3GANConfig) -> None:
        super().__init__()
        first, total = config.channels[0], config.blocks * len(config.channels)
        self.basis = nn.Parameter(torch.randn(first, 4, 4))
        self.scale = nn.Linear(config.latent_size, first, bias=False)
        nn.init.normal_(self.scale.weight, std=config.latent_size**-0.5)
        self.levels, self.change = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(config.channels):
            before = config.channels[max(level - 1, 0)]
            self.change.append(_conv(before, channels, 1) if before != channels else nn.Identity())
            self.levels.append(nn.Sequential(*(FixupBlock(channels, total) for _ in range(config.blocks))))
        self.out = _conv(config.channels[-1], 3 * _PATCH**2, 3)

    def forward(self, z: Tensor) -> Tensor:
        h = self.basis * self.scale(z)[:, :, None, None]
        for level, (change, blocks) in enumerate(zip(self.change, self.levels, strict=True)):
            if level:
                h = change(functional.interpolate(h, scale_factor=2.0, mode="bilinear", align_corners=False))
            h = blocks(h)
        return functional.pixel_shuffle(self.out(h), _PATCH)


class ResidualDiscriminator(nn.Module):
    """Pixels → patches → levels of blocks, half as large each → a learned 4×4 basis → one logit."""

    def __init__(self, config: R3GANConfig) -> None:
        super().__init__()
        channels = config.channels[::-1]
        total = config.blocks * len(channels)
        self.first = _conv(3 * _PATCH**2, channels[0], 3)
        self.levels, self.change = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(channels):
            before = channels[max(level - 1, 0)]
            self.change.append(_conv(before, width, 1) if before != width else nn.Identity())
            self.levels.append(nn.Sequential(*(FixupBlock(width, total) for _ in range(config.blocks))))
        self.basis = nn.Conv2d(channels[-1], channels[-1], 4, groups=channels[-1], bias=False)
        nn.init.normal_(self.basis.weight, std=0.25)
        self.logit = nn.Linear(channels[-1], 1, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        h = self.first(functional.pixel_unshuffle(pictures, _PATCH))
        for level, (change, blocks) in enumerate(zip(self.change, self.levels, strict=True)):
            if level:
                h = change(functional.avg_pool2d(h, 2))
            h = blocks(h)
        return self.logit(self.basis(h).flatten(1)).squeeze(1)


def _conv(before: int, after: int, size: int, gain: float = 1.0) -> nn.Conv2d:
    """He's initialisation for leaky ReLU, times `gain`; biases start at zero."""
    conv = nn.Conv2d(before, after, size, padding=size // 2)
    nn.init.normal_(conv.weight, std=gain * math.sqrt(2 / (1 + _SLOPE**2) / (before * size**2)))
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _dcgan_generator(config: DCGANConfig) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Unflatten(1, (config.latent_size, 1, 1)),
        nn.ConvTranspose2d(config.latent_size, config.channels[0], 4, bias=False),
    ]
    for before, after in zip(config.channels, config.channels[1:], strict=False):
        layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
    last = config.channels[-1]
    layers += [nn.BatchNorm2d(last), nn.ReLU(), nn.ConvTranspose2d(last, 3, 4, 2, 1), nn.Tanh()]
    return _small_normal(nn.Sequential(*layers))


def _dcgan_discriminator(config: DCGANConfig) -> nn.Module:
    channels = config.channels[::-1]
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, 2, 1), nn.LeakyReLU(_SLOPE)]
    for before, after in zip(channels, channels[1:], strict=False):
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(_SLOPE)]
    layers += [nn.Conv2d(channels[-1], 1, 4), nn.Flatten(0)]
    return _small_normal(nn.Sequential(*layers))


def _small_normal(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return network
