"""A U-Net over pixels: what diffusion models of pictures began with, and the pixel model that latents are compared with.

Ho et al. 2020 (DDPM) give the shape, Dhariwal & Nichol 2021 ("Diffusion Models Beat GANs", ADM) the blocks: residual, told
the time by a scale and shift after the second normalisation, with self-attention where the map is small, and strided
convolutions between the levels. Pixels are gathered in patches first (pixel-unshuffle), which keeps it cheap on a CPU:
at 32 px with patches of 2 the levels lie at 16, 8 and 4.

Shapes: B batch, C channels, H = W sides of a map, E time embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.checks import require_at_least, require_multiples
from ornstein.core.errors import DataError
from ornstein.networks.attention import Attention
from ornstein.networks.autoencoder import NORM_GROUPS
from ornstein.networks.dit import time_embedding

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

_WAVES = 64


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net.

    resolution: side of the picture in pixels. patch_size: pixels along a patch's side.
    channels: at the first level. multipliers: of them, a level each; every level after the first is half as large.
    blocks: residual blocks a level on the way down (one more on the way up). heads: of the attention at the last level and between;
    0 for none.
    """

    resolution: int = 32
    patch_size: int = 2
    channels: int = 40
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        require_at_least(1, patch_size=self.patch_size, blocks=self.blocks, levels=len(self.multipliers))
        require_at_least(0, heads=self.heads)
        # The smallest map has more than one cell: normalising a single number leaves nothing of it.
        factor = self.patch_size * 2 ** len(self.multipliers)
        require_multiples(factor, "patches, halved from level to level", {"resolution": self.resolution})
        widths = {f"channels × multipliers[{k}]": self.channels * m for k, m in enumerate(self.multipliers)}
        require_multiples(NORM_GROUPS, "normalised in groups", widths)


class TimedBlock(nn.Module):
    """x + conv(silu((1 + scale) · norm(conv(silu(norm(x)))) + shift)), (scale, shift) from the time; the identity at the start."""

    def __init__(self, before: int, after: int, time_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(NORM_GROUPS, before), nn.GroupNorm(NORM_GROUPS, after)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.time = nn.Linear(time_width, 2 * after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        h = self.norm2(self.conv1(functional.silu(self.norm1(x_BCHW))))
        scale, shift = self.time(time_BE)[:, :, None, None].chunk(2, dim=1)
        return self.skip(x_BCHW) + self.conv2(functional.silu(h * (1 + scale) + shift))


class MapAttention(nn.Module):
    """Self-attention over the cells of a map, added to it; nothing at the start."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels)
        self.attention = Attention(channels, heads)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        cells = self.norm(x_BCHW).flatten(2).transpose(1, 2)
        return x_BCHW + self.attention(cells, cells).transpose(1, 2).unflatten(2, x_BCHW.shape[2:])


class UNet(nn.Module):
    """`(x_t, t, condition)` → a prediction of x_t's shape, zero at the start; the condition must be None: the model has none."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * m for m in config.multipliers]
        time_width = 4 * config.channels
        self.time_in = nn.Sequential(nn.Linear(_WAVES, time_width), nn.SiLU(), nn.Linear(time_width, time_width), nn.SiLU())
        pixels = 3 * config.patch_size**2
        self.patches = nn.PixelUnshuffle(config.patch_size)
        self.first = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        last = len(widths) - 1
        for level, width in enumerate(widths):
            before = widths[max(level - 1, 0)]
            # One join a level, not one a block: the skipped map is added where the way up reaches its size.
            self.shrink.append(nn.Conv2d(before, width, 3, stride=2, padding=1) if level else nn.Identity())
            self.down.append(nn.ModuleList(TimedBlock(width, width, time_width) for _ in range(config.blocks)))
            joined = width if level == last else 2 * width
            self.up.append(
                nn.ModuleList(TimedBlock(joined if k == 0 else width, width, time_width) for k in range(config.blocks + 1))
            )
            self.grow.append(nn.Conv2d(width, before, 3, padding=1) if level else nn.Identity())
        self.middle = MapAttention(widths[-1], config.heads) if config.heads else nn.Identity()
        self.norm_out = nn.GroupNorm(NORM_GROUPS, widths[0])
        self.out = nn.Conv2d(widths[0], pixels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(
        self, x_t: Float[Tensor, "batch 3 side side"], t: Shaped[Tensor, " batch"], condition: Any = None
    ) -> Float[Tensor, "batch 3 side side"]:
        side = self.config.resolution
        if x_t.shape[1:] != (3, side, side) or t.shape != (len(x_t),):
            raise DataError(
                f"this U-Net takes pictures (batch, 3, {side}, {side}) and one time step each, got {tuple(x_t.shape)} and {tuple(t.shape)}"
            )
        told_BE = self._told(t, condition, x_t.dtype)
        h = self.first(self.patches(x_t))
        skipped = []
        for shrink, blocks in zip(self.shrink, self.down, strict=True):
            h = self._through(blocks, shrink(h), told_BE)
            skipped.append(h)
        h = self.middle(skipped.pop())
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                h = torch.cat([h, skipped.pop()], dim=1)
            h = self._through(self.up[level], h, told_BE)
            if level:
                h = self.grow[level](functional.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.out(functional.silu(self.norm_out(h)))
        return functional.pixel_shuffle(h, self.config.patch_size)

    def _told(self, t: Tensor, condition: Any, dtype: torch.dtype) -> Tensor:
        """What every block is told, (B, E): the time."""
        if condition is not None:
            raise DataError("this U-Net has no condition: pass None")
        told_BE: Tensor = self.time_in(time_embedding(t, _WAVES).to(dtype))
        return told_BE

    @staticmethod
    def _through(blocks: nn.Module, h: Tensor, told_BE: Tensor) -> Tensor:
        assert isinstance(blocks, nn.ModuleList)  # torch types a list within a list as any module
        for block in blocks:
            h = block(h, told_BE)
        return h
