"""Stills with sentences: what the sentences name is where the pointers say, and nothing that is kept for evaluation is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from ornstein.core.errors import DataError
from ornstein.data import pointed_views
from ornstein.data.pointed_views import PointedViews
from ornstein.data.spoken_tasks import speakable_names
from ornstein.data.tabletop_views import number_of_view
from ornstein.policies.grammar import Goal, goals_of
from ornstein.simulation.tabletop import Scene, TabletopEnv, held_out_pairs, sample_scene, words
from ornstein.simulation.tabletop.instructions import is_unseen
from ornstein.simulation.tabletop.model import DRAWER_TRAVEL
from ornstein.simulation.tabletop.world import project


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def views(cache: Path) -> PointedViews:
    return PointedViews(60, cache, size=64, seed=3)


def _asked(sentence: str) -> Goal:
    """Read by the grammar of the classical pipeline, which shares no code with what writes sentences."""
    seen = words("seen")
    (goal,) = goals_of(sentence, seen.objects, seen.symbols, seen.colours)
    return goal


def _lying_in(scene: Scene) -> set[str]:
    mats = {f"the mat with the {mat.kind} {mat.value}" for mat in scene.mats}
    return {block.name for block in scene.blocks} | mats | ({"the bowl"} if scene.bowl else set())


def _there(order: Goal, scene: Scene) -> list[bool]:
    """Whether what the sentence moves and where to are in the scene."""
    names = {block.name for block in scene.blocks}
    if not order.object:
        return [scene.cabinet is not None] * 2
    moved = order.object in names
    goals = {
        "stack": order.reference in names,
        "move_near": order.reference in names,
        "place_on_mat": order.mat in {(mat.kind, mat.value) for mat in scene.mats},
        "place_in_bowl": scene.bowl is not None,
    }
    return [moved, goals.get(order.skill, moved)]


def _absent_of(order: Goal, scene: Scene) -> str:
    moved, goal = _there(order, scene)
    if not order.object:
        return "drawer"
    if not moved:
        return "block"
    assert not goal
    return {"place_on_mat": "mat", "place_in_bowl": "bowl"}.get(order.skill, "reference")


def test_pointers_are_where_the_named_things_lie(views: PointedViews) -> None:
    """Looked up in the scene of that number, projected by the world."""
    drawn = views.at(np.arange(400))
    env = TabletopEnv(cameras={"front": 64})
    scenes = {k: sample_scene(number_of_view(3, k)) for k in range(60)}
    pictures = {env.reset(options={"scene": scene})[0]["pixels"]["front"].tobytes(): k for k, scene in scenes.items()}
    skills: Counter[str] = Counter()
    absent: Counter[str] = Counter()
    names = speakable_names()
    try:
        for picture, sentence, pointers, heading, there, things, places in zip(*drawn, strict=True):
            scene = scenes[pictures[picture.tobytes()]]
            env.reset(options={"scene": scene})
            lying = {names[k]: place for k, place in zip(things, places, strict=True) if k >= 0}
            assert set(lying) == _lying_in(scene)
            for k, block in enumerate(scene.blocks):
                centre = project(env.world, "front", env.world.moment().positions[k])
                np.testing.assert_allclose(lying[block.name], centre, atol=1e-6)
            for mat in scene.mats:
                centre = project(env.world, "front", np.array([mat.x, mat.y, 0.0]))
                np.testing.assert_allclose(lying[f"the mat with the {mat.kind} {mat.value}"], centre, atol=1e-6)
            order = _asked(sentence)
            if not there.all():
                absent[_absent_of(order, scene)] += 1
                assert there.tolist() == _there(order, scene)
                if there[0]:
                    (block,) = [k for k, one in enumerate(scene.blocks) if one.name == order.object]
                    here = env.world.moment().positions[block]
                    np.testing.assert_allclose(pointers[0], project(env.world, "front", here), atol=1e-6)
                else:
                    assert not heading.any()
                continue
            assert there.tolist() == _there(order, scene)
            skills[order.skill] += 1
            if not order.object:
                open_by = DRAWER_TRAVEL if order.skill == "open_drawer" else 0.0
                expected = [project(env.world, "front", env.world.handle_position(opening)) for opening in (None, open_by)]
                np.testing.assert_allclose(pointers, expected, atol=1e-6)
                assert not heading.any()
                continue
            (block,) = [k for k, one in enumerate(scene.blocks) if one.name == order.object]
            moved = env.world.moment().positions[block]
            turned = 4 * scene.blocks[block].yaw
            np.testing.assert_allclose(heading, [np.sin(turned), np.cos(turned)], atol=0.02)
            np.testing.assert_allclose(pointers[0], project(env.world, "front", moved), atol=1e-6)
            assert order.skill == "pick" or not np.allclose(pointers[0], pointers[1])
            if order.skill in ("move_near", "stack"):
                (other,) = [k for k, one in enumerate(scene.blocks) if one.name == order.reference]
                np.testing.assert_allclose(
                    pointers[1], project(env.world, "front", env.world.moment().positions[other]), atol=1e-6
                )
    finally:
        env.close()
    assert len(skills) == 8
    assert set(absent) == {"block", "reference", "mat", "bowl", "drawer"}


def test_nothing_kept_for_evaluation_is_said(views: PointedViews) -> None:
    for sentence in views.at(np.arange(400)).sentences:
        assert not is_unseen(sentence)
        order = _asked(sentence)
        assert (order.skill, order.object) not in held_out_pairs()


def test_a_pair_is_a_function_of_its_number_and_views_are_drawn_once(
    views: PointedViews, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointed_views, "_draw", lambda *_: pytest.fail("drawn again"))
    again = PointedViews(60, cache, size=64, seed=3)
    for one, other in zip(views.at(np.arange(5, 9)), again.at(np.arange(9)), strict=True):
        np.testing.assert_array_equal(one, other[5:])
    assert len(views) == len(again) > 100


def test_the_whole_is_every_pair_once_with_its_picture(views: PointedViews) -> None:
    whole, still_of = views.whole()
    assert len(still_of) == len(whole.sentences) == len(views)
    assert set(still_of) == set(range(60))
    some = views.at(np.arange(20))
    for picture, sentence in zip(some.pictures, some.sentences, strict=True):
        assert any(whole.sentences[k] == sentence and np.array_equal(whole.pictures[k], picture) for k in range(len(views)))
    assert all(np.array_equal(whole.pictures[k], whole.pictures[k - 1]) for k in np.flatnonzero(np.diff(still_of) == 0) + 1)


def test_a_still_comes_with_all_that_can_be_done_in_it(views: PointedViews) -> None:
    """Each about as often as another; nothing that asks for what is not there."""
    whole, of = views.whole()
    doable = {view: [k for k in np.flatnonzero(of == view) if whole.there[k].all()] for view in np.unique(of)}
    pictures, said, pointers = views.stills(np.arange(3000))
    first = {whole.pictures[pairs[0]].tobytes(): view for view, pairs in doable.items()}
    drawn = [first[picture.tobytes()] for picture in pictures]
    for view, sentences, places in zip(drawn[:200], said, pointers, strict=False):
        assert sentences == [whole.sentences[k] for k in doable[view]]
        np.testing.assert_array_equal(places, whole.pointers[doable[view]])
    counts = Counter(drawn)
    assert set(counts) == set(doable)
    assert sum((n - 50) ** 2 / 50 for n in counts.values()) < 100  # chi-square of 59 degrees of freedom: 98.3 at 0.1 %


def test_mistakes_are_named(cache: Path, views: PointedViews, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one view"):
        PointedViews(0, tmp_path)
    PointedViews(1, tmp_path, size=32)
    (folder,) = tmp_path.iterdir()
    (folder / "pictures.npy").write_bytes(b"cut")
    with pytest.raises(DataError, match="delete that folder"):
        PointedViews(1, tmp_path, size=32)


class _Here:
    """Tasks are done where they are submitted; the given one is cut short."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.drawn: list[range] = []
        self._stop_at = stop_at

    def submit(self, function: Callable[..., None], plan: object, parts: Path, views: range) -> Future[None]:
        if views.start == self._stop_at:
            raise KeyboardInterrupt
        function(plan, parts, views)
        self.drawn.append(views)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_parts_survive_an_interruption_and_together_are_the_whole(
    views: PointedViews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 views in three parts are the 60 views of one part; a second call draws what is missing."""
    monkeypatch.setattr(pointed_views, "_VIEWS_A_PART", 25)
    first, second = _Here(stop_at=50), _Here()
    monkeypatch.setattr(pointed_views, "open_workers", lambda *_: first)
    with pytest.raises(KeyboardInterrupt):
        PointedViews(60, tmp_path, size=64, seed=3)
    assert first.drawn == [range(25), range(25, 50)]
    assert not list(tmp_path.glob("views-*"))
    monkeypatch.setattr(pointed_views, "open_workers", lambda *_: second)
    in_parts = PointedViews(60, tmp_path, size=64, seed=3)
    assert second.drawn == []  # the only one left is drawn without another process
    for one, other in zip(views.whole()[0], in_parts.whole()[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name.startswith("views-") for path in tmp_path.iterdir()] == [True]


def test_several_processes_draw_the_same(views: PointedViews, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointed_views, "_VIEWS_A_PART", 30)
    by_two = PointedViews(60, tmp_path, size=64, seed=3, workers=2)
    for one, other in zip(views.whole()[0], by_two.whole()[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointed_views, "_assemble", lambda *_: pytest.fail("as if killed"))
    with pytest.raises(pytest.fail.Exception):
        PointedViews(2, tmp_path, size=32)
    monkeypatch.undo()
    (part,) = tmp_path.glob(".views-*/*.npz")
    part.write_bytes(b"cut")
    with pytest.raises(DataError, match="delete that file"):
        PointedViews(2, tmp_path, size=32)
    part.unlink()
    assert len(PointedViews(2, tmp_path, size=32)) > 2


def test_an_error_leaves_nothing_that_passes_for_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(pointed_views, "instruct", stop)
        with pytest.raises(KeyboardInterrupt):
            PointedViews(2, tmp_path, size=32)
    assert not list(tmp_path.glob("*/*"))
    assert len(PointedViews(2, tmp_path, size=32)) > 2
