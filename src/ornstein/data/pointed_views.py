"""Still pictures of the tabletop with sentences about them, and where what a sentence speaks of is: for learning which word means which drawing.

An episode shows one arrangement and one sentence for seconds. A view costs one picture, and many sentences fit it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args
from zipfile import BadZipFile

import numpy as np

from ornstein.core.errors import DataError
from ornstein.core.progress import track
from ornstein.core.workers import WorkerDiedError, open_workers, outcome
from ornstein.data.spoken_tasks import name_of_mat, speakable_mats, speakable_names
from ornstein.data.tabletop_views import number_of_view
from ornstein.simulation.tabletop import TabletopEnv, Task, Variation, leaks, sample_scene
from ornstein.simulation.tabletop.instructions import instruct
from ornstein.simulation.tabletop.scene import Direction
from ornstein.simulation.tabletop.splits import held_out_pairs, words
from ornstein.simulation.tabletop.world import project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.simulation.tabletop import Scene


#: Blocks, mats and a bowl; no scene has more.
MOST_THINGS = 8
_VIEWS_A_PART = 500
_ARRAYS = ("pointers", "headings", "there", "things", "places")


class PointedBatch(NamedTuple):
    """B pictures, uint8 (B, S, S, 3); a sentence for each; what is moved and where to, float32 (B, 2, 2), and its heading, (B, 2),
    see `TabletopEnv.pointers` and `heading_of`; whether either is there at all, bool (B, 2); the numbers among `speakable_names` of all that lies there, int64 (B, MOST_THINGS), −1 for
    none or a name that robot data do not have, and where, float32 (B, MOST_THINGS, 2)."""

    pictures: NDArray[np.uint8]
    sentences: list[str]
    pointers: NDArray[np.float32]
    headings: NDArray[np.float32]
    there: NDArray[np.bool_]
    things: NDArray[np.int64]
    places: NDArray[np.float32]


@dataclass(frozen=True)
class _Plan:
    """What the views are made of; their cache is named by it."""

    count: int
    sentences: int
    absent: int
    size: int
    seed: int
    variation: Variation

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


class PointedViews:
    """`count` views with up to `sentences` sentences each, and `absent` that ask for what is not there, drawn once and kept in a folder; pair i of the stream is a function of (seed, i)."""

    def __init__(
        self,
        count: int,
        cache: Path,
        *,
        sentences: int = 4,
        absent: int = 1,
        size: int = 128,
        seed: int = 0,
        variation: Variation | None = None,
        workers: int = 2,
    ) -> None:
        """
        Args:
            cache: folder for the pictures. size: side of the front camera's pictures. variation: of the scenes. workers: processes that draw.

        Raises:
            DataError: a number out of range, or the cache is damaged. RenderingError: there is no headless GL. WorkerDiedError: a process died.
        """
        if count < 1 or sentences < 1 or absent < 0:
            raise DataError(f"there must be at least one view and one sentence, got {count}, {sentences} and {absent}")
        self._seed = seed
        plan = _Plan(count, sentences, absent, size, seed, Variation() if variation is None else variation)
        folder = cache / f"views-{plan.fingerprint()}"
        if not folder.exists():
            _draw(plan, folder, workers)
        try:
            self._pictures = np.load(folder / "pictures.npy", mmap_mode="r", allow_pickle=False)
            self._pointers = np.load(folder / "pointers.npy", allow_pickle=False)
            self._headings = np.load(folder / "headings.npy", allow_pickle=False)
            self._there = np.load(folder / "there.npy", allow_pickle=False)
            self._things = np.load(folder / "things.npy", allow_pickle=False)
            self._places = np.load(folder / "places.npy", allow_pickle=False)
            self._said = [(int(view), str(text)) for view, text in json.loads((folder / "sentences.json").read_text("utf8"))]
            #: Of each still, the pairs whose sentence can be done.
            self._about: dict[int, list[int]] = {}
            for number in np.flatnonzero(self._there.all(-1)).tolist():
                self._about.setdefault(self._said[number][0], []).append(number)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"cannot use the views in {folder}: {error}; delete that folder and start again") from error

    def __len__(self) -> int:
        """Pairs of picture and sentence."""
        return len(self._said)

    def at(self, indices: NDArray[np.int64]) -> PointedBatch:
        """The pairs of these numbers of the stream, drawn uniformly."""
        return self._pairs([int(np.random.default_rng([self._seed, int(i), 23]).integers(len(self))) for i in indices])

    def stills(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint8], list[list[str]], list[NDArray[np.float32]]]:
        """Stills of these numbers of the stream, drawn uniformly, with all that is said of each and can be done: pictures (B, H, W, 3), sentences
        and their pointers (sentences, 2, 2)."""
        known = list(self._about)
        views = [known[int(np.random.default_rng([self._seed, int(i), 43]).integers(len(known)))] for i in indices]
        said = [[self._said[k][1] for k in self._about[view]] for view in views]
        return np.asarray(self._pictures[views]), said, [self._pointers[self._about[view]] for view in views]

    def whole(self) -> tuple[PointedBatch, NDArray[np.int64]]:
        """Every pair once, and the number of its picture, (N,)."""
        return self._pairs(list(range(len(self)))), np.array([view for view, _ in self._said])

    def _pairs(self, chosen: list[int]) -> PointedBatch:
        views, sentences = zip(*(self._said[k] for k in chosen), strict=True)
        rows = list(views)
        return PointedBatch(
            np.asarray(self._pictures[rows]),
            list(sentences),
            self._pointers[chosen],
            self._headings[chosen],
            self._there[chosen],
            self._things[rows],
            self._places[rows],
        )


def _draw(plan: _Plan, folder: Path, workers: int) -> None:
    """Part by part, by several processes where there is more than one. What an interruption leaves are whole parts, which the same call takes up."""
    parts = folder.with_name(f".{folder.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    wanted = [range(start, min(start + _VIEWS_A_PART, plan.count)) for start in range(0, plan.count, _VIEWS_A_PART)]
    todo = [views for views in wanted if not _part(parts, views).exists()]
    if len(todo) == 1:
        _draw_part(plan, parts, todo[0])
    elif todo:
        try:
            with open_workers(workers, _ready) as pool:
                running = [pool.submit(_draw_part, plan, parts, views) for views in todo]
                for future in track(as_completed(running), len(running), "drawing views"):
                    outcome(future)
        except WorkerDiedError as error:
            raise WorkerDiedError(f"{error}; what was drawn is kept: start again, and it goes on from there") from error
    _assemble(plan, [_part(parts, views) for views in wanted], folder)
    shutil.rmtree(parts)


def _part(parts: Path, views: range) -> Path:
    return parts / f"{views.start}-{views.stop}.npz"


def _ready() -> None:
    """Nothing to prepare: a world is made for each part, so that a part's pictures are a function of its plan alone."""


