"""Sentences for tasks, from templates with paraphrases (`assets/tabletop_language.json`)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from ornstein.assets.tabletop import language

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from ornstein.simulation.tabletop.scene import Block, Mat, Task

Phrasing = Literal["seen", "unseen"]


class Spoken(NamedTuple):
    """What stands in a sentence for the moved block's name ("extinct animal") and for the mat ("two plus two"), if not what they are called."""

    block: str | None = None
    mat: str | None = None


def instruct(
    tasks: Sequence[Task],
    blocks: Sequence[Block],
    mats: Sequence[Mat],
    rng: np.random.Generator,
    phrasing: Phrasing = "seen",
    spoken: Sequence[Spoken] | None = None,
) -> str:
    """One sentence for all tasks in their order, in a wording drawn uniformly.

    Args:
        spoken: how each task speaks of its things; by their names unless given.
    """
    ways = [Spoken()] * len(tasks) if spoken is None else spoken
    clauses = [_clause(task, blocks, mats, rng, phrasing, way) for task, way in zip(tasks, ways, strict=True)]
    sentence = clauses[0]
    for clause in clauses[1:]:
        # A chain of three reads "a, then b; after that, c": the first joint's "first …" would be said twice.
        joints = [joint for joint in language()["joints"][phrasing] if sentence is clauses[0] or joint.startswith("{first}")]
        joints = joints or language()["joints"]["seen"][:2]
        sentence = _choice(joints, rng).format(first=sentence, second=clause)
    return sentence


def _clause(
    task: Task, blocks: Sequence[Block], mats: Sequence[Mat], rng: np.random.Generator, phrasing: Phrasing, way: Spoken
) -> str:
    data = language()
    filled: dict[str, str] = {}
    if task.block is not None:
        filled["object"] = way.block or blocks[task.block].name
    if task.reference is not None:
        filled["reference"] = blocks[task.reference].name
    if task.direction is not None:
        filled["direction"] = _choice(data["directions"][task.direction], rng)
    if task.mat is not None:
        mat = mats[task.mat]
        called = _choice(data["mats"][mat.kind], rng).format(value=mat.value)
        filled["mat"] = way.mat or called
    return _choice(data["skills"][task.skill][phrasing], rng).format(**filled)


def _choice(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def is_unseen(sentence: str) -> bool:
    """Whether it contains a wording that is for evaluation only."""
    return any(pattern.search(sentence) for pattern in _unseen_patterns())


@lru_cache(maxsize=1)
def _unseen_patterns() -> tuple[re.Pattern[str], ...]:
    data = language()
    templates = [t for skill in data["skills"].values() for t in skill["unseen"]] + data["joints"]["unseen"]
    return tuple(re.compile(".+".join(re.escape(part) for part in re.split(r"\{\w+\}", t))) for t in templates)
