"""How often a vision-language model answers rightly, kind by kind, and how often it would without looking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError
from ornstein.core.progress import track
from ornstein.data.questions import PLACES, place_of
from ornstein.data.web_pictures import render
from ornstein.evaluation.statistics import Rate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ornstein.data.questions import Lessons, Question
    from ornstein.policies import VisionLanguageModel

_AT_ONCE = 32


def is_right(question: Question, text: str) -> bool:
    """A place within one cell (of 64 × 64) of the right one; all else letter by letter, whatever their case."""
    if not question.answer.startswith("<x"):
        return text.casefold() == question.answer.casefold()
    try:
        found = place_of(text)
    except DataError:
        return False
    return bool(np.abs(np.subtract(found, place_of(question.answer))).max() * PLACES / 2 < 1.5)


def examine(model: VisionLanguageModel, lessons: Lessons, numbers: Iterable[int], *, blind: bool = False) -> dict[str, Rate]:
    """How often it is right, by kind of question, and of "all", of those that "needs the picture" and of those that "needs no picture".

    Args:
        numbers: of the lessons. blind: show a grey picture instead, as a control.
    """
    found: dict[str, list[bool]] = {}
    chosen = list(numbers)
    for start in track(range(0, len(chosen), _AT_ONCE), -(-len(chosen) // _AT_ONCE), "asking"):
        part = [lessons.at(k) for k in chosen[start : start + _AT_ONCE]]
        # Lessons with as many questions go together: each picture is looked at once.
        for about in sorted({len(lesson.questions) for lesson in part}):
            alike = [lesson for lesson in part if len(lesson.questions) == about]
            pictures = np.stack([render(lesson.picture) for lesson in alike])
            asked = [question for lesson in alike for question in lesson.questions]
            answers = model.answer(np.full_like(pictures, 128) if blind else pictures, [one.text for one in asked])
            for question, answer in zip(asked, answers, strict=True):
                right = is_right(question, answer.text)
                for kind in ("all", "needs no picture" if question.blind else "needs the picture", question.kind):
                    found.setdefault(kind, []).append(right)
    return {kind: Rate(sum(of), len(of)) for kind, of in sorted(found.items())}
