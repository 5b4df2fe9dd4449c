"""Questions have the answers that the plain data give, and keep apart what training sees and what it does not."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from ornstein.assets.knowledge import concepts
from ornstein.core.errors import DataError, UnknownNameError
from ornstein.data.naming import plural
from ornstein.data.questions import QUESTION_KINDS, Lesson, Lessons, Question, called, place_of, place_tokens
from ornstein.data.spoken_tasks import SpokenTasks
from ornstein.data.web_pictures import WebItem
from ornstein.simulation.tabletop.splits import words

_NUMBERS = {word: k for k, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"])}
_A = r"(?:an? )?"


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    return [Lessons(seed=5).at(k) for k in range(1500)]


def _asked(lessons: list[Lesson], *kinds: str) -> list[tuple[Lesson, Question]]:
    return [(lesson, question) for lesson in lessons for question in lesson.questions if question.kind in kinds]


def _names(lesson: Lesson) -> list[str]:
    return [_name(item) for item in lesson.picture.items]


def _name(item: WebItem) -> str:
    return {"number": f"number {item.name}", "colour": f"{item.name} card"}.get(item.kind, item.name)


def test_every_kind_is_asked(lessons: list[Lesson]) -> None:
    counts = Counter(question.kind for lesson in lessons for question in lesson.questions)
    assert set(counts) == set(QUESTION_KINDS)
    assert min(counts.values()) > 50
    assert all(1 <= len(lesson.questions) <= 4 for lesson in lessons)
    assert all(len({question.text for question in lesson.questions}) == len(lesson.questions) for lesson in lessons)


def test_what_is_where(lessons: list[Lesson]) -> None:
    """A place's two tokens are within half a cell of the thing that is named; the way back names the thing."""
    for lesson, question in _asked(lessons, "where"):
        name = re.sub(r"^(where is|find|point at) (the )?|\?$", "", question.text)
        (item,) = (item for item in lesson.picture.items if _name(item) == name)
        assert np.abs(np.subtract(place_of(question.answer), (item.x, item.y))).max() <= 1 / 64 + 1e-9
    for lesson, question in _asked(lessons, "place"):
        at = place_of(question.text.split(" at ")[1].rstrip("?"))
        nearest = min(lesson.picture.items, key=lambda item: (item.x - at[0]) ** 2 + (item.y - at[1]) ** 2)
        assert re.sub(f"^{_A}", "", question.answer) == _name(nearest)


def test_what_is_there(lessons: list[Lesson]) -> None:
    for lesson, question in _asked(lessons, "presence"):
        name = re.sub(rf"^(do|can) you see {_A}|\?$", "", question.text)
        assert question.answer == ("yes" if name in _names(lesson) else "no")
    answers = Counter(question.answer for _, question in _asked(lessons, "presence", "fact"))
    assert 0.4 < answers["yes"] / answers.total() < 0.6
    for lesson, question in _asked(lessons, "count"):
        counted = {plural(name): k for name, k in Counter(_names(lesson)).items()} | {"things": len(lesson.picture.items)}
        assert int(question.answer) == counted[question.text.removeprefix("how many ").removesuffix(" are there?")]
    for lesson, question in _asked(lessons, "caption"):
        assert all(name in question.answer for name in _names(lesson))


def test_one_thing_alone_fits_a_concept(lessons: list[Lesson]) -> None:
    by_question = {concept.question: concept for concept in concepts().values()}
    by_noun = {concept.noun: concept for concept in concepts().values()}
    for lesson, question in _asked(lessons, "concept"):
        concept = by_question[re.sub(r"^which one |\?( why\?)?$", "", question.text)]
        fitting = [name for name in _names(lesson) if name in concept.members]
        assert question.answer.split(", because ")[0] == f"the {fitting[0]}"
        assert len(fitting) == 1
        assert all(name in concept.others for name in _names(lesson) if name != fitting[0])
        assert ("why" in question.text) == (", because " in question.answer)
    for lesson, question in _asked(lessons, "concept place"):
        concept = by_noun[re.sub(r"^(where is|find|point at) |\?$", "", question.text)]
        (item,) = (item for item in lesson.picture.items if item.name in concept.members)
        assert np.abs(np.subtract(place_of(question.answer), (item.x, item.y))).max() <= 1 / 64 + 1e-9


def _fact(question: Question) -> tuple[str, str]:
    """(concept's noun, name) that it asks about."""
    match = re.fullmatch(r"(?:is|are) the (.+?) an? (.+)\?", question.text)
    assert match is not None
    return f"the {match[2]}", match[1]


def test_facts_are_the_concepts_own(lessons: list[Lesson]) -> None:
    by_noun = {concept.noun: concept for concept in concepts().values()}
    for _, question in _asked(lessons, "fact"):
        noun, name = _fact(question)
        assert name in (by_noun[noun].members if question.answer == "yes" else by_noun[noun].others)


def _sum_in(text: str) -> tuple[int, str, int]:
    match = re.search(r"(\w+) (plus|minus) (\w+)", text)
    assert match is not None
    first, second = (_NUMBERS[part] if part in _NUMBERS else int(part) for part in (match[1], match[3]))
    return first, match[2], second


def test_sums_are_right(lessons: list[Lesson]) -> None:
    for lesson, question in _asked(lessons, "arithmetic", "sum place"):
        first, sign, second = _sum_in(question.text)
        result = first + second if sign == "plus" else first - second
        if question.kind == "arithmetic":
            assert question.answer == str(result)
        else:
            (item,) = (item for item in lesson.picture.items if _name(item) == f"number {result}")
            assert np.abs(np.subtract(place_of(question.answer), (item.x, item.y))).max() <= 1 / 64 + 1e-9


