"""Answers are marked as the lessons have them; a model that knows all is right in all, one that guesses is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ornstein.data.questions import Lessons, Question, place_tokens
from ornstein.data.web_pictures import render
from ornstein.evaluation import Rate
from ornstein.evaluation.answers import examine, is_right
from ornstein.policies import Answer


class _Knowing:
    """It recognises every picture and remembers its answers; of others it says nothing."""

    def __init__(self, lessons: Lessons, numbers: Sequence[int]) -> None:
        self._answers = {
            (render(lesson.picture).tobytes(), question.text): question.answer
            for lesson in map(lessons.at, numbers)
            for question in lesson.questions
        }

    def answer(self, pictures: np.ndarray, questions: Sequence[str]) -> list[Answer]:
        about = len(questions) // len(pictures)
        known = [self._answers.get((pictures[k // about].tobytes(), text), "") for k, text in enumerate(questions)]
        return [Answer(text if text.startswith("<") else text.upper(), 0.0, whole=True) for text in known]


def test_all_is_right_for_who_knows_and_nothing_for_who_sees_grey() -> None:
    lessons = Lessons(seed=8, split="validation")
    knowing: Any = _Knowing(lessons, range(40))
    seen, blind = examine(knowing, lessons, range(40)), examine(knowing, lessons, range(40), blind=True)
    asked = [question for k in range(40) for question in lessons.at(k).questions]
    assert seen["all"] == Rate(len(asked), len(asked))
    assert blind["all"] == Rate(0, len(asked))
    for kind in {question.kind for question in asked}:
        assert seen[kind].n == sum(question.kind == kind for question in asked)
    assert seen["needs no picture"].n == sum(question.blind for question in asked)
    assert seen["needs the picture"].n + seen["needs no picture"].n == len(asked)
    assert examine(knowing, lessons, range(50))["all"].rate < 1


def test_a_place_may_be_off_by_a_cell() -> None:
    where = Question("where", "find the lion", "<x20> <y30>")
    for dx, dy, right in ((0, 0, True), (1, -1, True), (2, 0, False), (0, -2, False)):
        assert is_right(where, f"<x{20 + dx}> <y{30 + dy}>") == right
    assert not is_right(where, "the lion")
    assert not is_right(where, "<y30> <x20>")
    assert is_right(where, place_tokens(20.5 / 32 - 1, 30.5 / 32 - 1))
    other = Question("concept", "which one is a dinosaur?", "the T-Rex")
    assert is_right(other, "the t-rex")
    assert not is_right(other, "the t-rex.")


def test_the_shipped_model_answers_what_it_sees() -> None:
    """Fresh pictures, of a seed that neither training nor tuning saw; a grey picture in their place leaves what can be guessed."""
    import ornstein

    model = ornstein.load("vlm-emoji", expect="vision-language")
    lessons = Lessons(seed=1_000_001, split="validation")
    seen, blind = (examine(model, lessons, range(40), blind=hidden) for hidden in (False, True))
    assert seen["all"].rate > 0.75
    assert seen["where"].rate > 0.7
    assert blind["needs the picture"].rate < 0.35
