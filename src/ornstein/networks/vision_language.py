"""A small vision-language model: a picture becomes places with features, a decoder writes text while it looks at them.

    picture ─▶ convolutions (÷ 8) ─▶ transformer ─▶ G × G places ─┐
    tokens so far ─────────────────────────────────────────────▶ decoder blocks (self, cross, MLP) ─▶ next token

Encoder and decoder as in PaLI-X (Chen et al. 2023), one of the two backbones of RT-2. Convolutions before the transformer learn from far fewer
pictures (Xiao et al. 2021, "Early Convolutions Help Transformers See Better"); these are those of the small RT-1 without its FiLM.

Shapes: B pictures or texts, N = G² places, L tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ornstein.core.checks import require_at_least, require_multiples
from ornstein.core.errors import DataError
from ornstein.networks.attention import MLP, Attention
from ornstein.networks.causal_transformer import CausalBlock
from ornstein.networks.dit import sincos_positions
from ornstein.networks.film_convnet import DOWNSAMPLING, NORM_GROUPS, FiLMConvNet
from ornstein.networks.speaking import SpeakingNetwork
from ornstein.networks.waves import waves

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64

_PLACE_OCTAVES = 5
#: Tokens' vectors are what answers are chosen by: much smaller ones take hundreds of steps to grow (docs/lab-notes.md).
_TOKEN_STD = 0.07


@dataclass(frozen=True)
class VisionLanguageConfig:
    """image_size: side of the square picture in pixels. channels, blocks: of the encoder's convolutions, at a quarter and at an eighth of the
    resolution. vision_depth, vision_heads: of its transformer, which is as wide as the last of them. width, depth, heads: of the decoder.
    vocabulary: tokens that it can say. context: the most tokens of a text, question and answer together."""

    image_size: int = 128
    channels: tuple[int, int] = (64, 128)
    blocks: tuple[int, int] = (1, 3)
    vision_depth: int = 1
    vision_heads: int = 4
    width: int = 192
    depth: int = 4
    heads: int = 6
    vocabulary: int = 2048
    context: int = 96

    def __post_init__(self) -> None:
        require_multiples(DOWNSAMPLING, "the convolutions make it so many times smaller", {"image_size": self.image_size})
        channels = {f"channels[{k}]": number for k, number in enumerate(self.channels)}
        require_multiples(NORM_GROUPS, "normalised in groups", channels)
        require_multiples(self.vision_heads, "the encoder's heads", {"channels[1]": self.channels[1]})
        require_multiples(self.heads, "the decoder's heads", {"width": self.width})
        require_at_least(0, vision_depth=self.vision_depth, **{f"blocks[{k}]": number for k, number in enumerate(self.blocks)})
        require_at_least(1, depth=self.depth, context=self.context)
        require_at_least(2, vocabulary=self.vocabulary)


class VisionEncoder(nn.Module):
    """A picture → a feature for each of G × G places."""

    positions: Tensor

    def __init__(self, image_size: int, channels: tuple[int, int], blocks: tuple[int, int], depth: int, heads: int) -> None:
        super().__init__()
        self.grid = image_size // DOWNSAMPLING
        width = channels[1]
        self.convolutions = FiLMConvNet(channels, blocks, language_width=0)
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("positions", sincos_positions(self.grid, width), persistent=False)

    def forward(self, pictures: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch places features"]:
        """
        Args:
            pictures: floats in [0, 1].
        """
        x_BND: Tensor = self.convolutions(pictures).flatten(2).transpose(1, 2)
        x_BND = x_BND + self.positions
        for block in self.blocks:
            x_BND = block(x_BND)
        seen: Tensor = self.norm(x_BND)
        return seen


def place_waves(grid: int) -> Float[Tensor, "places waves"]:
    """Of the centres of G × G places, row by row: `waves` of (column, row) in −1 … 1."""
    axis = (torch.arange(grid) + 0.5) / grid * 2 - 1
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    return waves(torch.stack([columns, rows], dim=-1).flatten(0, 1), _PLACE_OCTAVES)


class DecoderCache(NamedTuple):
    """What a decoder has worked out for a text so far: each block's keys and values of the tokens (B, H, L, D/H), and of the picture's places."""

    own: list[tuple[Tensor, Tensor]]
    places: list[tuple[Tensor, Tensor]]


class PlaceNaming(nn.Module):
    """What lies where, for training alone: the feature at a place and the sentence encoder's vector of a name, brought together."""

    def __init__(self, features: int, name_size: int = 512, size: int = 64) -> None:
        super().__init__()
        self.thing, self.name = nn.Linear(features, size), nn.Linear(name_size, size)


