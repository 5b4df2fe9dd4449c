"""Sentences with what they speak of: for learning to read before, and while, learning to see. No picture is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from ornstein.assets.tabletop import DIRECTIONS
from ornstein.core.errors import DataError
from ornstein.simulation.tabletop import SKILLS, Block, Mat, Task
from ornstein.simulation.tabletop.instructions import instruct
from ornstein.simulation.tabletop.scene import Direction
from ornstein.simulation.tabletop.splits import held_out_pairs, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WITH_REFERENCE = ("move_near", "stack")
_WITHOUT_BLOCK = ("open_drawer", "close_drawer")


class SpokenBatch(NamedTuple):
    """B sentences; the numbers, among `speakable_names`, of what each moves and of where to, int64 (B,), and, among `SKILLS`, of how."""

    sentences: list[str]
    moved: NDArray[np.int64]
    goal: NDArray[np.int64]
    skill: NDArray[np.int64]


def speakable_names() -> list[str]:
    """What robot data can move and where to, in words: objects, mats, then places."""
    seen = words("seen")
    places = ["the drawer open", "the drawer closed", "the bowl", "the air", *DIRECTIONS]
    return [*seen.objects, *map(name_of_mat, speakable_mats()), *places]


def name_of_mat(mat: Mat) -> str:
    """As `speakable_names` has it."""
    return f"the mat with the {mat.kind} {mat.value}"


def speakable_mats() -> list[Mat]:
    """The mats that robot data may speak of, at no place."""
    of_kind = words("seen").of_mats().items()
    return [Mat(kind, value, 0.0, 0.0) for kind, values in of_kind for value in values]  # type: ignore[arg-type]


class SpokenTasks:
    """`count` sentences that robot data may hold, every skill as often; pair i of the stream is a function of (seed, i)."""

    def __init__(self, count: int, *, seed: int = 0) -> None:
        """
        Raises:
            DataError: count is below 1.
        """
        if count < 1:
            raise DataError(f"there must be at least one sentence, got {count}")
        self._seed = seed
        seen, mats = words("seen"), speakable_mats()
        number = {name: k for k, name in enumerate(speakable_names())}
        rng = np.random.default_rng([seed, 41])
        self._said: list[tuple[str, int, int, int]] = []
        while len(self._said) < count:
            way = int(rng.integers(len(SKILLS)))
            skill = SKILLS[way]
            moved, other = (str(name) for name in rng.choice(seen.objects, 2, replace=False))
            if (skill, moved) in held_out_pairs():
                continue
            mat = mats[int(rng.integers(len(mats)))]
            direction: Direction = get_args(Direction)[int(rng.integers(len(DIRECTIONS)))]
            task = Task(
                skill,
                None if skill in _WITHOUT_BLOCK else 0,
                1 if skill in _WITH_REFERENCE else None,
                0 if skill == "place_on_mat" else None,
                direction if skill == "push" else None,
            )
            goals = {
                "pick": "the air",
                "push": direction,
                "place_in_bowl": "the bowl",
                "place_on_mat": name_of_mat(mat),
                "open_drawer": "the drawer open",
                "close_drawer": "the drawer closed",
            }
            goal = number[goals.get(skill, other)]
            sentence = instruct((task,), (Block(moved, 0.0, 0.0), Block(other, 0.0, 0.0)), (mat,), rng)
            self._said.append((sentence, goal if skill in _WITHOUT_BLOCK else number[moved], goal, way))

    def __len__(self) -> int:
        return len(self._said)

    def sentences(self) -> list[str]:
        """All of them."""
        return [sentence for sentence, *_ in self._said]

    def at(self, indices: NDArray[np.int64]) -> SpokenBatch:
        """The sentences of these numbers of the stream, drawn uniformly."""
        chosen = [self._said[int(np.random.default_rng([self._seed, int(i), 43]).integers(len(self)))] for i in indices]
        sentences, moved, goal, skill = zip(*chosen, strict=True)
        return SpokenBatch(list(sentences), np.array(moved), np.array(goal), np.array(skill))
