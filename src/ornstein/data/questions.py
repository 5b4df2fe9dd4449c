"""Questions about pictures with their answers: the vision-language data ("web") that a robot's policy is trained on beside its episodes.

A lesson is one picture and some questions about it, a pure function of (seed, split, number). Places are answered in location tokens, one for
the column and one for the row ("<x12> <y40>"), as PaLI and PaliGemma do with theirs. Facts of arithmetic and of concepts are divided once for
all: a fixed share of them is asked about in the held-out split only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from ornstein.assets.knowledge import Concept, concepts
from ornstein.core.errors import DataError, unknown_name
from ornstein.data.naming import UNCOUNTED_NAMES, indefinite, plural
from ornstein.data.scenes import is_held_out
from ornstein.data.web_pictures import (
    MOST_ITEMS,
    WebItem,
    WebPicture,
    lay_out,
    name_of,
    random_item,
    web_colours,
    web_names,
    web_numbers,
)
from ornstein.simulation.tabletop.meanings import spoken_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Split = Literal["train", "validation", "held-out"]
QuestionKind = Literal[
    "name", "place", "where", "presence", "concept", "concept place", "fact", "count", "number", "arithmetic", "sum place", "side", "size", "colour", "caption"
]  # fmt: skip
QUESTION_KINDS: tuple[QuestionKind, ...] = get_args(QuestionKind)
#: Columns and rows that location tokens tell apart.
PLACES = 64
#: Of facts and sums.
_HELD_OUT = 0.2
#: Concepts with fewer members would lose what holds them together.
_FEWEST_MEMBERS = 4
_STREAMS = {"train": 0, "validation": 1, "held-out": 2}


class Question(NamedTuple):
    """kind: what it is about. text, answer: without the marks that a model puts around them. blind: whether it can be answered without the picture."""

    kind: QuestionKind
    text: str
    answer: str
    blind: bool = False


class Lesson(NamedTuple):
    """A picture and what is asked about it."""

    picture: WebPicture
    questions: tuple[Question, ...]


def place_of(text: str) -> tuple[float, float]:
    """The place that an answer names, (column, row) in −1 … 1.

    Raises:
        DataError: it names none.
    """
    found = re.fullmatch(r"<x(\d{1,2})> <y(\d{1,2})>", text)
    if found is None or max(int(part) for part in found.groups()) >= PLACES:
        raise DataError(f"a place is two tokens like '<x12> <y40>', got {text!r}")
    x, y = ((int(part) + 0.5) / PLACES * 2 - 1 for part in found.groups())
    return x, y


def place_tokens(x: float, y: float) -> str:
    """A place in tokens; what lies outside the picture is moved to its edge.

    Args:
        x, y: (column, row) in −1 … 1.
    """
    column, row = (min(max(int((part + 1) / 2 * PLACES), 0), PLACES - 1) for part in (x, y))
    return f"<x{column}> <y{row}>"


def called(item: WebItem) -> str:
    """How a question speaks of it: "the lion", "number 3", "the red card"."""
    return name_of(item) if item.kind == "number" else f"the {name_of(item)}"


def is_fact_held_out(concept: Concept, name: str) -> bool:
    """Whether a concept's member is asked about in the held-out split only."""
    return len(concept.members) >= _FEWEST_MEMBERS and is_held_out("fact", concept.name, name, share=_HELD_OUT)


def is_sum_held_out(first: int, sign: str, second: int) -> bool:
    """Whether a sum is asked for in the held-out split only."""
    terms = (first, second) if sign == "minus" else sorted((first, second))
    return is_held_out("sum", *terms, sign, share=_HELD_OUT)


