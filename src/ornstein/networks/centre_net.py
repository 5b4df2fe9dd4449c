"""Objects as points: where the centre of each thing is in a picture, what it is called and how it is turned.

Zhou et al. 2019 ("Objects as Points"): every cell of a coarse map says whether a thing of each kind has its centre there, where in the cell,
and what it is; no boxes and no anchors.

Shapes: B batch, S side of the picture, G = S / 4 side of the map, K kinds of things, N names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.checks import require_at_least, require_multiples

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64, UInt8

STRIDE = 4
_NORM_GROUPS = 8
# A prior chance of one in a hundred, so that the many empty cells do not drown the few others at the start (Lin et al. 2017).
_RARE = -4.6
_FOCUS, _NEAR_POWER = 2.0, 4.0


@dataclass(frozen=True)
class CentreNetConfig:
    """Sizes. image_size: side of the picture in pixels. kinds, names: as above. channels: at a half and at a quarter of the resolution.
    blocks: residual blocks at a quarter: with six of two 3 × 3 convolutions each, a cell sees far beyond a whole thing. None is dilated:
    in bfloat16 torch 2.13's weight gradient of a dilated convolution on a CPU is now and then infinite.
    """

    image_size: int = 128
    kinds: int = 4
    names: int = 62
    channels: tuple[int, int] = (24, 56)
    blocks: int = 6

    def __post_init__(self) -> None:
        require_at_least(1, kinds=self.kinds, names=self.names, blocks=self.blocks)
        require_multiples(_NORM_GROUPS, "normalised in groups", {f"channels[{k}]": c for k, c in enumerate(self.channels)})
        require_multiples(STRIDE, "the map is so many times smaller", {"image_size": self.image_size})


class Centres(NamedTuple):
    """Of every cell. heat: logits (B, K, G, G). offset: of the centre within the cell, 0 … 1 (column, row), (B, 2, G, G).
    turn: (cos 4θ, sin 4θ) of a square thing's heading θ, (B, 2, G, G). names: logits (B, N, G, G).
    """

    heat: Tensor
    offset: Tensor
    turn: Tensor
    names: Tensor


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(_NORM_GROUPS, channels), nn.GroupNorm(_NORM_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(y)))


class CentreNet(nn.Module):
    """Pictures → `Centres`."""

    def __init__(self, config: CentreNetConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.channels
        self.stem = nn.Conv2d(3, fine, 5, stride=2, padding=2)
        self.fine = _Block(fine)
        self.shrink = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(*(_Block(coarse) for _ in range(config.blocks)))
        self.norm = nn.GroupNorm(_NORM_GROUPS, coarse)
        self.heads = nn.Conv2d(coarse, config.kinds + 4 + config.names, 1)
        nn.init.zeros_(self.heads.bias[config.kinds :])  # type: ignore[index]  # torch types a bias as one that may be None
        nn.init.constant_(self.heads.bias[: config.kinds], _RARE)  # type: ignore[index]

    def forward(self, pictures: UInt8[Tensor, "batch side side 3"]) -> Centres:
        """Of uint8 pictures with channels last."""
        x = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        h = self.coarse(self.shrink(functional.silu(self.fine(self.stem(x)))))
        said = self.heads(functional.silu(self.norm(h))).float()
        heat, offset, turn, names = said.split([self.config.kinds, 2, 2, self.config.names], dim=1)
        return Centres(heat, offset.sigmoid(), turn, names)


class CentreTargets(NamedTuple):
    """What is where in B pictures; M things at most in each.

    present: (B, M). kind, name: (B, M). place: (B, M, 2), (column, row) in −1 … 1. heading: (B, M) [rad].
    """

    present: Bool[Tensor, "batch things"]
    kind: Int64[Tensor, "batch things"]
    name: Int64[Tensor, "batch things"]
    place: Float[Tensor, "batch things 2"]
    heading: Float[Tensor, "batch things"]


def centre_loss(said: Centres, truth: CentreTargets) -> tuple[Tensor, dict[str, Tensor]]:
    """Penalty-reduced focal loss of the heat (Zhou et al. 2019, eq. 1), absolute error of offset and turn, cross-entropy of names.

    A thing whose centre is outside of the picture counts for nothing.
    """
    batch, _, grid, _ = said.heat.shape
    at = (truth.place + 1) / 2 * grid
    inside = truth.present & ((at >= 0) & (at < grid)).all(-1)
    cell = at.long().clamp(0, grid - 1)
    heat = _near(said.heat, at, truth.kind, inside)
    which = (
        torch.arange(batch, device=at.device)[:, None].expand_as(truth.kind)[inside],
        cell[..., 1][inside],
        cell[..., 0][inside],
    )
    centre = torch.zeros_like(said.heat, dtype=torch.bool)
    centre[which[0], truth.kind[inside], which[1], which[2]] = True
    log_p, log_not = functional.logsigmoid(said.heat), functional.logsigmoid(-said.heat)
    p = said.heat.sigmoid()
    focal = -torch.where(centre, (1 - p) ** _FOCUS * log_p, (1 - heat) ** _NEAR_POWER * p**_FOCUS * log_not).sum()
    found = max(int(inside.sum()), 1)
    offset = (said.offset[which[0], :, which[1], which[2]] - (at - cell)[inside]).abs().sum() / found
    heading = truth.heading[inside]
    turned = torch.stack([(4 * heading).cos(), (4 * heading).sin()], dim=1)
    turn = (said.turn[which[0], :, which[1], which[2]] - turned).abs().sum() / found
    logits = said.names[which[0], :, which[1], which[2]]
    names = functional.cross_entropy(logits, truth.name[inside], reduction="sum") / found
    with torch.no_grad():
        right = (logits.argmax(1) == truth.name[inside]).float().sum() / found
    parts = {"heat": focal / found, "offset": offset, "turn": turn, "names": names}
    return focal / found + offset + 0.3 * turn + names, {**{k: v.detach() for k, v in parts.items()}, "named_right": right}


def _near(heat: Tensor, at: Tensor, kind: Tensor, inside: Tensor) -> Tensor:
    """How near each cell is to the nearest centre of a kind: a Gaussian of one cell's width, (B, K, G, G)."""
    grid = heat.shape[-1]
    axis = torch.arange(grid, device=heat.device) + 0.5
    squared = (axis[None, None, :, None] - at[..., 1, None, None]) ** 2 + (
        axis[None, None, None, :] - at[..., 0, None, None]
    ) ** 2
    bumps = torch.exp(-0.5 * squared) * inside[..., None, None]
    nearest = torch.zeros_like(heat)
    for k in range(heat.shape[1]):
        of_kind = bumps * (kind == k)[..., None, None]
        nearest[:, k] = of_kind.amax(1)
    return nearest
