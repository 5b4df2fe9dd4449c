"""Instructions and the same in plain words, things told by what is known of them called by their names: what a robot says to itself before it acts.

    in plain words: seize the extinct animal → pick up the dodo
    in plain words: shove the lion to the left → push the lion left

"Plan" in RT-2 (Zitkovich et al. 2023, §4.4). Made of lessons, so the robot's own data stay without such meanings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ornstein.assets.knowledge import concepts
from ornstein.assets.tabletop import DIRECTIONS, language
from ornstein.data.questions import place_tokens
from ornstein.simulation.tabletop.splits import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from ornstein.data.questions import Lesson, Question

_OF_ONE_BLOCK = ("pick", "push", "place_in_bowl")
_CHAINED = 0.3


class Plan(NamedTuple):
    """An instruction, and the same in plain words: names for meanings, numbers for sums, the first wording of each skill."""

    instruction: str
    plain: str


def plan_question(instruction: str) -> str:
    """How a model is asked for the plan."""
    return f"in plain words: {instruction.strip().rstrip('.?!')}"


def plan_of(lesson: Lesson, rng: np.random.Generator) -> Plan:
    """About a thing that the lesson's picture shows and one of its questions tells by its meaning; where none does, in names alone."""
    for question in lesson.questions:
        meant = _named(lesson, question)
        if meant is not None:
            first = _told(*meant, rng)
            if rng.random() >= _CHAINED:
                return first
            second = _plain(rng)
            joint = _choice(language()["joints"]["seen"], rng)
            return Plan(*(joint.format(first=a, second=b) for a, b in zip(first, second, strict=True)))
    return _in_names(lesson, rng)


def _in_names(lesson: Lesson, rng: np.random.Generator) -> Plan:
    """Any skill, of things that the picture shows if it shows any."""
    skill = _choice(tuple(language()["skills"]), rng)
    shown = [item.name for item in lesson.picture.items if item.kind == "drawing"]
    spare = [name for name in words("seen").objects if name not in shown]
    names = [*shown, *(str(name) for name in rng.choice(spare, 2, replace=False))]
    moved, *others = names if len(shown) < 2 else (str(name) for name in rng.permutation(shown))
    kind = _choice(("number", "colour", "symbol"), rng)
    seen = words("seen")
    value = _choice({"number": seen.numbers, "colour": seen.colours, "symbol": seen.symbols}[kind], rng)
    ways = language()["mats"][kind]
    mats = _choice(ways, rng).format(value=value), ways[0].format(value=value)
    return _both(skill, moved, moved, rng, reference=others[0], mats=mats)


def _named(lesson: Lesson, question: Question) -> tuple[str, str] | None:
    """What a question means and what it is: ("extinct animal", "dodo"), ("5 minus 1", "4")."""
    if question.kind == "concept":
        (noun,) = (one.noun for one in concepts().values() if question.text.startswith(f"which one {one.question}?"))
        return noun.removeprefix("the "), question.answer.split(",")[0].removeprefix("the ")
    if question.kind == "sum place":
        (result,) = (item for item in lesson.picture.items if place_tokens(item.x, item.y) == question.answer)
        return question.text.removeprefix("where is number ").removesuffix("?"), result.name
    return None


def _told(meaning: str, name: str, rng: np.random.Generator) -> Plan:
    if re.search(r" (plus|minus) ", meaning):
        block = _choice(words("seen").objects, rng)
        return _both("place_on_mat", block, block, rng, mats=(meaning, f"number {name}"))
    return _both(_choice(_OF_ONE_BLOCK, rng), meaning, name, rng)


def _plain(rng: np.random.Generator) -> Plan:
    """A further task, of a thing that is called by its name."""
    name = _choice(words("seen").objects, rng)
    return _both(_choice(_OF_ONE_BLOCK, rng), name, name, rng)


def _both(
    skill: str, called: str, name: str, rng: np.random.Generator, *, reference: str = "", mats: tuple[str, str] = ("", "")
) -> Plan:
    """A skill in any wording, its object called so; and in its first wording, by that name. mats: how the mat is called in either."""
    templates, ways = language()["skills"][skill]["seen"], language()["directions"][_choice(tuple(DIRECTIONS), rng)]
    said = _choice(templates, rng).format(object=called, direction=_choice(ways, rng), reference=reference, mat=mats[0])
    return Plan(said, templates[0].format(object=name, direction=ways[0], reference=reference, mat=mats[1]))


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
