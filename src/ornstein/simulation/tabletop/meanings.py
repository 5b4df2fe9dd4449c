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
from ornstein.simulation.tabletop.splits import held_out_pairs, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from ornstein.simulation.tabletop.scene import Block, Mat, Scene

Meaning = Literal["name", "category", "reason", "symbol", "sum"]
_TRIES = 500
_LARGEST_TERM = 8
_NUMBER_WORDS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight")
_KINDS = {"category": ("category",), "reason": ("attribute", "purpose")}


class Meant(NamedTuple):
    """Blocks and mats with names, and how each task speaks of its own."""

    blocks: tuple[Block, ...]
    mats: tuple[Mat, ...]
    spoken: tuple[Spoken, ...]


def meant(scene: Scene, rng: np.random.Generator, meaning: Meaning) -> Meant:
    """Names for a scene that has none yet, so that what is asked for is told by that meaning, of one thing only.

    category, reason: every moved block is a web-only object that a concept is true of; it is false of all other blocks. symbol: web-only symbols
    on the mats that are asked for. sum: the mats are numbered, and asked for by a sum. Else everything is of robot data.

    Raises:
        DataError: there is nothing in the scene that could be asked for so.
    """
    if meaning in _KINDS:
        return _by_concept(scene, rng, _KINDS[meaning])
    if any(task.mat is None for task in scene.tasks):
        raise DataError(f"the meaning {meaning!r} is one of mats: ask for place_on_mat alone")
    return _by_mat(scene, rng, meaning)


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
            mats = _coloured(scene, rng)
            spoken = tuple(Spoken(block=concept.noun.removeprefix("the ")) for concept in chosen)
            return Meant(_with_names(scene, names), mats, spoken)
    raise DataError(f"no {len(moved)} concepts are told apart by {len(scene.blocks)} blocks")


def _by_mat(scene: Scene, rng: np.random.Generator, meaning: Meaning) -> Meant:
    asked = {task.mat for task in scene.tasks}
    if meaning == "symbol":
        web, seen = (list(words(split).symbols) for split in ("web_only", "seen"))
        wanted = iter(str(name) for name in rng.choice(web, len(asked), replace=False))
        others = iter(str(name) for name in rng.choice(seen, len(scene.mats) - len(asked), replace=False))
        values = [next(wanted) if k in asked else next(others) for k in range(len(scene.mats))]
        mats = tuple(dataclasses.replace(mat, kind="symbol", value=value) for mat, value in zip(scene.mats, values, strict=True))
        spoken = tuple(Spoken() for _ in scene.tasks)
    else:
        values = [str(number) for number in rng.choice(words("seen").numbers, len(scene.mats), replace=False)]
        mats = tuple(dataclasses.replace(mat, kind="number", value=value) for mat, value in zip(scene.mats, values, strict=True))
        spoken = tuple(Spoken(mat=sum_of(int(mats[task.mat].value), rng)) for task in scene.tasks if task.mat is not None)
    while True:
        names = [str(name) for name in rng.choice(words("seen").objects, len(scene.blocks), replace=False)]
        if not {(task.skill, names[task.block]) for task in scene.tasks if task.block is not None} & held_out_pairs():
            return Meant(_with_names(scene, names), mats, spoken)


def sum_of(value: int, rng: np.random.Generator) -> str:
    """A sum or a difference that makes it, in words or digits: "two plus two", "5 minus 1"."""
    terms = [(first, "plus", value - first) for first in range(1, value)]
    terms += [(first, "minus", first - value) for first in range(value + 1, _LARGEST_TERM + 1)]
    first, sign, second = terms[int(rng.integers(len(terms)))]
    if rng.random() < 0.5:
        return f"{_NUMBER_WORDS[first]} {sign} {_NUMBER_WORDS[second]}"
    return f"{first} {sign} {second}"


def _coloured(scene: Scene, rng: np.random.Generator) -> tuple[Mat, ...]:
    colours = rng.choice(words("seen").colours, len(scene.mats), replace=False)
    return tuple(
        dataclasses.replace(mat, kind="colour", value=str(value)) for mat, value in zip(scene.mats, colours, strict=True)
    )


def _with_names(scene: Scene, names: Sequence[str]) -> tuple[Block, ...]:
    return tuple(dataclasses.replace(block, name=name) for block, name in zip(scene.blocks, names, strict=True))


def _one(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