class Lessons:
    """A stream of lessons."""

    def __init__(
        self,
        *,
        seed: int = 0,
        split: Split = "train",
        questions: int = 4,
        without: Collection[str] = (),
    ) -> None:
        """
        Args:
            questions: at most so many about a picture. without: concepts that nothing is asked about; their members are still shown.

        Raises:
            DataError: no questions. UnknownNameError: no such split or concept.
        """
        if questions < 1:
            raise DataError(f"a lesson asks at least one question, got {questions}")
        asked: list[tuple[str, str, Collection[str]]] = [("split", split, _STREAMS)]
        asked += [("concept", concept, concepts()) for concept in without]
        for what, name, known in asked:
            if name not in known:
                raise unknown_name(what, name, list(known))
        self.seed, self.split, self.questions = seed, split, questions
        self._concepts = tuple(one for name, one in concepts().items() if name not in without and not one.held_out)

    def at(self, index: int) -> Lesson:
        """Lesson number `index` of the stream.

        Raises:
            DataError: a negative number.
        """
        if index < 0:
            raise DataError(f"lessons are numbered from 0, got {index}")
        rng = np.random.default_rng([self.seed, _STREAMS[self.split], index, 61])
        while True:
            teller = _Teller(rng, self.split == "held-out", self._concepts)
            asked = self._asked(teller, rng)
            if asked:
                return Lesson(teller.picture, tuple(asked))

    def _asked(self, teller: _Teller, rng: np.random.Generator) -> list[Question]:
        """First what the picture was made for, then of other kinds as far as they go; each question once."""
        asked: dict[str, Question] = {}
        shuffled = [QUESTION_KINDS[int(k)] for k in rng.permutation(len(QUESTION_KINDS))]
        for kind in sorted(shuffled, key=lambda kind: kind not in _MADE_FOR):
            question = _ASK[kind](teller)
            if question is not None:
                asked.setdefault(question.text, question)
            if len(asked) == self.questions:
                break
        return list(asked.values())


