"""Sentences read backwards: every training phrasing of every sampled scene, chains, and words of one's own."""

from __future__ import annotations

import pytest

from ornstein.core.errors import DataError
from ornstein.policies.grammar import Goal, goals_of
from ornstein.simulation.tabletop import SKILLS, Scene, Variation, sample_scene, words

SEEN = words("seen")


def _goals(sentence: str) -> tuple[Goal, ...]:
    return goals_of(sentence, SEEN.objects, SEEN.symbols, SEEN.colours)


def _meant(scene: Scene) -> tuple[Goal, ...]:
    def name(number: int | None) -> str:
        return "" if number is None else scene.blocks[number].name

    return tuple(
        Goal(
            task.skill,
            name(task.block),
            name(task.reference),
            None if task.mat is None else (scene.mats[task.mat].kind, scene.mats[task.mat].value),
            task.direction or "",
        )
        for task in scene.tasks
    )


@pytest.mark.parametrize("skill", SKILLS)
def test_it_understands_every_training_phrasing(skill: str) -> None:
    for seed in range(80):
        scene = sample_scene(seed, Variation((skill,)))  # type: ignore[arg-type]
        assert _goals(scene.instruction) == _meant(scene), scene.instruction


def test_it_takes_chains_apart() -> None:
    for seed in range(60):
        scene = sample_scene(seed, Variation(tasks=(2, 5)))
        assert _goals(scene.instruction) == _meant(scene), scene.instruction


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("would you be so kind as to put the red apple in that bowl", Goal("place_in_bowl", "red apple")),
        ("the blue heart goes on the mat with the red heart", Goal("place_on_mat", "blue heart", mat=("symbol", "red heart"))),
        ("the car belongs on number 4", Goal("place_on_mat", "car", mat=("number", "4"))),
        ("shove that banana over to the left", Goal("push", "banana", direction="left")),
        ("I want the drawer open", Goal("open_drawer")),
        ("get me the game die", Goal("pick", "game die")),
        ("a tower: the gift on top of the bus", Goal("stack", "gift", "bus")),
    ],
)
def test_key_words_help_where_no_template_fits(sentence: str, goal: Goal) -> None:
    assert _goals(sentence) == (goal,)


@pytest.mark.parametrize(
    "sentence", ["", "dance", "put the red apple on the mat", "push the banana", "put the T-Rex in the bowl"]
)
def test_what_it_does_not_understand_it_says(sentence: str) -> None:
    if not sentence:
        assert _goals(sentence) == ()
        return
    with pytest.raises(DataError, match="nothing is known that"):
        _goals(sentence)
