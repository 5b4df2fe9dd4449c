"""Named sets of scenes: what `ornstein evaluate --suite` measures and `ornstein data generate` records."""

from __future__ import annotations

from typing import NamedTuple

from ornstein.core.errors import unknown_name
from ornstein.simulation.tabletop.sampling import Variation
from ornstein.simulation.tabletop.scene import SKILLS, Skill


class Suite(NamedTuple):
    """about: what it measures, for users. variation: of its scenes."""

    about: str
    variation: Variation


_OF_BLOCKS: tuple[Skill, ...] = tuple(skill for skill in SKILLS if skill not in ("open_drawer", "close_drawer"))
#: What is asked for of one thing that is told from others by what it is; the rest of the sentence is of robot data.
_DESCRIBED: tuple[Skill, ...] = ("pick", "push", "place_in_bowl")
_ABOUT_SKILLS: dict[Skill, str] = {
    "pick": "lift the named block",
    "move_near": "put one block next to another",
    "push": "push a block in a direction, without lifting it",
    "place_in_bowl": "put a block into the bowl",
    "place_on_mat": "put a block on the mat of that number, colour or symbol",
    "stack": "put one block on another",
    "open_drawer": "open the drawer",
    "close_drawer": "close the drawer",
}

SUITES: dict[str, Suite] = {
    **{skill.replace("_", "-"): Suite(about, Variation((skill,))) for skill, about in _ABOUT_SKILLS.items()},
    "all": Suite("all eight skills, mixed", Variation()),
    "distractors": Suite("all skills of blocks, with as many blocks as there is room for", Variation(_OF_BLOCKS, blocks=(4, 5))),
    "backgrounds": Suite("all skills on tables of other patterns and colours", Variation(table=True)),
    "lights": Suite("all skills in other light", Variation(lights=True)),
    "camera": Suite("all skills, the front camera moved, turned and zoomed", Variation(camera=True)),
    "sizes": Suite("all skills with blocks of other sizes", Variation(sizes=True)),
    "unseen-phrasing": Suite("all skills in wordings that no training data hold", Variation(phrasing="unseen")),
    "unseen-objects": Suite("blocks, numbers, colours and symbols of no robot data", Variation(_OF_BLOCKS, split="web_only")),
    "held-out-objects": Suite("those of no data at all", Variation(_OF_BLOCKS, split="held_out")),
    "held-out-pairs": Suite("skills with objects that robot data never combine", Variation(_OF_BLOCKS, pairs="held_out")),
    "symbols": Suite("onto mats with symbols that no robot data hold", Variation(("place_on_mat",), meaning="symbol")),
    "sums": Suite("onto the mat whose number a sum makes", Variation(("place_on_mat",), meaning="sum")),
    "categories": Suite("the fruit, the bird, the vehicle: a thing of no robot data", Variation(_DESCRIBED, blocks=(2, 5), meaning="category")),
    "reasons": Suite("what a thirsty person wants: a thing of no robot data", Variation(_DESCRIBED, blocks=(2, 5), meaning="reason")),
    "described-chains": Suite("two things in turn, both described", Variation(_DESCRIBED, tasks=(2, 2), blocks=(3, 5), meaning="category")),
    "chains": Suite("two or three things in turn", Variation(tasks=(2, 3))),
    "long-chains": Suite("four or five things in turn", Variation(tasks=(4, 5))),
}  # fmt: skip


def suite(name: str) -> Suite:
    """
    Raises:
        UnknownNameError: no such suite; the nearest ones are offered.
    """
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    return SUITES[name]
