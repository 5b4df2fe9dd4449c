from __future__ import annotations

import numpy as np
import pytest

from ornstein.core.errors import DataError
from ornstein.data.spoken_tasks import SpokenTasks, speakable_names
from ornstein.simulation.tabletop.instructions import is_unseen
from ornstein.simulation.tabletop.splits import held_out_pairs, words


def test_sentences_say_what_is_moved_and_where_to() -> None:
    """Read back from the text alone."""
    spoken = SpokenTasks(600, seed=3)
    batch = spoken.at(np.arange(800))
    assert len(spoken) == 600
    names = speakable_names()
    assert len(set(names)) == len(names)
    objects = words("seen").objects
    skills = {"stack": 0, "near": 0, "drawer": 0, "push": 0, "bowl": 0}
    for sentence, moved, goal in zip(batch.sentences, batch.moved, batch.goal, strict=True):
        mentioned = sorted((sentence.index(name), -len(name), name) for name in objects if name in sentence)
        who, where = names[moved], names[goal]
        if "drawer" in sentence:
            assert who == where
            assert who == ("the drawer open" if any(w in sentence for w in ("open", "out")) else "the drawer closed")
            skills["drawer"] += 1
            continue
        assert who == mentioned[0][2]
        if where in objects:
            assert any(name == where for _, _, name in mentioned)
            assert where != who
            skills["stack" if any(w in sentence for w in ("stack", "top", "pile", "tower")) else "near"] += 1
        elif "bowl" in sentence:
            assert where == "the bowl"
            skills["bowl"] += 1
        elif where in ("left", "right", "towards", "away"):
            skills["push"] += 1
    assert min(skills.values()) > 30


def test_nothing_leaks() -> None:
    spoken = SpokenTasks(2000, seed=1)
    seen, names = words("seen"), speakable_names()
    for sentence, moved, _ in spoken._said:
        assert not is_unseen(sentence)
        name = names[moved]
        assert name in seen.objects or name.startswith("the drawer")
    others = {*words("web_only").objects, *words("held_out").objects}
    assert not others & set(names)
    stacked = {names[moved] for sentence, moved, _ in spoken._said if sentence.startswith(("stack", "pile", "build"))}
    assert not {("stack", name) for name in stacked} & held_out_pairs()


def test_a_place_of_the_stream_is_a_function_of_its_number() -> None:
    spoken = SpokenTasks(50, seed=2)
    some, all_ = spoken.at(np.array([4, 9])), spoken.at(np.arange(10))
    assert some.sentences == [all_.sentences[4], all_.sentences[9]]
    assert spoken.at(np.arange(10)).sentences != SpokenTasks(50, seed=5).at(np.arange(10)).sentences
    with pytest.raises(DataError, match="at least one sentence"):
        SpokenTasks(0)
