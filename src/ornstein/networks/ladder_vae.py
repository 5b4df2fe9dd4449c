r"""A hierarchical variational autoencoder for small pictures.

Sønderby et al. 2016 (ladder VAE), Child 2021 ("Very Deep VAEs"): latents in several groups, from coarse to fine. A path up reads
the picture; the path down makes it, and at every block

    prior      p(z_k | z_<k) = N(μ, σ²)                     from what was made so far,
    posterior  q(z_k | z_<k, x) = N(μ + σ·Δμ, (σ·Δσ)²)     from that and what the path up saw (Vahdat & Kautz 2020: relative to the prior).

The picture's numbers k = 0 … 255 have probabilities under a logistic with mean and scale a pixel and channel, cut into bins at
half levels (Salimans et al. 2017). What the model gives is a lower bound of log p(x), never log p(x) itself:

    log p(x) ≥ E_q[ log p(x | z) ] − Σ_k KL(q(z_k | z_<k, x) ‖ p(z_k | z_<k)).

No layer normalises: the mean of a map carries the ground's colour, which a group norm would take out (6.8 bits a dimension without
against 7.2 with, after 200 steps on icons).

Shapes: B batch, C channels, H = W sides of a map, Z channels of a latent group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.checks import require_at_least, require_multiples
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

_PATCH = 2
_LEVELS = 256
_WIDEST = 4.0


@dataclass(frozen=True)
class LadderVAEConfig:
    """Sizes of the ladder.

    resolution: side of the picture in pixels. channels: of the maps from S/2 × S/2 down, half as large each.
    blocks: latent groups at each of these maps, and residual blocks on the way up. latent_channels: of a group.
    """

    resolution: int = 32
    channels: tuple[int, ...] = (40, 80, 80)
    blocks: tuple[int, ...] = (2, 2, 2)
    latent_channels: int = 8

    def __post_init__(self) -> None:
        require_at_least(1, latent_channels=self.latent_channels, levels=len(self.channels))
        require_at_least(1, **{f"channels[{k}]": number for k, number in enumerate(self.channels)})
        require_at_least(1, **{f"blocks[{k}]": number for k, number in enumerate(self.blocks)})
        require_multiples(_PATCH * 2 ** (len(self.channels) - 1), "halved map by map", {"resolution": self.resolution})
        if len(self.blocks) != len(self.channels):
            raise DataError(f"{len(self.channels)} maps need as many numbers of blocks, got {self.blocks}")


class Normal(NamedTuple):
    """A diagonal normal distribution by its mean and the logarithm of its deviation."""

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * ((x - self.mean) / self.log_std.exp()) ** 2 - self.log_std - 0.5 * math.log(2 * math.pi)


def kl_divergence(q: Normal, p: Normal) -> Tensor:
    """KL(q ‖ p) of each dimension, in nats."""
    ratio = ((q.log_std - p.log_std) * 2).exp()
    return 0.5 * (ratio + ((q.mean - p.mean) / p.log_std.exp()) ** 2 - 1) - (q.log_std - p.log_std)


class PlainBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution zero at the start: the identity."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, kernel)
        self.conv2 = _conv(channels, channels, kernel)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.silu(self.conv1(functional.silu(x))))


class TopDownBlock(nn.Module):
    """One latent group: h → h with z folded in."""

    def __init__(self, channels: int, latent_channels: int, kernel: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.prior = nn.Sequential(nn.SiLU(), _conv(channels, 2 * latent_channels + channels, kernel))
        self.posterior = nn.Sequential(
            _conv(2 * channels, channels, kernel), nn.SiLU(), _conv(channels, 2 * latent_channels, kernel)
        )
        for last in (self.prior[-1], self.posterior[-1]):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]  # prior N(0, 1) and posterior the prior, at the start
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.latent_in = nn.Conv2d(latent_channels, channels, 1)
        self.block = PlainBlock(channels, kernel)

    def laws(self, h: Tensor, seen: Tensor | None) -> tuple[Normal, Normal, Tensor]:
        """Prior, posterior (the prior itself where nothing was seen), and what the prior adds to h."""
        mean, log_std, change = self.prior(h).float().split([self.latent_channels, self.latent_channels, h.shape[1]], dim=1)
        prior = Normal(mean, _bounded(log_std))
        if seen is None:
            return prior, prior, change
        shift, log_ratio = self.posterior(torch.cat([h, seen], dim=1)).float().chunk(2, dim=1)
        return prior, Normal(prior.mean + prior.log_std.exp() * shift, prior.log_std + _bounded(log_ratio)), change

    def forward(self, h: Tensor, z: Tensor, change: Tensor) -> Tensor:
        return self.block(h + change + self.latent_in(z))


def _conv(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)


def _bounded(log_std: Tensor) -> Tensor:
    """Within ±`_WIDEST`, smoothly: the exponent of a number that is free would overflow once in a long training."""
    return _WIDEST * torch.tanh(log_std / _WIDEST)


class LadderVAE(nn.Module):
    """Pictures (B, 3, S, S) in [−1, 1] ↔ latent groups."""

    def __init__(self, config: LadderVAEConfig) -> None:
        super().__init__()
        self.config = config
        pixels = 3 * _PATCH**2
        self.first = nn.Conv2d(pixels, config.channels[0], 3, padding=1)
        self.up, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.down, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(config.channels):
            kernel = 3 if config.resolution // _PATCH // 2**level > 1 else 1  # a single place has no neighbours
            before = config.channels[max(level - 1, 0)]
            self.shrink.append(nn.Conv2d(before, channels, 3, stride=2, padding=1) if level else nn.Identity())
            self.up.append(nn.Sequential(*(PlainBlock(channels, kernel) for _ in range(config.blocks[level]))))
            self.down.append(
                nn.ModuleList(TopDownBlock(channels, config.latent_channels, kernel) for _ in range(config.blocks[level]))
            )
            self.grow.append(nn.Conv2d(channels, before, 3, padding=1) if level else nn.Identity())
        side = config.resolution // _PATCH // 2 ** (len(config.channels) - 1)
        self.start = nn.Parameter(torch.randn(config.channels[-1], side, side) * 0.1)
        self.out = nn.Conv2d(config.channels[0], 2 * pixels, 3, padding=1)

    def look(self, pictures: Float[Tensor, "batch 3 side side"]) -> list[Tensor]:
        """The maps of the path up, the largest first."""
        side = self.config.resolution
        if pictures.shape[1:] != (3, side, side):
            raise DataError(f"this VAE takes pictures (batch, 3, {side}, {side}), got {tuple(pictures.shape)}")
        h, maps = self.first(functional.pixel_unshuffle(pictures, _PATCH)), []
        for shrink, blocks in zip(self.shrink, self.up, strict=True):
            h = blocks(shrink(h))
            maps.append(h)
        return maps

    def descend(
        self, batch: int, maps: list[Tensor] | None, noise: Callable[[int, tuple[int, ...]], Tensor]
    ) -> tuple[Normal, list[tuple[Normal, Normal, Tensor]]]:
        """The path down.

        Args:
            maps: what `look` saw; None draws from the prior. noise: (number of the group, its shape without the batch) → standard normal.

        Returns:
            The logistic's mean and log-scale as a `Normal` of shape (B, 3, S, S), and (prior, posterior, z) of each group.
        """
        h = self.start.expand(batch, *self.start.shape)
        groups: list[tuple[Normal, Normal, Tensor]] = []
        for level in reversed(range(len(self.down))):
            blocks = self.down[level]
            assert isinstance(blocks, nn.ModuleList)  # torch types a list within a list as any module
            for block in blocks:
                assert isinstance(block, TopDownBlock)
                prior, posterior, change = block.laws(h, None if maps is None else maps[level])
                z = posterior.sample(noise(len(groups), tuple(posterior.mean.shape[1:])))
                groups.append((prior, posterior, z))
                h = block(h, z, change)
            if level:
                h = self.grow[level](functional.interpolate(h, scale_factor=2.0, mode="nearest"))
        mean, log_scale = self.out(functional.silu(h)).float().chunk(2, dim=1)
        shuffled = (functional.pixel_shuffle(part, _PATCH) for part in (mean, log_scale - 2.0))
        return Normal(*shuffled), groups


def discretised_logistic_log_prob(pictures: Tensor, law: Normal) -> Tensor:
    """log P of 8-bit numbers scaled to [−1, 1], each; `law` holds a logistic's mean and log-scale. In nats.

    With a < b the bin's bounds in units of the scale, σ(b) − σ(a) = σ(b) σ(−a) (1 − e^{a−b}): no digit is lost in either tail.
    """
    half = 1 / (_LEVELS - 1)
    scale = law.log_std.clamp(min=-7.0).exp()
    upper, lower = (pictures + half - law.mean) / scale, (pictures - half - law.mean) / scale
    inside = functional.logsigmoid(upper) + functional.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
    # The outermost bins reach to infinity.
    inside = torch.where(pictures < -1 + half, functional.logsigmoid(upper), inside)
    return torch.where(pictures > 1 - half, functional.logsigmoid(-lower), inside)