class VisionLanguageNetwork(SpeakingNetwork):
    """Our own."""

    config: VisionLanguageConfig
    where: Tensor

    def __init__(self, config: VisionLanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config.image_size, config.channels, config.blocks, config.vision_depth, config.vision_heads)
        where = place_waves(config.image_size // DOWNSAMPLING)
        self.register_buffer("where", where, persistent=False)
        self.places_in = nn.Linear(config.channels[1] + where.shape[-1], config.width)
        self.tokens_in = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.randn(config.context, config.width) * 0.02)
        self.blocks = nn.ModuleList(_DecoderBlock(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.aids = PlaceNaming(config.channels[1])
        nn.init.normal_(self.tokens_in.weight, std=_TOKEN_STD)

    def see(self, pictures: Tensor) -> Float[Tensor, "batch places features"]:
        """See `SpeakingNetwork`."""
        return self.at_places(self.look(pictures))

    def at_places(self, features: Float[Tensor, "batch places features"]) -> Float[Tensor, "batch places width"]:
        """What `look` gives, each with its place told plainly: a feature alone hardly says where it is."""
        where = self.where.to(features.dtype).expand(len(features), -1, -1)
        seen: Tensor = self.places_in(torch.cat([features, where], dim=-1))
        return seen

    def look(self, pictures: Tensor) -> Float[Tensor, "batch places features"]:
        """What the encoder alone makes of pictures, given as for `see`."""
        features: Tensor = self.vision(self.as_floats(pictures))
        return features

    def read_and_look(
        self,
        seen: Float[Tensor, "pictures places features"],
        tokens: Int64[Tensor, "texts tokens"],
        answered: Bool[Tensor, "texts tokens"] | None = None,
    ) -> tuple[Float[Tensor, "texts tokens width"], Float[Tensor, "texts tokens places"]]:
        """See `SpeakingNetwork`; every token reads what came before it, so where answers begin makes no difference."""
        looks: list[Tensor] = []
        read, _ = self._run(tokens, self.open(seen), looks)
        return read, looks[0]

    def say(self, read: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocabulary"]:
        """Logits of the next token."""
        logits: Tensor = read @ self.tokens_in.weight.T
        return logits.float()

    def open(self, seen: Float[Tensor, "pictures places features"]) -> DecoderCache:
        """Each block's keys and values of the picture's places."""
        return DecoderCache([], [block.look(seen) for block in self.blocks])  # type: ignore[operator]

    def follow(
        self, tokens: Int64[Tensor, "texts tokens"], cache: DecoderCache
    ) -> tuple[Float[Tensor, "texts tokens width"], DecoderCache]:
        """See `SpeakingNetwork`."""
        return self._run(tokens, cache)

    def token_vectors(self) -> list[nn.Parameter]:
        """One of each: tokens are said by what they are read as."""
        vectors: nn.Parameter = self.tokens_in.weight  # type: ignore[assignment]
        return [vectors]

    def token_std(self) -> float:
        """As all of them began."""
        return _TOKEN_STD

    def _run(self, tokens: Tensor, cache: DecoderCache, looks: list[Tensor] | None = None) -> tuple[Tensor, DecoderCache]:
        before = cache.own[0][0].shape[2] if cache.own else 0
        after = before + tokens.shape[1]
        if after > self.config.context:
            raise DataError(f"question and answer are {after} tokens, this model's context holds {self.config.context}")
        if len(tokens) % len(cache.places[0][0]):
            raise DataError(f"{len(tokens)} texts cannot be as many for each of {len(cache.places[0][0])} pictures")
        x_BLD = self.tokens_in(tokens) + self.positions[before:after]
        place = torch.arange(after, device=tokens.device)
        mask_LL = place <= place[before:, None]
        own, middle = [], len(self.blocks) // 2
        for k, block in enumerate(self.blocks):
            told = looks if k == middle else None
            x_BLD, kept = block(x_BLD, mask_LL, cache.own[k] if cache.own else None, cache.places[k], told)
            own.append(kept)
        return self.norm(x_BLD), DecoderCache(own, cache.places)


class _DecoderBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross, self.mlp = Attention(width, heads), Attention(width, heads), MLP(width)

    def look(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a picture's places."""
        return self.cross.keys_values(seen)

    def forward(
        self,
        x_BLD: Tensor,
        mask_LL: Tensor,
        before: tuple[Tensor, Tensor] | None,
        places: tuple[Tensor, Tensor],
        looks: list[Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h_BLD = self.norm1(x_BLD)
        kept = self.own.keys_values(h_BLD)
        if before is not None:
            kept = torch.cat([before[0], kept[0]], dim=2), torch.cat([before[1], kept[1]], dim=2)
        x_BLD = x_BLD + self.own.attend(h_BLD, *kept, mask_LL)
        # A token looks at its picture whatever text it stands in: the texts about one picture ask in one row.
        asking = self.norm2(x_BLD).reshape(len(places[0]), -1, x_BLD.shape[-1])
        if looks is not None:
            first = self.cross.query(asking).unflatten(-1, (self.cross.heads, -1))[:, :, 0]
            scores = first @ places[0][:, 0].transpose(-1, -2) * first.shape[-1] ** -0.5
            looks.append(scores.float().view(*x_BLD.shape[:2], -1))
        x_BLD = x_BLD + self.cross.attend(asking, *places).view_as(x_BLD)
        return x_BLD + self.mlp(self.norm3(x_BLD)), kept
