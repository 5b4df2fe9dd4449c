"""A diffusion transformer conditioned on text.

Peebles & Xie 2023 ("Scalable Diffusion Models with Transformers") give the block: self-attention and an MLP, each shifted,
scaled and gated by the condition (adaLN-Zero: gates are zero at the start, so the network begins as the identity).
Chen et al. 2024 (PixArt-α) give two changes that we keep: one modulation network shared by all blocks plus a learned
offset a block (adaLN-single), and cross-attention to the words, so that "a rocket above a heart" can say which is where.
For that the words must know their order: see `ornstein.networks.text_block`.

Shapes: B batch, N image tokens, L word pieces, D width, H heads.
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
from ornstein.networks.attention import MLP, Attention
from ornstein.networks.text_block import TextBlock

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Shaped

TEXT_SIZE = 512


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer.

    latent_size: side of the (square) latent in cells; latent_channels: its channels.
    patch_size: cells along a token's side. width, depth, heads: of the image transformer.
    text_depth: blocks of the small transformer that reads the word pieces; text_length: the most pieces it reads.
    """

    latent_size: int = 16
    latent_channels: int = 4
    patch_size: int = 4
    width: int = 256
    depth: int = 10
    heads: int = 4
    text_depth: int = 1
    text_length: int = 32

    def __post_init__(self) -> None:
        require_at_least(1, latent_channels=self.latent_channels, patch_size=self.patch_size, heads=self.heads)
        require_at_least(1, depth=self.depth, text_length=self.text_length)
        require_at_least(0, text_depth=self.text_depth)
        require_multiples(self.patch_size, "the patch size", {"latent_size": self.latent_size})
        require_multiples(self.heads, "the number of heads", {"width": self.width})
        require_multiples(4, "the position code has four parts", {"width": self.width})


class TextCondition(NamedTuple):
    """What the picture shall show, for B pictures; the leaves have the batch first, so that guidance can stack two.

    pieces: float (B, L, 512), one embedding for each word piece. mask: bool (B, L), True at real pieces.
    A text without any piece is the empty condition ∅.
    """

    pieces: Tensor
    mask: Tensor

    @classmethod
    def empty(cls, batch: int, length: int, device: torch.device | str = "cpu") -> TextCondition:
        """∅ for a batch: what the model saw when its condition was dropped in training."""
        return cls(
            torch.zeros(batch, length, TEXT_SIZE, device=device),
            torch.zeros(batch, length, dtype=torch.bool, device=device),
        )

    def drop(self, dropped: Bool[Tensor, " batch"]) -> TextCondition:
        """The same with ∅ in place of the rows marked True."""
        return self._replace(mask=self.mask & ~dropped[:, None])