def _draw_part(plan: _Plan, parts: Path, views: range) -> None:
    pictures = np.empty((len(views), plan.size, plan.size, 3), np.uint8)
    said: list[tuple[int, str]] = []
    pointers: list[NDArray[np.float32]] = []
    headings: list[NDArray[np.float32]] = []
    there: list[tuple[bool, bool]] = []
    number = {name: k for k, name in enumerate(speakable_names())}
    things, places = np.full((len(pictures), MOST_THINGS), -1), np.zeros((len(pictures), MOST_THINGS, 2), np.float32)
    env = TabletopEnv(cameras={"front": plan.size})
    try:
        for row, k in enumerate(views):
            scene = sample_scene(number_of_view(plan.seed, k), plan.variation)
            rng = np.random.default_rng([plan.seed, k, 29])
            pictures[row] = env.reset(options={"scene": scene})[0]["pixels"]["front"]
            for j, (name, point) in enumerate(_things(env)):
                things[row, j], places[row, j] = number.get(name, -1), project(env.world, "front", point)
            for task, sentence in _sentences(scene, rng, plan.sentences):
                said.append((k, sentence))
                pointers.append(np.stack(env.pointers_of(task)))
                headings.append(env.heading_of(task))
                there.append((True, True))
            for task, sentence, which in _asking_for_absent(scene, np.random.default_rng([plan.seed, k, 31]), plan.absent):
                said.append((k, sentence))
                there.append(which)
                moved = env.pointers_of(Task("pick", task.block) if task.block is not None else task)[0]
                pointers.append(np.stack([moved, env.pointers_of(task)[1] if which[1] else moved]))
                headings.append(env.heading_of(task) if which[0] else np.zeros(2, np.float32))
    finally:
        env.close()
    of, sentences = zip(*said, strict=True)
    partial = parts / f".{views.start}.partial-{os.getpid()}"
    with partial.open("wb") as file:
        np.savez(
            file,
            pictures=pictures,
            pointers=np.stack(pointers),
            headings=np.stack(headings),
            there=np.array(there),
            things=things,
            places=places,
            views=np.array(of),
            sentences=np.array(sentences),
        )
    partial.replace(_part(parts, views))


