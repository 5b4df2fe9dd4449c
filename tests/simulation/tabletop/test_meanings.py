"""What is asked for by its meaning is one thing only, of no robot data, and not called by its name."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ornstein.assets.knowledge import concepts
from ornstein.core.errors import DataError, UnknownNameError
from ornstein.simulation.tabletop import Variation, sample_scene, suite
from ornstein.simulation.tabletop.meanings import askable, sum_of
from ornstein.simulation.tabletop.splits import leaks, words

_FIRST = 4_900_000
_SCENES = 60
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


@pytest.mark.parametrize("name", ["categories", "reasons", "described-chains"])
def test_a_concept_is_true_of_the_moved_block_alone(name: str) -> None:
    web, seen, nouns = set(words("web_only").objects), set(words("seen").objects), set()
    for seed in range(_FIRST, _FIRST + _SCENES):
        scene = sample_scene(seed, suite(name).variation)
        names = [block.name for block in scene.blocks]
        assert len(set(names)) == len(names) >= 2
        said = [one for one in concepts().values() if re.search(rf"\b{one.noun.removeprefix('the ')}\b", scene.instruction)]
        for task in scene.tasks:
            assert task.block is not None
            target = names[task.block]
            (own,) = (
                one for one in said if target in one.members and all(other in one.others for other in names if other != target)
            )
            assert target in web
            assert not own.held_out
            nouns.add(own.noun)
            assert not re.search(rf"\b{target}\b", scene.instruction)
        assert set(names) <= web | seen
        assert leaks(scene)  # no robot's data may hold it
    assert len(nouns) >= 7


def test_symbols_are_of_no_robot_data_and_all_else_is() -> None:
    for seed in range(_FIRST, _FIRST + _SCENES):
        scene = sample_scene(seed, suite("symbols").variation)
        (task,) = scene.tasks
        assert task.mat is not None
        asked = scene.mats[task.mat]
        assert asked.value in words("web_only").symbols
        assert asked.value in scene.instruction
        others = [mat for mat in scene.mats if mat is not asked]
        assert others
        assert all(mat.value in words("seen").symbols for mat in others)
        assert all(block.name in words("seen").objects for block in scene.blocks)


def test_sums_make_the_number_of_the_mat() -> None:
    signs = set()
    for seed in range(_FIRST, _FIRST + _SCENES):
        scene = sample_scene(seed, suite("sums").variation)
        (task,) = scene.tasks
        assert task.mat is not None
        found = re.search(r"(\w+) (plus|minus) (\w+)", scene.instruction)
        assert found is not None
        first, second = (_WORDS.index(term) + 1 if term in _WORDS else int(term) for term in (found[1], found[3]))
        made = first + second if found[2] == "plus" else first - second
        assert [mat.value for mat in scene.mats].count(str(made)) == 1
        assert scene.mats[task.mat].value == str(made)
        assert leaks(scene)
        signs.add((found[2], found[1] in _WORDS))
    assert len(signs) == 4
    assert {sum_of(1, np.random.default_rng(k)).split()[1] for k in range(20)} == {"minus"}


def test_the_same_seed_is_the_same_arrangement() -> None:
    for meaning in ("symbol", "sum"):
        plain, other = (
            sample_scene(_FIRST, Variation(("place_on_mat",), meaning=one))  # type: ignore[arg-type]
            for one in ("name", meaning)
        )
        assert [(b.x, b.y) for b in plain.blocks] == [(b.x, b.y) for b in other.blocks]
        assert plain.tasks == other.tasks


def test_what_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="sums"):
        Variation(meaning="sums")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="chooses objects by itself"):
        Variation(meaning="sum", split="web_only")
    with pytest.raises(DataError, match="is one of mats"):
        sample_scene(_FIRST, Variation(("pick",), meaning="sum"))
    with pytest.raises(DataError, match="is one of blocks"):
        sample_scene(_FIRST, Variation(("open_drawer",), meaning="category"))
    assert len(askable(("category",))) > 8