class _Teller:
    """What a picture shows, and what can be asked about it. Each question returns None where there is nothing of its kind to ask."""

    def __init__(self, rng: np.random.Generator, held_out: bool, known: tuple[Concept, ...]) -> None:
        self.rng, self.held_out, self.known = rng, held_out, known
        #: What this picture was made to ask: a concept with one member among others, or a sum whose result lies there.
        self.concept: Concept | None = None
        self.answer = ""
        self.sum: tuple[int, str, int] | None = None
        self.picture = lay_out(self._items(), rng)
        self.items = self.picture.items

    def _items(self) -> list[WebItem]:
        rng, draw = self.rng, self.rng.random()
        if draw < 0.15:
            return [self._any()]
        if draw < 0.5 and self.known:
            return self._around_a_concept()
        if draw < 0.6:
            name = self._pick([name for name in web_names() if name not in UNCOUNTED_NAMES])
            others = [item for item in (self._any() for _ in range(int(rng.integers(0, 3)))) if item.name != name]
            return [*(random_item(rng, "drawing", name) for _ in range(int(rng.integers(2, 5)))), *others][:MOST_ITEMS]
        if draw < 0.75:
            return self._around_a_sum()
        found: dict[tuple[str, str], WebItem] = {}
        for item in (self._any() for _ in range(int(rng.integers(2, MOST_ITEMS + 1)))):
            found.setdefault((item.kind, item.name), item)
        return list(found.values())

    def _around_a_concept(self) -> list[WebItem]:
        """One of which it is true among some of which it is false."""
        rng = self.rng
        concept = self.known[int(rng.integers(len(self.known)))]
        members = [name for name in concept.members if name in web_names() and is_fact_held_out(concept, name) == self.held_out]
        others = [name for name in concept.others if name in web_names()]
        if not members:
            return [self._any()]
        self.concept, self.answer = concept, self._pick(members)
        chosen = [str(name) for name in rng.choice(others, min(int(rng.integers(1, 5)), len(others)), replace=False)]
        names = [self.answer, *chosen]
        return [random_item(rng, "drawing", names[k]) for k in rng.permutation(len(names))]

    def _around_a_sum(self) -> list[WebItem]:
        """Numbers, one of which is a sum that can be asked for."""
        rng = self.rng
        values = sorted(int(number) for number in web_numbers())
        sums = [(a, sign, b) for a in values for b in values for sign in ("plus", "minus") if _value(a, sign, b) in values]
        fitting = [one for one in sums if is_sum_held_out(*one) == self.held_out]
        self.sum = fitting[int(rng.integers(len(fitting)))]
        result = str(_value(*self.sum))
        others = [number for number in web_numbers() if number != result]
        chosen = [str(name) for name in rng.choice(others, int(rng.integers(1, 4)), replace=False)]
        names = [result, *chosen]
        items = [random_item(rng, "number", names[k]) for k in rng.permutation(len(names))]
        return [*items, *(self._any("drawing") for _ in range(int(rng.integers(0, 3))))][:MOST_ITEMS]

    def _any(self, kind: str = "") -> WebItem:
        draw = self.rng.random()
        if kind == "drawing" or draw < 0.7:
            return random_item(self.rng, "drawing", self._pick(web_names()))
        if draw < 0.85:
            return random_item(self.rng, "number", self._pick(web_numbers()))
        return random_item(self.rng, "colour", self._pick(web_colours()))

    def _pick(self, options: Collection[str]) -> str:
        return list(options)[int(self.rng.integers(len(options)))]

    def _say(self, *templates: str, **filled: str) -> str:
        return self._pick(templates).format(**filled)

    def _single(self) -> list[WebItem]:
        """What is there once."""
        return [item for item in self.items if sum((one.kind, one.name) == (item.kind, item.name) for one in self.items) == 1]

    def _one(self, items: list[WebItem]) -> WebItem | None:
        return items[int(self.rng.integers(len(items)))] if items else None

    def name(self) -> Question | None:
        if len(self.items) != 1:
            return None
        return Question("name", self._say("what is this?", "what do you see?", "what does the picture show?"), _a(self.items[0]))

    def place(self) -> Question | None:
        item = self._one(list(self.items))
        assert item is not None
        return Question("place", self._say("what is at {at}?", "what lies at {at}?", at=place_tokens(item.x, item.y)), _a(item))

    def where(self) -> Question | None:
        item = self._one(self._single())
        if item is None:
            return None
        text = self._say("where is {it}?", "find {it}", "point at {it}", it=called(item))
        return Question("where", text, place_tokens(item.x, item.y))

    def presence(self) -> Question | None:
        there = self.rng.random() < 0.5
        item = self._one(list(self.items)) if there else self._any()
        assert item is not None
        found = any((one.kind, one.name) == (item.kind, item.name) for one in self.items)
        text = self._say("do you see {it}?", "can you see {it}?", it=_a(item))
        return Question("presence", text, "yes" if found else "no")

    def which(self) -> Question | None:
        if self.concept is None:
            return None
        subject = f"the {self.answer}"
        text = f"which one {self.concept.question}?"
        if self.rng.random() < 0.5:
            return Question("concept", f"{text} why?", f"{subject}, because {self.concept.because}")
        return Question("concept", text, subject)

    def which_place(self) -> Question | None:
        if self.concept is None:
            return None
        (item,) = (item for item in self.items if item.name == self.answer)
        text = self._say("where is {it}?", "find {it}", "point at {it}", it=self.concept.noun)
        return Question("concept place", text, place_tokens(item.x, item.y))

    def fact(self) -> Question | None:
        """Of a thing that need not be there."""
        if not self.known:
            return None
        concept = self.known[int(self.rng.integers(len(self.known)))]
        true = self.rng.random() < 0.5
        names = [name for name in (concept.members if true else concept.others) if name in web_names()]
        if true:
            names = [name for name in names if is_fact_held_out(concept, name) == self.held_out]
        if not names:
            return None
        name = self._pick(names)
        verb = "are" if name in UNCOUNTED_NAMES and name.endswith("s") else "is"
        text = f"{verb} the {name} {indefinite(concept.noun.removeprefix('the '))}?"
        return Question("fact", text, "yes" if true else "no", blind=True)

    def count(self) -> Question | None:
        countable = [item for item in self.items if item.kind == "drawing" and item.name not in UNCOUNTED_NAMES]
        item = self._one(countable)
        if item is None or self.rng.random() < 0.3:
            return Question("count", "how many things are there?", str(len(self.items)))
        number = sum(one.name == item.name for one in countable)
        return Question("count", f"how many {plural(item.name)} are there?", str(number))

    def number(self) -> Question | None:
        numbers = [item for item in self.items if item.kind == "number"]
        if len(numbers) != 1:
            return None
        return Question("number", self._say("which number do you see?", "what is the number?"), numbers[0].name)

    def arithmetic(self) -> Question | None:
        """A sum in words or digits; the picture does not help."""
        if self.sum is None:
            return None
        return Question("arithmetic", f"what is {self._sum()}?", str(_value(*self.sum)), blind=True)

    def sum_place(self) -> Question | None:
        if self.sum is None:
            return None
        (item,) = (item for item in self.items if item.kind == "number" and item.name == str(_value(*self.sum)))
        return Question("sum place", f"where is number {self._sum()}?", place_tokens(item.x, item.y))

    def _sum(self) -> str:
        assert self.sum is not None
        return spoken_sum(*self.sum, self.rng)

    def side(self) -> Question | None:
        """What stands on one side of another, where nothing else does."""
        item = self._one(self._single())
        if item is None:
            return None
        sides: dict[str, Callable[[WebItem], float]] = {
            "to the left of": lambda other: item.x - other.x,
            "to the right of": lambda other: other.x - item.x,
            "above": lambda other: item.y - other.y,
            "below": lambda other: other.y - item.y,
        }
        word = self._pick(list(sides))
        gaps = sorted((sides[word](other), k) for k, other in enumerate(self.items) if other is not item)
        there = [k for gap, k in gaps if gap > 0.15]
        if len(there) != 1 or any(abs(gap) <= 0.15 for gap, _ in gaps):
            return None
        return Question("side", f"what is {word} {called(item)}?", _a(self.items[there[0]]))

    def size(self) -> Question | None:
        single = self._single()
        if len(single) < 2:
            return None
        first, second = (single[int(k)] for k in self.rng.choice(len(single), 2, replace=False))
        if max(first.size, second.size) < 1.25 * min(first.size, second.size):
            return None
        word = self._pick(["larger", "smaller"])
        larger, smaller = (first, second) if first.size > second.size else (second, first)
        text = f"which is {word} in the picture, {called(first)} or {called(second)}?"
        return Question("size", text, called(larger if word == "larger" else smaller))

    def colour(self) -> Question | None:
        item = self._one([item for item in self._single() if item.color])
        return None if item is None else Question("colour", f"what colour is {called(item)}?", item.color)

    def caption(self) -> Question | None:
        names = list(dict.fromkeys(_a(item) for item in sorted(self.items, key=lambda item: (item.y, item.x))))
        if len(names) < len(self.items):
            return None
        text = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
        return Question("caption", self._say("what is in the picture?", "describe the picture"), text)


_ASK: dict[QuestionKind, Callable[[_Teller], Question | None]] = {
    "name": _Teller.name,
    "place": _Teller.place,
    "where": _Teller.where,
    "presence": _Teller.presence,
    "concept": _Teller.which,
    "concept place": _Teller.which_place,
    "fact": _Teller.fact,
    "count": _Teller.count,
    "number": _Teller.number,
    "arithmetic": _Teller.arithmetic,
    "sum place": _Teller.sum_place,
    "side": _Teller.side,
    "size": _Teller.size,
    "colour": _Teller.colour,
    "caption": _Teller.caption,
}


#: Asked first: most pictures have nothing of the kind.
_MADE_FOR: frozenset[QuestionKind] = frozenset({"concept", "concept place", "arithmetic", "sum place", "side"})


def _a(item: WebItem) -> str:
    """With the indefinite article where there is one: "a lion", "number 3", "a red card"."""
    return name_of(item) if item.kind == "number" else indefinite(name_of(item))


def _value(first: int, sign: str, second: int) -> int:
    return first + second if sign == "plus" else first - second
