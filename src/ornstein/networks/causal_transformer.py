"""A decoder-only transformer over frames: what belongs to a frame sees that frame and earlier ones.

Shapes: B batch, T frames, K tokens a frame, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ornstein.networks.attention import MLP, Attention

if TYPE_CHECKING:
    from jaxtyping import Float


class CausalBlock(nn.Module):
    """Pre-norm attention and MLP; without a mask, everything sees everything."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = MLP(width)

    def forward(self, x_BND: Tensor, mask_NN: Tensor | None = None) -> Tensor:
        h_BND = self.norm1(x_BND)
        x_BND = x_BND + self.attention(h_BND, h_BND, mask_NN)
        return x_BND + self.mlp(self.norm2(x_BND))


class CausalTransformer(nn.Module):
    """Tokens (B, T, K, D) → (B, T, D), one vector a frame that depends on that frame and earlier ones only."""

    def __init__(self, width: int, depth: int, heads: int, max_frames: int, tokens_per_frame: int) -> None:
        super().__init__()
        self.tokens_per_frame = tokens_per_frame
        self.frame_positions = nn.Parameter(torch.randn(max_frames, 1, width) * 0.02)
        self.token_positions = nn.Parameter(torch.randn(1, tokens_per_frame + 1, width) * 0.02)
        self.readout = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BTKD: Float[Tensor, "batch frames tokens width"]) -> Float[Tensor, "batch frames width"]:
        batch, frames, _, width = tokens_BTKD.shape
        readout = self.readout.expand(batch, frames, 1, width).to(tokens_BTKD.dtype)
        x_BTKD = torch.cat([tokens_BTKD, readout], dim=2) + self.frame_positions[:frames] + self.token_positions
        frame_of = torch.arange(frames, device=x_BTKD.device).repeat_interleave(self.tokens_per_frame + 1)
        mask_NN = frame_of[None, :] <= frame_of[:, None]
        x_BND = x_BTKD.flatten(1, 2)
        for block in self.blocks:
            x_BND = block(x_BND, mask_NN)
        return self.norm(x_BND).unflatten(1, (frames, self.tokens_per_frame + 1))[:, :, -1]
