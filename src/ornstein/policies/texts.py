"""Questions and answers as tokens: "Q: where is the lion? A: <x12> <y40>", as RT-2's are (Zitkovich et al. 2023, Appendix A)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Int64

    from ornstein.language import TextTokenizer


class TextTensors(NamedTuple):
    """Texts, padded, int64 (N, L); and where the token is part of an answer, bool (N, L)."""

    tokens: Int64[Tensor, "texts tokens"]
    answered: Bool[Tensor, "texts tokens"]


def question_tokens(tokenizer: TextTokenizer, question: str) -> list[int]:
    """What a model reads before it answers."""
    return tokenizer.encode(f"Q: {question} A:")


def answer_tokens(tokenizer: TextTokenizer, answer: str) -> list[int]:
    """What it then should write."""
    return [*tokenizer.encode(f" {answer}"), tokenizer.end]


def text_tensors(tokenizer: TextTokenizer, asked: Sequence[tuple[str, str] | None]) -> TextTensors:
    """Questions with their answers; None is a text of nothing, which no loss counts."""
    return padded(
        [(question_tokens(tokenizer, one[0]), answer_tokens(tokenizer, one[1])) if one else ([], []) for one in asked],
        tokenizer.pad,
    )


def padded(parts: Sequence[tuple[list[int], list[int]]], pad: int) -> TextTensors:
    """The tokens of questions and of their answers, one behind the other."""
    longest = max(len(question) + len(answer) for question, answer in parts)
    tokens, answered = torch.full((len(parts), longest), pad), torch.zeros((len(parts), longest), dtype=torch.bool)
    for row, (question, answer) in enumerate(parts):
        end = len(question) + len(answer)
        tokens[row, :end] = torch.tensor([*question, *answer], dtype=torch.int64)
        answered[row, len(question) : end] = True
    return TextTensors(tokens, answered)
