"""RT-1's TokenLearner and decoder-only transformer as published (Brohan et al. 2022, §5.1, and the code released with the paper).

Each frame gives K tokens of what it shows, followed by A empty slots, one a dimension of the action:

    frame 1: [k₁ … k₈ | a₁ … a₈]   frame 2: [k₁ … k₈ | a₁ … a₈]   …

A token sees what came before it; a slot sees what was shown and no slot. Dimension i is read one place before its slot, as in a language
model, and no dimension knows another: they are decoded in parallel.

Shapes: B batch, T frames, K tokens and A action dimensions a frame, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

_EPSILON = 1e-6
_BOTTLENECK = 64


class PaperTokenLearner(nn.Module):
    """Features (B, D, h, w) → tokens (B, K, D), each a weighted mean over places, and the logits of the weights (B, K, h·w).

    Ryoo et al. 2021, "TokenLearner", version 1.1: layer norm and a small MLP; 34,376 numbers for 512 channels and 8 tokens.
    """

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=_EPSILON)
        self.hidden, self.out = nn.Linear(channels, _BOTTLENECK), nn.Linear(_BOTTLENECK, tokens)

    def forward(self, features: Float[Tensor, "batch channels h w"]) -> tuple[Tensor, Tensor]:
        places_BPC = features.flatten(2).transpose(1, 2)
        hidden_BPH = nn.functional.gelu(self.hidden(self.norm(places_BPC)), approximate="tanh")
        logits_BKP = self.out(hidden_BPH).transpose(1, 2).float()
        return logits_BKP.softmax(-1).to(places_BPC.dtype) @ places_BPC, logits_BKP


class PaperBlock(nn.Module):
    """Attention of `heads` heads of `key_size` numbers, then one linear layer: the released block has no hidden layer and no activation
    there, and with it the published count of 19 M numbers comes out."""

    def __init__(self, width: int, heads: int, key_size: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPSILON), nn.LayerNorm(width, eps=_EPSILON)
        self.query_key_value = nn.Linear(width, 3 * heads * key_size)
        self.out = nn.Linear(heads * key_size, width)
        self.feed_forward = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor, mask_NN: Tensor) -> Tensor:
        parts = self.query_key_value(self.norm1(x_BND)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        scores = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).masked_fill(~mask_NN, -1e9)
        attended = self.dropout(scores.float().softmax(-1).to(value.dtype)) @ value
        x_BND = x_BND + self.out(attended.transpose(1, 2).flatten(2))
        return x_BND + self.dropout(self.feed_forward(self.norm2(x_BND)))


class PaperTransformer(nn.Module):
    """Tokens (B, T, K, D) → logits (B, T, A, bins) of every frame's action."""

    mask: Tensor

    def __init__(
        self,
        *,
        frames: int,
        tokens: int,
        action_size: int,
        num_bins: int = 256,
        width: int = 512,
        depth: int = 8,
        heads: int = 8,
        key_size: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.frames, self.tokens, self.action_size = frames, tokens, action_size
        places = frames * (tokens + action_size)
        self.token_in = nn.Linear(width, width)
        self.positions = nn.Parameter(torch.empty(places, width))
        nn.init.xavier_uniform_(self.positions)
        self.position_bias = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(PaperBlock(width, heads, key_size, dropout) for _ in range(depth))
        self.head = nn.Linear(width, num_bins)
        self.register_buffer("mask", slot_mask(frames, tokens, action_size), persistent=False)

    def forward(self, tokens_BTKD: Float[Tensor, "batch frames tokens width"]) -> Float[Tensor, "batch frames action bins"]:
        """
        Raises:
            DataError: more frames, or other tokens, than it was built for.
        """
        batch, frames, tokens, width = tokens_BTKD.shape
        if frames > self.frames or tokens != self.tokens:
            raise DataError(f"expected at most {self.frames} frames of {self.tokens} tokens, got {frames} of {tokens}")
        empty = tokens_BTKD.new_zeros(batch, frames, self.action_size, width)
        x_BND = self.token_in(torch.cat([tokens_BTKD, empty], dim=2).flatten(1, 2))
        places = x_BND.shape[1]
        x_BND = x_BND + (self.positions[:places] + self.position_bias).to(x_BND.dtype)
        for block in self.blocks:
            x_BND = block(x_BND, self.mask[:places, :places])
        read_BTAD = x_BND.unflatten(1, (frames, -1))[:, :, tokens - 1 : -1]
        logits: Tensor = self.head(read_BTAD).float()
        return logits


def slot_mask(frames: int, tokens: int, action_size: int) -> Bool[Tensor, "places places"]:
    """Who may look at whom, (looks, is seen): what came before and oneself, but no slot at a slot."""
    is_slot = (torch.arange(tokens + action_size) >= tokens).repeat(frames)
    before = torch.ones(len(is_slot), len(is_slot), dtype=torch.bool).tril()
    return before & ~(is_slot[:, None] & is_slot[None, :])
