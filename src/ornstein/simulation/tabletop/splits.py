"""Who sees what: the committed division of objects, numbers, colours, symbols and pairs of skill and object (`assets/tabletop_splits.json`).

seen: in robot data. web_only: in vision-language data but in no robot episode. held_out: in neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

from ornstein.assets.tabletop import splits
from ornstein.simulation.tabletop.instructions import is_unseen

if TYPE_CHECKING:
    from ornstein.simulation.tabletop.scene import Scene

Split = Literal["seen", "web_only", "held_out"]
_SUM = re.compile(r"\w (plus|minus) \w")
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Words:
    """What scenes of one split are made of."""

    objects: tuple[str, ...]
    numbers: tuple[str, ...]
    colours: tuple[str, ...]
    symbols: tuple[str, ...]

    def of_mats(self) -> dict[str, tuple[str, ...]]:
        """Values of a mat by its kind."""
        return {"number": self.numbers, "colour": self.colours, "symbol": self.symbols}


@lru_cache(maxsize=3)
def words(split: Split) -> Words:
    """Objects, numbers, colours and symbols of a split."""
    data = splits()
    return Words(*(tuple(data[kind][split]) for kind in ("objects", "numbers", "colours", "symbols")))


@lru_cache(maxsize=1)
def held_out_pairs() -> frozenset[tuple[str, str]]:
    """(skill, object): no robot episode does this to that, though both occur."""
    return frozenset((skill, name) for skill, names in splits()["held_out_pairs"].items() for name in names)


def leaks(scene: Scene) -> list[str]:
    """What a robot's data must not show or ask for, one line each; empty for a scene that data may hold."""
    seen, found = words("seen"), []
    found += [f"object {block.name!r}" for block in scene.blocks if block.name not in seen.objects]
    of_mats = seen.of_mats()
    found += [f"{mat.kind} {mat.value!r}" for mat in scene.mats if mat.value not in of_mats[mat.kind]]
    for task in scene.tasks:
        if task.block is not None and (task.skill, scene.blocks[task.block].name) in held_out_pairs():
            found.append(f"{task.skill} of {scene.blocks[task.block].name!r}")
    if _SUM.search(scene.instruction):
        found.append(f"a sum: {scene.instruction!r}")
    if is_unseen(scene.instruction):
        found.append(f"the wording {scene.instruction!r}")
    return found
