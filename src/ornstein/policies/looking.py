"""Where a decoder should look while a text speaks of a place.

One head of a middle block is told, at the tokens from which a place's column and row are said, to look there; and at the token from which the answer to
a question about a place begins (supervised attention: Liu et al. 2016, "Neural Machine Translation with Supervised Attention"). Without it a small model
learns what lies in a picture and not where (docs/lab-notes.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ornstein.core.errors import DataError
from ornstein.data.questions import PLACES
from ornstein.policies.cells import nearest_cells

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from ornstein.language import TextTokenizer
    from ornstein.policies.texts import TextTensors

#: A row's token comes behind its column's, a space between them or not.
_WITHIN = 2


class PlaceTokens(NamedTuple):
    """The tokens of columns and of rows, in their order."""

    columns: tuple[int, ...]
    rows: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> PlaceTokens:
        """
        Raises:
            DataError: the tokenizer has none.
        """
        marks = [[tokenizer.encode(f"<{axis}{k}>") for k in range(PLACES)] for axis in "xy"]
        if any(len(one) != 1 for one in [*marks[0], *marks[1]]):
            raise DataError("this tokenizer has no tokens of their own for places")
        columns, rows = (tuple(one[0] for one in group) for group in marks)
        return cls(columns, rows)


class SpokenPlaces(NamedTuple):
    """P times that a text speaks of a place: number of the text, of the token from which to look, int64 (P,); the place, (P, 2), (column, row) in −1 … 1."""

    texts: Int64[Tensor, " times"]
    tokens: Int64[Tensor, " times"]
    places: Float[Tensor, "times 2"]


def spoken_places(texts: TextTensors, known: PlaceTokens) -> SpokenPlaces:
    """Each place of an answer twice, from where its column and its row are said; each of a question from where the answer begins."""
    numbers = torch.full((2, int(max(*known.columns, *known.rows, int(texts.tokens.max()))) + 1), -1, device=texts.tokens.device)
    for axis, tokens in enumerate(known):
        numbers[axis, list(tokens)] = torch.arange(len(tokens), device=numbers.device)
    column, row = numbers[0][texts.tokens], numbers[1][texts.tokens]
    text, first = (column >= 0).nonzero(as_tuple=True)
    second = torch.full_like(first, -1)
    for step in range(_WITHIN, 0, -1):  # the nearest counts
        there = (first + step).clamp(max=texts.tokens.shape[1] - 1)
        second = torch.where((row[text, there] >= 0) & (first + step < texts.tokens.shape[1]), there, second)
    whole = second >= 0
    text, first, second = text[whole], first[whole], second[whole]
    place = (torch.stack([column[text, first], row[text, second]], dim=-1) + 0.5) / len(known.columns) * 2 - 1
    said = texts.answered[text, first]
    begins = texts.answered.int().argmax(-1)[text]
    asked = ~said & texts.answered.any(-1)[text]
    return SpokenPlaces(
        torch.cat([text[said], text[said], text[asked]]),
        torch.cat([first[said], second[said], begins[asked]]) - 1,
        torch.cat([place[said], place[said], place[asked]]),
    )


def looking_loss(
    looks: Float[Tensor, "texts tokens places"], texts: TextTensors, known: PlaceTokens
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy between where the head looks and the places; shared among four cells, so that the mean is the place.

    Args:
        looks: of `VisionLanguageNetwork.read_and_look`. What it sees besides the G × G cells of a picture comes last.
    """
    spoken = spoken_places(texts, known)
    if not len(spoken.texts):
        return looks.sum() * 0.0, {}
    logits = looks[spoken.texts, spoken.tokens].float().log_softmax(-1)
    grid = math.isqrt(logits.shape[-1])
    wanted = nearest_cells(spoken.places, grid)
    right = wanted.gather(1, logits[:, : grid**2].argmax(-1, keepdim=True)) > 0
    return -(wanted * logits[:, : grid**2]).sum(-1).mean(), {"looks_right": right.float().mean().detach()}
