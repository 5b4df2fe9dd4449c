"""A transformer block that reads word pieces in their order. Shapes: B batch, L word pieces, D width, H heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ornstein.networks.attention import MLP, Attention

if TYPE_CHECKING:
    from jaxtyping import Float


class TextBlock(nn.Module):
    """A pre-norm transformer block over the word pieces, their order in a bias of the scores (see `directional_bias`)."""

    def __init__(self, width: int, heads: int, reach: int) -> None:
        """
        Args:
            reach: the longest distance between two pieces.
        """
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = MLP(width)
        self.reach = reach
        self.relative_bias = nn.Parameter(directional_bias(heads, reach))

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        h_BLD = self.norm1(x_BLD)
        place_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
        bias_HLL = self.relative_bias[:, place_L[None] - place_L[:, None] + self.reach]
        x_BLD = x_BLD + self.attention(h_BLD, h_BLD, mask_BL[:, None, None], bias_HLL)
        return x_BLD + self.mlp(self.norm2(x_BLD))


def directional_bias(heads: int, reach: int) -> Float[Tensor, "heads distances"]:
    """Where each head of a text block looks at first, by signed distance −reach … reach; learnt from there (Raffel et al. 2020).

    Even heads look back and odd ones ahead (Shen et al. 2018), by turns at what is near or at all of it (the slopes of Press et
    al. 2022). So in "a rocket above a house" the rocket has "above" ahead of it and the house has it behind: one block tells them
    apart. Learnt position vectors did not: they stayed forty times smaller than the words (docs/lab-notes.md).
    """
    distance = torch.arange(-reach, reach + 1, dtype=torch.float32)
    rows = []
    for head in range(heads):
        ahead = distance if head % 2 else -distance
        slope = 1.0 if head % 4 < 2 else 0.1
        rows.append(torch.where(ahead >= 0, -slope * ahead, -6.0))
    return torch.stack(rows)
