"""A plan says in plain words what an instruction means, and what it says is so by the committed facts."""

from __future__ import annotations

import re

import numpy as np

from ornstein.assets.knowledge import concepts
from ornstein.assets.tabletop import language
from ornstein.core.errors import DataError
from ornstein.data.plans import plan_of, plan_question
from ornstein.data.questions import Lessons
from ornstein.data.web_pictures import name_of, web_names
from ornstein.policies.grammar import goals_of
from ornstein.simulation.tabletop.splits import words


def _plans(count: int = 300, **changes: object) -> list[tuple[list[str], str, str]]:
    stream, found = Lessons(seed=3, **changes), []  # type: ignore[arg-type]
    for k in range(count):
        lesson = stream.at(k)
        plan = plan_of(lesson, np.random.default_rng([k, 5]))
        found.append(([name_of(item) for item in lesson.picture.items], *plan))
    return found


def _in_names(said: str, plain: str) -> bool:
    """Whether both are of things that are called by their names, by the grammar of the classical pipeline."""
    objects = [*web_names(), *words("seen").objects]
    try:
        goals = [goals_of(sentence, objects, words("seen").symbols, words("seen").colours) for sentence in (said, plain)]
    except DataError:
        return False
    return goals[0] == goals[1]


def test_what_a_plan_names_is_there_and_is_what_was_meant() -> None:
    plans = _plans()
    kinds = {"concept": 0, "sum": 0, "chain": 0, "names": 0}
    for names, said, plain in plans:
        if _in_names(said, plain):
            kinds["names"] += 1
            continue
        total = re.search(r"(\w+) (plus|minus) (\w+)", said)
        if total is not None:
            number = re.search(r"number (\d)", plain)
            assert number is not None
            assert f"number {number[1]}" in names
            kinds["sum"] += 1
        else:
            true = [
                one
                for one in concepts().values()
                if re.search(rf"\b{re.escape(one.noun.removeprefix('the '))}\b", said)
                and any(re.search(rf"\b{re.escape(name)}\b", plain) for name in one.members if name in names)
            ]
            assert true, (said, plain)
            kinds["concept"] += 1
        kinds["chain"] += "then" in plain or "after that" in plain
        # The first clause is in the first wording of its skill.
        assert re.match(r"(first )?(pick up the|push the|put the)", plain)
    assert min(kinds.values()) > 10
    assert kinds["names"] > 100


def test_a_plan_is_a_function_of_the_lesson_and_the_generator() -> None:
    assert _plans(40) == _plans(40)
    assert not [said for _, said, _ in _plans(300, without=("extinct",)) if "extinct" in said]


def test_no_unseen_wording_is_used() -> None:
    unseen = [part for skill in language()["skills"].values() for part in skill["unseen"]]
    fixed = [max(re.split(r"\{\w+\}", template), key=len).strip() for template in unseen]
    for _, said, plain in _plans(200):
        assert not any(part in said or part in plain for part in fixed if len(part) > 12)


def test_the_question_is_one_line() -> None:
    assert plan_question(" Seize the bird. ") == "in plain words: Seize the bird"
