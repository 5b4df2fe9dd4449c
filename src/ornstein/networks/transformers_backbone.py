"""A vision-language model of the transformers library as one of ours: it sees, reads and says what it is asked for, and can be taught to act.

picture ─▶ its vision tower and connector ─▶ N places ─┐
tokens before the picture, the places, tokens after it, text ─▶ its decoder ─▶ next token
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.checks import require_at_least
from ornstein.core.errors import DataError, MissingDependencyError, unknown_name
from ornstein.networks.speaking import SpeakingNetwork

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64

#: Families of models, each compared with its own forward pass in a test. Where positions have more than one dimension, as in Qwen2-VL, more is needed.
FAMILIES = ("idefics3", "llava", "paligemma", "smolvlm")
#: Those that take several pictures a text, one axis more.
_MANY_PICTURES = ("idefics3", "smolvlm")
#: Those whose question is read in both directions (Beyer et al. 2024, "PaliGemma", §3).
_BOTH_WAYS = ("paligemma",)
_CONTEXT = 128


@dataclass(frozen=True, kw_only=True)
class TransformersConfig:
    """backbone: the model's own configuration, what its config.json holds. vocabulary: tokens that it can say. mean, std: of each colour, by which pictures
    are standardised. before, after: tokens around a picture. image_size: side in pixels of the square pictures that it is given; they are resized to what
    its vision tower takes. context: the most tokens of a text, question and answer together."""

    backbone: dict[str, Any]
    vocabulary: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    image_size: int = 128
    context: int = _CONTEXT

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise unknown_name("family of vision-language models", self.family, FAMILIES)
        require_at_least(1, context=self.context, image_size=self.image_size)
        require_at_least(2, vocabulary=self.vocabulary)
        require_at_least(1e-6, **{f"std[{k}]": value for k, value in enumerate(self.std)})
        for name in ("text_config", "vision_config"):
            if not isinstance(self.backbone.get(name), dict):
                raise DataError(f"a backbone's configuration has a {name}; this one has {', '.join(sorted(self.backbone))}")

    @property
    def family(self) -> str:
        """What transformers calls its kind."""
        return str(self.backbone.get("model_type"))

    @property
    def width(self) -> int:
        """Of the decoder."""
        return int(self.backbone["text_config"]["hidden_size"])


class _Reading(NamedTuple):
    """A decoder's keys and values so far, and the picture while nothing was read."""

    kept: Any
    seen: Tensor | None
    read: int