class DiTBlock(nn.Module):
    """Self-attention, cross-attention to the text, MLP; the first and last modulated by (shift, scale, gate)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.mlp = MLP(width)
        self.modulation_offset = nn.Parameter(torch.randn(6, width) / width**0.5)
        nn.init.zeros_(self.cross_attention.out.weight)
        nn.init.zeros_(self.cross_attention.out.bias)

    def forward(self, x_BND: Tensor, modulation_B6D: Tensor, text_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation_B6D + self.modulation_offset)[:, :, None].unbind(1)
        h_BND = self.norm1(x_BND) * (1 + scale1) + shift1
        x_BND = x_BND + gate1 * self.attention(h_BND, h_BND)
        x_BND = x_BND + self.cross_attention(functional.layer_norm(x_BND, x_BND.shape[-1:]), text_BLD, mask_BL[:, None, None])
        return x_BND + gate2 * self.mlp(self.norm2(x_BND) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """A denoiser `(x_t, t, TextCondition) -> prediction` over latents (B, C, S, S); t lies within (0, T], whole or not.

    The mean of the words modulates every block; cross-attention reads them one by one. `piece_std` standardises their embeddings.
    """

    piece_std: Tensor
    positions: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width, grid = config.width, config.latent_size // config.patch_size
        token_size = config.latent_channels * config.patch_size**2
        self.patch_in = nn.Linear(token_size, width)
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        self.register_buffer("piece_std", torch.ones(()))
        self.time_in = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.summary_in = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.piece_in = nn.Linear(TEXT_SIZE, width)
        # Always present, so that attention to an empty text is defined.
        self.start_token = nn.Parameter(torch.randn(width) * 0.02)
        self.text_blocks = nn.ModuleList(TextBlock(width, config.heads, config.text_length) for _ in range(config.text_depth))
        self.text_norm = nn.LayerNorm(width)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(DiTBlock(width, config.heads) for _ in range(config.depth))
        self.out_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.out_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.patch_out = nn.Linear(width, token_size)
        for zeroed in (self.patch_out, self.out_modulation.get_submodule("1")):
            for parameter in zeroed.parameters():
                nn.init.zeros_(parameter)
        with torch.no_grad():  # gates start at zero whatever the condition (adaLN-Zero)
            for name, parameter in self.named_parameters():
                if name.endswith("modulation_offset") or name.startswith("modulation."):
                    parameter.view(6, width, -1)[[2, 5]] = 0.0

    def forward(
        self, x_t: Float[Tensor, "batch channels size size"], t: Shaped[Tensor, " batch"], condition: TextCondition
    ) -> Float[Tensor, "batch channels size size"]:
        """The prediction for x_t, same shape, float32 whatever the precision inside.

        Raises:
            DataError: the latent or the text does not have the configured size.
        """
        return self._denoise(x_t, self.time_in(time_embedding(t, 256)), condition)

    def _denoise(self, x_t: Tensor, signal_BD: Tensor, condition: TextCondition) -> Tensor:
        """The prediction, every block modulated by the signal and the whole text."""
        self._check(x_t, condition)
        text_BLD, mask_BL, summary_BD = self._read(condition)
        signal_BD = signal_BD + summary_BD
        modulation_B6D = self.modulation(signal_BD).unflatten(-1, (6, -1))
        x_BND = self.patch_in(self._to_tokens(x_t)) + self.positions
        for block in self.blocks:
            x_BND = block(x_BND, modulation_B6D, text_BLD, mask_BL)
        shift, scale = self.out_modulation(signal_BD)[:, None].chunk(2, -1)
        return self._to_latent(self.patch_out(self.out_norm(x_BND) * (1 + scale) + shift)).float()

    def _check(self, x_t: Tensor, condition: TextCondition) -> None:
        config = self.config
        expected = (config.latent_channels, config.latent_size, config.latent_size)
        if tuple(x_t.shape[1:]) != expected:
            raise DataError(
                f"this denoiser takes latents (batch, {expected[0]}, {expected[1]}, {expected[2]}), got {tuple(x_t.shape)}"
            )
        batch, length, size = condition.pieces.shape
        if batch != len(x_t) or length > config.text_length or size != TEXT_SIZE:
            raise DataError(
                f"this denoiser reads texts as (batch {len(x_t)}, at most {config.text_length}, {TEXT_SIZE}) piece vectors,"
                f" got {tuple(condition.pieces.shape)}"
            )

    def _read(self, condition: TextCondition) -> tuple[Tensor, Tensor, Tensor]:
        """Text tokens (B, 1 + L, D), their mask (B, 1 + L), and the whole text as one vector (B, D)."""
        batch = len(condition.mask)
        pieces_BLD = self.piece_in(condition.pieces / self.piece_std)
        start_B1D = self.start_token.expand(batch, 1, -1).to(pieces_BLD.dtype)
        text_BLD = torch.cat([start_B1D, pieces_BLD], 1)
        mask_BL = functional.pad(condition.mask, (1, 0), value=True)
        for block in self.text_blocks:
            text_BLD = block(text_BLD, mask_BL)
        text_BLD = self.text_norm(text_BLD)
        words_BLD = text_BLD[:, 1:] * condition.mask[..., None]
        mean_BD = words_BLD.sum(1) / condition.mask.sum(1, keepdim=True).clamp(min=1)
        return text_BLD, mask_BL, self.summary_in(mean_BD)

    def _to_tokens(self, x_BCSS: Tensor) -> Tensor:
        return functional.pixel_unshuffle(x_BCSS, self.config.patch_size).flatten(2).transpose(1, 2)

    def _to_latent(self, x_BND: Tensor) -> Tensor:
        grid = self.config.latent_size // self.config.patch_size
        return functional.pixel_shuffle(x_BND.transpose(1, 2).reshape(len(x_BND), -1, grid, grid), self.config.patch_size)


def time_embedding(t: Shaped[Tensor, " batch"], size: int, longest_period: float = 10_000.0) -> Float[Tensor, "batch size"]:
    """Cosines and sines of the time step at `size`/2 frequencies from 1 down to 1/10,000 (Ho et al. 2020, appendix B)."""
    half = size // 2
    frequencies = torch.exp(-math.log(longest_period) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def sincos_positions(grid: int, width: int) -> Float[Tensor, "tokens width"]:
    """Fixed two-dimensional position codes, row by row: half of the width for the row, half for the column."""
    quarter = width // 4
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(quarter) / quarter)
    angles = torch.arange(grid)[:, None] * frequencies
    code = torch.cat([angles.sin(), angles.cos()], dim=-1)
    rows = code[:, None].expand(grid, grid, -1)
    columns = code[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)
