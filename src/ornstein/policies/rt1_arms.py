"""What decides in a small RT-1: from the tokens that were seen, the sentence that was read and the arm's state to the vector that a head reads.

Shapes: B batch, T frames, K tokens a frame, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ornstein.networks.attention import MLP
from ornstein.networks.causal_transformer import CausalTransformer
from ornstein.networks.waves import waves, waves_of

if TYPE_CHECKING:
    from jaxtyping import Float

_PLACE_OCTAVES = 4
STATE_OCTAVES = 3
#: To how many numbers an MLP arm squeezes a token's features, and a sentence.
_FEATURES, _WORDS = 8, 24


class TransformerArm(nn.Module):
    """As in the paper: a causal transformer over the tokens of the last few frames; the arm's state and the sentence are tokens too, where it has
    them."""

    def __init__(
        self, channels: int, tokens: int, words: int, state: int, width: int, depth: int, heads: int, history: int
    ) -> None:
        """
        Args:
            channels: of a token, without its place. tokens: a frame. words, state: numbers that a sentence and an arm's state have; 0 reads none.
            history: frames, at most.
        """
        super().__init__()
        self.token_in = nn.Linear(channels + waves_of(2, _PLACE_OCTAVES), width)
        self.state_in = nn.Linear(waves_of(state, STATE_OCTAVES), width) if state else None
        self.language_in = nn.Linear(words, width) if words else None
        self.transformer = CausalTransformer(width, depth, heads, history, tokens + (state > 0) + (words > 0))

    def forward(
        self,
        tokens_BTKC: Float[Tensor, "batch frames tokens channels"],
        words: Float[Tensor, "batch language"],
        state: Float[Tensor, "batch frames state"],
    ) -> Float[Tensor, "batch frames width"]:
        """
        Args:
            tokens_BTKC: each ends with its place, in −1 … 1. state: standardised; no numbers where none are read.
        """
        features, places = tokens_BTKC[..., :-2], tokens_BTKC[..., -2:]
        parts = [self.token_in(torch.cat([features, waves(places, _PLACE_OCTAVES)], dim=-1))]
        if self.state_in is not None:
            parts.append(self.state_in(state_waves(state))[:, :, None])
        if self.language_in is not None:
            parts.append(self.language_in(words)[:, None, None].expand(-1, tokens_BTKC.shape[1], -1, -1))
        read_BTD: Tensor = self.transformer(torch.cat([part.to(parts[0].dtype) for part in parts], dim=2))
        return read_BTD


class MLPArm(nn.Module):
    """One MLP with residual layers over all that one frame says at once.

    With few tokens a frame and no history it learns faster than a transformer, which has to bring places together by attention first. It also learns
    scenes by heart, from the many numbers that features and sentences have: so a few are made of them first, and layers are left out in training
    (docs/lab-notes.md).
    """

    def __init__(self, channels: int, tokens: int, words: int, state: int, width: int, depth: int, dropout: float) -> None:
        """As `TransformerArm`. depth: residual layers. dropout: share of what a layer adds that is left out in training."""
        super().__init__()
        self.features = nn.ModuleList(nn.Linear(channels, _FEATURES) for _ in range(tokens))
        self.words = nn.Linear(words, _WORDS) if words else None
        size = tokens * (_FEATURES + waves_of(2, _PLACE_OCTAVES)) + waves_of(state, STATE_OCTAVES) + _WORDS * (words > 0)
        self.enter = nn.Linear(size, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth + 1))
        self.layers = nn.ModuleList(nn.Sequential(MLP(width), nn.Dropout(dropout)) for _ in range(depth))

    def forward(
        self,
        tokens_BTKC: Float[Tensor, "batch frames tokens channels"],
        words: Float[Tensor, "batch language"],
        state: Float[Tensor, "batch frames state"],
    ) -> Float[Tensor, "batch frames width"]:
        """See `TransformerArm.forward`; no frame sees another."""
        parts = [few(tokens_BTKC[:, :, k, :-2]) for k, few in enumerate(self.features)]
        parts += [waves(tokens_BTKC[..., -2:], _PLACE_OCTAVES).flatten(2), state_waves(state)]
        if self.words is not None:
            parts.append(self.words(words)[:, None].expand(-1, tokens_BTKC.shape[1], -1))
        x_BTD: Tensor = self.enter(torch.cat([part.to(parts[0].dtype) for part in parts], dim=-1))
        *norms, last = self.norms
        for norm, layer in zip(norms, self.layers, strict=True):
            x_BTD = x_BTD + layer(norm(x_BTD))
        read_BTD: Tensor = last(x_BTD)
        return read_BTD


def state_waves(standard: Float[Tensor, "... state"]) -> Float[Tensor, "... more"]:
    """Of an arm's standardised state. Three standard deviations are the unit, so that the slowest wave does not fold."""
    return waves(standard / 3, STATE_OCTAVES)
