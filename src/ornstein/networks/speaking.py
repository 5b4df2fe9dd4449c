"""What every vision-language network can do, ours or another's: see a picture once, then read and go on with texts about it.

Shapes: B pictures or texts, N places, L tokens, D width, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ornstein.core.errors import DataError
from ornstein.networks.waves import waves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int64

_OCTAVES = 5


class SpeakingConfig(Protocol):
    """image_size: side in pixels of the square pictures that it takes. width: of what it reads a token as. vocabulary: tokens that it can say. context: the
    most tokens of a text, question and answer together."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def image_size(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def context(self) -> int: ...


class SpeakingNetwork(nn.Module):
    """`see` a picture once, then ask about it as often as one likes."""

    config: SpeakingConfig

    def as_floats(self, pictures: Tensor) -> Float[Tensor, "batch 3 height width"]:
        """Pictures as `see` takes them, as floats in [0, 1]. Errors as there."""
        if pictures.dtype == torch.uint8:
            pictures = pictures.movedim(-1, 1).float() / 255
        side = self.config.image_size
        if pictures.shape[1:] != (3, side, side):
            raise DataError(f"this model looks at RGB pictures of {side} × {side}, got {tuple(pictures.shape)}")
        return pictures

    @abstractmethod
    def see(self, pictures: Tensor) -> Float[Tensor, "batch places width"]:
        """What a picture shows, for the decoder.

        Args:
            pictures: uint8 (B, H, W, 3), or floats in [0, 1], (B, 3, H, W).

        Raises:
            DataError: another size.
        """

    @abstractmethod
    def read_and_look(
        self,
        seen: Float[Tensor, "pictures places width"],
        tokens: Int64[Tensor, "texts tokens"],
        answered: Bool[Tensor, "texts tokens"] | None = None,
    ) -> tuple[Float[Tensor, "texts tokens width"], Float[Tensor, "texts tokens places"] | None]:
        """What `say` makes the logits of, and the logits of where one head of a middle block looks from each token, if it has a head that may be told where.

        Args:
            seen: of `see`. tokens: as many texts about each picture, in the pictures' order. Shorter ones are padded behind their end with any
                token: what comes after has no influence. answered: where a token is part of an answer; a network that reads a question as a whole has
                to know where it ends. None: nowhere.

        Raises:
            DataError: more tokens than the context holds, or texts that are not as many for each picture.
        """

    @abstractmethod
    def say(self, read: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocabulary"]:
        """Logits of the next token."""

    @abstractmethod
    def open(self, seen: Float[Tensor, "pictures places width"]) -> Any:
        """What `follow` needs before the first token."""

    @abstractmethod
    def follow(self, tokens: Int64[Tensor, "texts tokens"], cache: Any) -> tuple[Float[Tensor, "texts tokens width"], Any]:
        """Reads these tokens after all those before; equals reading all anew (tested). The first ones are a whole question.

        Args:
            cache: of `open` or of the last call, which then may not be used again.
        """

    @abstractmethod
    def token_vectors(self) -> list[nn.Parameter]:
        """What tokens are read as, and what they are said by where that is not the same: (V or more, D) each."""

    def forward(
        self, seen: Float[Tensor, "pictures places width"], tokens: Int64[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts tokens vocabulary"]:
        """Logits of the token after each, see `read_and_look`."""
        return self.say(self.read_and_look(seen, tokens)[0])

    def begin(
        self, seen: Float[Tensor, "pictures places width"], tokens: Int64[Tensor, "texts tokens"]
    ) -> tuple[Float[Tensor, "texts vocabulary"], Any]:
        """Logits of the token after a question, and what `go_on` needs. All questions are of one length."""
        read, cache = self.follow(tokens, self.open(seen))
        return self.say(read[:, -1]), cache

    def go_on(self, tokens: Int64[Tensor, " texts"], cache: Any) -> tuple[Float[Tensor, "texts vocabulary"], Any]:
        """The same after one token more."""
        read, cache = self.follow(tokens[:, None], cache)
        return self.say(read[:, -1]), cache

    @abstractmethod
    def token_std(self) -> float:
        """Standard deviation of what the vectors of new tokens should begin with."""

    @torch.no_grad()
    def order_tokens(self, tokens: Sequence[int]) -> None:
        """Let these tokens' vectors begin as those of a scale: neighbours alike, by waves along it, mixed at random by torch's global generator.

        Tokens of places and of actions' bins are numbers; as unrelated words, each would have to be learnt by itself.
        """
        code = waves(torch.linspace(-1, 1, len(tokens))[:, None], _OCTAVES)
        mixed = code @ torch.randn(code.shape[-1], self.config.width) * code.shape[-1] ** -0.5
        for vectors in self.token_vectors():
            vectors[list(tokens)] = (mixed * self.token_std() / mixed.std()).to(vectors)
