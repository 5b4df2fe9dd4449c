"""Scenes that ask for a thing by what is known of it and not by its name: "the extinct animal", "two plus two", "the peace symbol".

What names mean a robot's data show; these meanings they never show. So who does what is asked knows it from elsewhere (Zitkovich et al. 2023,
"RT-2", §4.2: symbols, reasoning, recognition).
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from ornstein.assets.knowledge import Concept, concepts
from ornstein.core.errors import DataError
from ornstein.simulation.tabletop.instructions import Spoken
from ornstein.simulation.tabletop.splits import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from ornstein.simulation.tabletop.scene import Block, Mat, MatKind, Scene

Meaning = Literal["name", "category", "reason", "symbol", "sum"]
_TRIES = 500
_LARGEST_TERM = 8
NUMBER_WORDS = dict(enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight"), 1))
_KINDS = {"category": ("category",), "reason": ("attribute", "purpose")}


class Meant(NamedTuple):
    """Blocks and mats, and how each task speaks of its own."""

    blocks: tuple[Block, ...]
    mats: tuple[Mat, ...]
    spoken: tuple[Spoken, ...]


def meant(scene: Scene, rng: np.random.Generator, meaning: Meaning) -> Meant:
    """A scene of seen things with what is asked for made such as that meaning tells: of one thing only.

    category, reason: every moved block becomes a web-only object that a concept is true of; the other blocks become things of which it is false.
    symbol: the mats that are asked for get web-only symbols, the others seen ones. sum: mats are numbered, and asked for by a sum. All else stays as it is.

    Raises:
        DataError: there is nothing in the scene that could be asked for so.
    """
    match meaning:
        case "name":
            return Meant(scene.blocks, scene.mats, tuple(Spoken() for _ in scene.tasks))
        case "category" | "reason":
            return _by_concept(scene, rng, _KINDS[meaning])
        case "symbol" | "sum":
            if any(task.mat is None for task in scene.tasks):
                raise DataError(f"the meaning {meaning!r} is one of mats: ask for place_on_mat alone")
            return _by_symbol(scene, rng) if meaning == "symbol" else _by_sum(scene, rng)


@lru_cache(maxsize=4)
def askable(kinds: tuple[str, ...]) -> tuple[Concept, ...]:
    """Concepts of these kinds, not held out, that are true of a web-only object, and false of enough others to fill a table."""
    seen, web = set(words("seen").objects), set(words("web_only").objects)
    return tuple(
        concept
        for concept in concepts().values()
        if concept.kind in kinds
        and not concept.held_out
        and set(concept.members) & web
        and len(set(concept.others) & (seen | web)) >= 4
    )


def _by_concept(scene: Scene, rng: np.random.Generator, kinds: tuple[str, ...]) -> Meant:
    seen, web = set(words("seen").objects), set(words("web_only").objects)
    moved = [task.block for task in scene.tasks]
    if any(block is None for block in moved):
        raise DataError("a concept is one of blocks: ask for skills that move one")
    options = askable(kinds)
    for _ in range(_TRIES):
        chosen = [options[int(k)] for k in rng.choice(len(options), len(moved), replace=False)]
        targets = [_one(sorted(set(concept.members) & web), rng) for concept in chosen]
        false = set.intersection(*(set(concept.others) for concept in chosen)) & (seen | web)
        lone = all(
            target in concept.others
            for target, own in zip(targets, chosen, strict=True)
            for concept in chosen
            if concept is not own
        )
        rest = sorted(false - set(targets))
        if lone and len(rest) >= len(scene.blocks) - len(moved):
            drawn = iter(str(name) for name in rng.choice(rest, len(scene.blocks) - len(moved), replace=False))
            names = [targets[moved.index(k)] if k in moved else next(drawn) for k in range(len(scene.blocks))]
            blocks = tuple(dataclasses.replace(block, name=name) for block, name in zip(scene.blocks, names, strict=True))
            spoken = tuple(Spoken(block=concept.noun.removeprefix("the ")) for concept in chosen)
            return Meant(blocks, scene.mats, spoken)
    raise DataError(f"no {len(moved)} concepts are told apart by {len(scene.blocks)} blocks")


def _by_symbol(scene: Scene, rng: np.random.Generator) -> Meant:
    asked = {task.mat for task in scene.tasks}
    others = rng.choice(words("seen").symbols, len(scene.mats) - len(asked), replace=False).tolist()
    wanted = rng.choice(words("web_only").symbols, len(asked), replace=False).tolist()
    values = [(wanted if k in asked else others).pop() for k in range(len(scene.mats))]
    return Meant(scene.blocks, _marked(scene, "symbol", values), tuple(Spoken() for _ in scene.tasks))


def _by_sum(scene: Scene, rng: np.random.Generator) -> Meant:
    values = rng.choice(words("seen").numbers, len(scene.mats), replace=False).tolist()
    spoken = tuple(Spoken(mat=sum_of(int(values[task.mat]), rng)) for task in scene.tasks if task.mat is not None)
    return Meant(scene.blocks, _marked(scene, "number", values), spoken)


def _marked(scene: Scene, kind: MatKind, values: Sequence[str]) -> tuple[Mat, ...]:
    return tuple(dataclasses.replace(mat, kind=kind, value=value) for mat, value in zip(scene.mats, values, strict=True))


def sum_of(value: int, rng: np.random.Generator) -> str:
    """A sum or a difference that makes it, in words or digits: "two plus two", "5 minus 1"."""
    terms = [(first, "plus", value - first) for first in range(1, value)]
    terms += [(first, "minus", first - value) for first in range(value + 1, _LARGEST_TERM + 1)]
    return spoken_sum(*terms[int(rng.integers(len(terms)))], rng)


def spoken_sum(first: int, sign: str, second: int, rng: np.random.Generator) -> str:
    """In words or in digits."""
    if rng.random() < 0.5:
        return f"{NUMBER_WORDS[first]} {sign} {NUMBER_WORDS[second]}"
    return f"{first} {sign} {second}"


def _one(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
