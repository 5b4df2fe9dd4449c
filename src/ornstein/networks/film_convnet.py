"""A convolutional network whose features the instruction scales and shifts.

FiLM (Perez et al. 2018): h → (1 + γ) ⊙ h + β with γ, β from the language; at the start γ = β = 0, the identity, so that the
network begins as one without language (RT-1, Brohan et al. 2022, §5.1).

3×3 convolutions on a four-times unshuffled picture: the shape that a CPU runs fastest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float

DOWNSAMPLING = 8
NORM_GROUPS = 8
_UNSHUFFLE = 4
_QUERY_SIZE = 32


class FiLM(nn.Module):
    """(1 + γ) ⊙ h + β, channel by channel, γ and β linear in the sentence vector and zero at the start."""

    def __init__(self, sentence_size: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(sentence_size, 2 * channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, h: Float[Tensor, "batch channels height width"], sentence: Float[Tensor, "batch size"]) -> Tensor:
        gamma, beta = self.project(sentence)[..., None, None].chunk(2, dim=1)
        return (1 + gamma) * h + beta


class Unconditioned(nn.Module):
    """h, whatever is said."""

    def forward(self, h: Tensor, sentence: Tensor | None = None) -> Tensor:
        """h."""
        return h


class FiLMBlock(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x)))))))."""

    def __init__(self, channels: int, sentence_size: int) -> None:
        """
        Args:
            sentence_size: 0 leaves FiLM out.
        """
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(NORM_GROUPS, channels), nn.GroupNorm(NORM_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = FiLM(sentence_size, channels) if sentence_size else Unconditioned()

    def forward(self, x: Tensor, sentence: Tensor | None = None) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.film(self.norm2(h), sentence)
        return x + self.conv2(functional.silu(h))


class FiLMConvNet(nn.Module):
    """Pictures (B, 3, S, S) in [0, 1] and what was read of the sentences (B, language_width) → features (B, C, S/8, S/8)."""

    def __init__(self, channels: tuple[int, int], blocks: tuple[int, int], language_width: int) -> None:
        """
        Args:
            channels, blocks: at a quarter and at an eighth of the resolution. language_width: 0 for a network that sees alike whatever is said.
        """
        super().__init__()
        quarter, eighth = channels
        self.stem = nn.Conv2d(3 * _UNSHUFFLE**2, quarter, 3, padding=1)
        self.quarter_blocks = nn.ModuleList(FiLMBlock(quarter, language_width) for _ in range(blocks[0]))
        self.down = nn.Conv2d(quarter, eighth, 3, stride=2, padding=1)
        self.eighth_blocks = nn.ModuleList(FiLMBlock(eighth, language_width) for _ in range(blocks[1]))
        self.norm = nn.GroupNorm(NORM_GROUPS, eighth)
        self.out_channels = eighth

    def forward(
        self, pictures: Float[Tensor, "batch 3 height width"], words: Float[Tensor, "batch language"] | None = None
    ) -> Float[Tensor, "batch channels h w"]:
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.shape[2] % 8 or pictures.shape[3] % 8:
            raise DataError(
                f"the network takes pictures (batch, 3, height, width) with sides divisible by 8, got {tuple(pictures.shape)}"
            )
        language = None if words is None else functional.silu(words)
        h = self.stem(functional.pixel_unshuffle(pictures - 0.5, _UNSHUFFLE))
        for block in self.quarter_blocks:
            h = block(h, language)
        h = self.down(h)
        for block in self.eighth_blocks:
            h = block(h, language)
        return functional.silu(self.norm(h))


class TokenLearner(nn.Module):
    """A feature map → a few tokens, each a weighted mean over places (Ryoo et al. 2021, "TokenLearner").

    A map rises where the features call for it, and where they match what the sentence asks for: a query for each map, made of the words,
    against a key at each place. A token carries where it looks: the mean of fixed coordinates under its map, (column, row) in [−1, 1], is
    appended.

    Of the first `pointers` maps only what lies around their highest cell counts: of two things that might be meant, the mean is neither.
    """

    coordinates: Tensor

    def __init__(self, channels: int, tokens: int, grid: int, language_width: int, pointers: int = 0) -> None:
        super().__init__()
        self.grid, self.out_channels, self.pointers = grid, channels + 2, pointers
        self.attention = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.SiLU(), nn.Conv2d(channels, tokens, 1))
        self.query, self.key = nn.Linear(language_width, tokens * _QUERY_SIZE), nn.Conv2d(channels, _QUERY_SIZE, 1)
        axis = (torch.arange(grid) + 0.5) / grid * 2 - 1
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("coordinates", torch.stack([columns, rows], dim=-1).flatten(0, 1), persistent=False)

    def forward(
        self, features: Float[Tensor, "batch channels h w"], words: Float[Tensor, "batch language"]
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, K, channels + 2) and the logits of their maps (B, K, h·w)."""
        query_BKD = self.query(functional.silu(words)).unflatten(-1, (-1, _QUERY_SIZE))
        matched_BKP = (query_BKD @ self.key(features).flatten(2)).float() * _QUERY_SIZE**-0.5
        logits_BKP = self.attention(features).flatten(2).float() + matched_BKP
        weights_BKP = self._around_highest(logits_BKP).softmax(-1)
        features_BPC = features.flatten(2).transpose(1, 2).float()
        return torch.cat([weights_BKP @ features_BPC, weights_BKP @ self.coordinates], dim=-1), logits_BKP

    def _around_highest(self, logits_BKP: Tensor) -> Tensor:
        """The pointers' maps without what is more than a cell away from their highest."""
        cells = torch.arange(logits_BKP.shape[-1], device=logits_BKP.device)
        highest = logits_BKP[:, : self.pointers].argmax(-1, keepdim=True)
        rows, columns = (highest // self.grid - cells // self.grid).abs(), (highest % self.grid - cells % self.grid).abs()
        near = logits_BKP[:, : self.pointers].masked_fill(torch.maximum(rows, columns) > 1, -torch.inf)
        return torch.cat([near, logits_BKP[:, self.pointers :]], dim=1)