def _assemble(plan: _Plan, parts: list[Path], folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    partial.mkdir()
    shape = (plan.count, plan.size, plan.size, 3)
    pictures = np.lib.format.open_memmap(partial / "pictures.npy", mode="w+", dtype=np.uint8, shape=shape)
    rest: dict[str, list[NDArray[Any]]] = {}
    done = 0
    try:
        for path in parts:
            try:
                with np.load(path, allow_pickle=False) as part:
                    for name in part.files:
                        if name != "pictures":
                            rest.setdefault(name, []).append(part[name])
                    found = part["pictures"]
            except (OSError, ValueError, EOFError, BadZipFile) as error:
                raise DataError(f"cannot use the views in {path}: {error}; delete that file and start again") from error
            pictures[done : done + len(found)] = found
            done += len(found)
        pictures.flush()
        whole = {name: np.concatenate(of) for name, of in rest.items()}
        for name in _ARRAYS:
            np.save(partial / f"{name}.npy", whole[name])
        said = list(zip(whole["views"].tolist(), whole["sentences"].tolist(), strict=True))
        (partial / "sentences.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf8")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _things(env: TabletopEnv) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Name and position [m] of all that lies there."""
    scene, positions = env.scene, env.world.moment().positions
    assert scene is not None
    yield from ((block.name, positions[k]) for k, block in enumerate(scene.blocks))
    yield from ((name_of_mat(mat), np.array([mat.x, mat.y, 0.0])) for mat in scene.mats)
    if scene.bowl is not None:
        yield "the bowl", np.array([scene.bowl.x, scene.bowl.y, 0.0])


def _sentences(scene: Scene, rng: np.random.Generator, most: int) -> Iterator[tuple[Task, str]]:
    """Things that could be asked for in this scene and that robot data may ask for: of every skill as many, while there are any."""
    possible: dict[str, list[Task]] = {}
    for task in _possible(scene):
        if not leaks(replace(scene, tasks=(task,), instruction="")):
            possible.setdefault(task.skill, []).append(task)
    for _ in range(min(most, sum(map(len, possible.values())))):
        skill = sorted(possible)[int(rng.integers(len(possible)))]
        task = possible[skill].pop(int(rng.integers(len(possible[skill]))))
        if not possible[skill]:
            del possible[skill]
        yield task, instruct((task,), scene.blocks, scene.mats, rng)


_WITH_GOAL = ("stack", "move_near", "place_on_mat", "place_in_bowl")


def _asking_for_absent(scene: Scene, rng: np.random.Generator, most: int) -> Iterator[tuple[Task, str, tuple[bool, bool]]]:
    """Things that could be asked for elsewhere: a task of this scene, the sentence that names something else, and whether what is moved and
    where to are there."""
    here, lying = {block.name for block in scene.blocks}, {(mat.kind, mat.value) for mat in scene.mats}
    objects = [name for name in words("seen").objects if name not in here]
    mats = [mat for mat in speakable_mats() if (mat.kind, mat.value) not in lying]
    blocks = range(len(scene.blocks))
    tasks = [task for task in _possible(scene) if task.block is not None]
    tasks += [Task("place_on_mat", k, mat=0) for k in blocks if not scene.mats]
    tasks += [Task("place_in_bowl", k) for k in blocks if scene.bowl is None]
    tasks += [] if scene.cabinet is not None else [Task("open_drawer"), Task("close_drawer")]
    skills, found = sorted({task.skill for task in tasks}), 0
    while found < most and tasks:
        skill = skills[int(rng.integers(len(skills)))]
        chosen = [task for task in tasks if task.skill == skill]
        task, other = chosen[int(rng.integers(len(chosen)))], objects[int(rng.integers(len(objects)))]
        named, on, moved = list(scene.blocks), scene.mats, task.block
        which = (True, False)
        if moved is None:
            which = (False, False)
        elif skill == "place_in_bowl" and scene.bowl is None:
            pass
        elif skill == "place_on_mat" and (not scene.mats or rng.random() < 0.5):
            on, task = (mats[int(rng.integers(len(mats)))],), replace(task, mat=0)
        elif task.reference is not None and rng.random() < 0.5:
            named[task.reference] = replace(named[task.reference], name=other)
        else:
            which = (False, skill in _WITH_GOAL)
            named[moved] = replace(named[moved], name=other)
        if moved is not None and (skill, named[moved].name) in held_out_pairs():
            continue
        found += 1
        yield task, instruct((task,), tuple(named), on, rng), which


def _possible(scene: Scene) -> Iterator[Task]:
    blocks = range(len(scene.blocks))
    for k in blocks:
        yield Task("pick", k)
        yield from (Task("push", k, direction=direction) for direction in get_args(Direction))
        yield from (Task(skill, k, other) for other in blocks if other != k for skill in ("move_near", "stack"))
        yield from (Task("place_on_mat", k, mat=mat) for mat in range(len(scene.mats)))
        if scene.bowl is not None:
            yield Task("place_in_bowl", k)
    if scene.cabinet is not None:
        yield Task("open_drawer")
        yield Task("close_drawer")