class TransformersNetwork(SpeakingNetwork):
    """The backbone behind the interface of our own."""

    config: TransformersConfig
    mean: Tensor
    std: Tensor
    backbone: Any

    def __init__(self, config: TransformersConfig, backbone: nn.Module | None = None) -> None:
        """
        Args:
            backbone: a model of that configuration, which is taken over; a fresh one is made without.

        Raises:
            MissingDependencyError: transformers is not installed.
        """
        super().__init__()
        self.config = config
        self.backbone = _built(config.backbone) if backbone is None else backbone
        if config.vocabulary > len(self.backbone.get_input_embeddings().weight):
            self.backbone.resize_token_embeddings(config.vocabulary, mean_resizing=False)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(config, name)).view(3, 1, 1), persistent=False)

    def look_at(self, image_size: int) -> None:
        """Let it take square pictures of this side in pixels."""
        self.config = replace(self.config, image_size=image_size)

    def see(self, pictures: Tensor) -> Float[Tensor, "batch places width"]:
        """See `SpeakingNetwork`."""
        pictures, side = self.as_floats(pictures), self.config.image_size
        wanted = int(self.config.backbone["vision_config"]["image_size"])
        if wanted != side:
            pictures = functional.interpolate(pictures, (wanted, wanted), mode="bilinear", antialias=True, align_corners=False)
        pixels = (pictures - self.mean) / self.std
        found = self.backbone.get_image_features(
            pixel_values=pixels[:, None] if self.config.family in _MANY_PICTURES else pixels
        ).pooler_output
        return found if isinstance(found, Tensor) else torch.stack(list(found))

    def read_and_look(
        self,
        seen: Float[Tensor, "pictures places width"],
        tokens: Int64[Tensor, "texts tokens"],
        answered: Bool[Tensor, "texts tokens"] | None = None,
    ) -> tuple[Float[Tensor, "texts tokens width"], None]:
        """See `SpeakingNetwork`; none of its heads may be told where to look."""
        length = tokens.shape[1]
        asked = torch.full((len(tokens),), length, device=tokens.device)
        if answered is not None:
            asked = torch.where(answered.any(-1), answered.int().argmax(-1), length)
        return self._read(seen, tokens, asked, None), None

    def say(self, read: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocabulary"]:
        """Logits of the next token."""
        logits: Tensor = self.backbone.get_output_embeddings()(read)[..., : self.config.vocabulary].float()
        cap = self.config.backbone["text_config"].get("final_logit_softcapping")
        return logits if cap is None else cap * (logits / cap).tanh()

    def open(self, seen: Float[Tensor, "pictures places width"]) -> _Reading:
        """See `SpeakingNetwork`."""
        from transformers import DynamicCache

        return _Reading(DynamicCache(config=self.backbone.config.get_text_config()), seen, 0)

    def follow(
        self, tokens: Int64[Tensor, "texts tokens"], cache: _Reading
    ) -> tuple[Float[Tensor, "texts tokens width"], _Reading]:
        """See `SpeakingNetwork`."""
        length = cache.read + tokens.shape[1]
        if cache.seen is not None:
            asked = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
            return self._read(cache.seen, tokens, asked, cache.kept), _Reading(cache.kept, None, length)
        self._fits(length)
        embedded = self.backbone.get_input_embeddings()(tokens)
        read: Tensor = self._decoder(inputs_embeds=embedded, cache=cache.kept, use_cache=True).last_hidden_state
        return read, _Reading(cache.kept, None, length)

    def token_vectors(self) -> list[nn.Parameter]:
        """One of each where the backbone says tokens by what it reads them as."""
        vectors = self.backbone.get_input_embeddings().weight
        said = self.backbone.get_output_embeddings().weight
        return [vectors] if said is vectors else [vectors, said]

    def token_std(self) -> float:
        """As those that it has."""
        return float(self.backbone.get_input_embeddings().weight.detach().std())

    @property
    def _decoder(self) -> Any:
        return self.backbone.get_decoder()

    def _fits(self, length: int) -> None:
        if length > self.config.context:
            raise DataError(f"question and answer are {length} tokens, this model's context holds {self.config.context}")

    def _read(self, seen: Tensor, tokens: Tensor, asked: Tensor, kept: Any) -> Tensor:
        """What the decoder makes of each token, behind the picture. asked: of each text how many tokens are its question."""
        self._fits(tokens.shape[1])
        if len(tokens) % len(seen):
            raise DataError(f"{len(tokens)} texts cannot be as many for each of {len(seen)} pictures")
        embed, texts = self.backbone.get_input_embeddings(), len(tokens)
        frame = [
            torch.tensor(part, dtype=torch.int64, device=tokens.device).expand(texts, -1)
            for part in (self.config.before, self.config.after)
        ]
        shown = seen.repeat_interleave(texts // len(seen), dim=0)
        whole = torch.cat([embed(frame[0]), shown.to(embed.weight.dtype), embed(frame[1]), embed(tokens)], dim=1)
        before = whole.shape[1] - tokens.shape[1]
        mask = _both_ways(whole, before + asked) if self.config.family in _BOTH_WAYS else None
        read: Tensor = self._decoder(
            inputs_embeds=whole, attention_mask=mask, cache=kept, use_cache=kept is not None
        ).last_hidden_state
        return read[:, before:]


def _both_ways(x_BLD: Tensor, question: Tensor) -> Tensor:
    """What attention scores are added to: 0 where a place may be looked at from another, the lowest number elsewhere. Whatever belongs to picture or question is
    seen from everywhere, the rest from what comes after."""
    place = torch.arange(x_BLD.shape[1], device=x_BLD.device)
    seen_BLL = (place <= place[:, None]) | (place < question[:, None, None])
    lowest = torch.finfo(x_BLD.dtype).min
    return torch.zeros_like(seen_BLL, dtype=x_BLD.dtype).masked_fill(~seen_BLL, lowest)[:, None]


def _built(settings: dict[str, Any]) -> nn.Module:
    try:
        from transformers import AutoConfig, AutoModelForImageTextToText
    except ImportError as error:
        raise MissingDependencyError("a backbone of another's needs transformers: pip install 'ornstein[vlm]'") from error
    rest = {name: value for name, value in settings.items() if name not in ("model_type", "transformers_version")}
    model: nn.Module = AutoModelForImageTextToText.from_config(  # type: ignore[no-untyped-call]
        AutoConfig.for_model(settings["model_type"], **rest)
    )
    return model.float()