def test_sides_and_sizes(lessons: list[Lesson]) -> None:
    axis = {"to the left of": (0, -1), "to the right of": (0, 1), "above": (1, -1), "below": (1, 1)}
    for lesson, question in _asked(lessons, "side"):
        word = next(word for word in axis if word in question.text)
        (of,) = (item for item in lesson.picture.items if question.text == f"what is {word} {called(item)}?")
        which, sign = axis[word]
        beyond = [item for item in lesson.picture.items if sign * ((item.x, item.y)[which] - (of.x, of.y)[which]) > 0]
        assert re.sub(f"^{_A}", "", question.answer) == _name(beyond[0])
        assert len(beyond) == 1
    for lesson, question in _asked(lessons, "size"):
        sizes = {_name(item): item.size for item in lesson.picture.items}
        first, second = (re.sub("^the ", "", part) for part in question.text.rstrip("?").split(", ")[1].split(" or "))
        wanted = (max if "larger" in question.text else min)(first, second, key=sizes.__getitem__)
        assert re.sub("^the ", "", question.answer) == wanted


def test_a_lesson_is_a_function_of_seed_split_and_number() -> None:
    assert Lessons(seed=2).at(7) == Lessons(seed=2).at(7)
    others = [Lessons(seed=3).at(7), Lessons(seed=2).at(8), Lessons(seed=2, split="validation").at(7)]
    assert all(other != Lessons(seed=2).at(7) for other in others)


def test_held_out_facts_and_sums_are_asked_for_in_their_own_split_only(lessons: list[Lesson]) -> None:
    held_out = [Lessons(seed=5, split="held-out").at(k) for k in range(1500)]

    def sums(of: list[Lesson]) -> set[tuple[object, ...]]:
        return {
            (*sorted((a, b)), s) if s == "plus" else (a, s, b)
            for a, s, b in (_sum_in(q.text) for _, q in _asked(of, "arithmetic", "sum place"))
        }

    def facts(of: list[Lesson]) -> set[tuple[str, str]]:
        yes = {_fact(q) for _, q in _asked(of, "fact") if q.answer == "yes"}
        by_question = {concept.question: concept.noun for concept in concepts().values()}
        told = {
            (by_question[re.sub(r"^which one |\?( why\?)?$", "", q.text)], q.answer.split(", because ")[0].removeprefix("the "))
            for _, q in _asked(of, "concept")
        }
        return yes | told

    assert len(sums(lessons)) > 30
    assert len(sums(held_out)) >= 3
    assert not sums(lessons) & sums(held_out)
    assert len(facts(held_out)) > 10
    assert not facts(lessons) & facts(held_out)


def test_web_data_know_more_than_robot_data_and_nothing_that_is_kept_from_all(lessons: list[Lesson]) -> None:
    """Neither shown, nor said, nor painted."""
    kept, web_only = words("held_out"), words("web_only")
    nouns = [concept.noun for concept in concepts().values() if concept.held_out]
    names = (*kept.objects, *kept.symbols, *kept.numbers, *kept.colours, "zero", "nine", *nouns)
    unknown = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    shown, painted, said = set(), set(), []
    for lesson in [*lessons, *(Lessons(split="held-out").at(k) for k in range(300))]:
        shown |= {item.name for item in lesson.picture.items}
        painted |= {item.color for item in lesson.picture.items}
        said += [f"{question.text} {question.answer}" for question in lesson.questions]
    assert not (shown | painted) & {*kept.objects, *kept.symbols, *kept.numbers, *kept.colours}
    assert not [text for text in said if unknown.search(re.sub(r"<[xy]\d+>", "", text))]
    assert {*web_only.objects, *web_only.numbers, *web_only.colours} <= shown
    spoken = " | ".join(SpokenTasks(4000).sentences())
    robots = re.compile(
        "|".join(rf"\b{re.escape(word)}\b" for word in (*web_only.objects, *(c.noun for c in concepts().values())))
    )
    assert not robots.search(spoken)


def test_a_concept_can_be_left_out() -> None:
    every, fewer = Lessons(seed=1), Lessons(seed=1, without=("extinct",))
    texts = [" ".join(q.text + q.answer for q in of.at(k).questions) for of in (every, fewer) for k in range(1200)]
    assert any("extinct" in text for text in texts[:1200])
    assert not any("extinct" in text for text in texts[1200:])


def test_places_and_tokens() -> None:
    assert place_tokens(-1, 0.999) == "<x0> <y63>"
    assert place_tokens(-3, 3) == "<x0> <y63>"
    for text in ("<x64> <y0>", "<y1> <x1>", "<x1>", "<x> <y1>", "here", "<x1> <y2> <x3>", "<x²> <y1>"):
        with pytest.raises(DataError, match="two tokens like"):
            place_of(text)
    rng = np.random.default_rng(0)
    for x, y in rng.uniform(-1, 1, (50, 2)):
        assert np.abs(np.subtract(place_of(place_tokens(x, y)), (x, y))).max() <= 1 / 64


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="at least one question"):
        Lessons(questions=0)
    with pytest.raises(UnknownNameError, match="split"):
        Lessons(split="test")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="concept"):
        Lessons(without=("extinkt",))
    with pytest.raises(DataError, match="numbered from 0"):
        Lessons().at(-1)
