from __future__ import annotations

import numpy as np
import pytest

from ornstein.core.errors import DataError
from ornstein.data.spoken_tasks import SpokenTasks, speakable_names
from ornstein.policies.grammar import goals_of
from ornstein.simulation.tabletop import SKILLS
from ornstein.simulation.tabletop.instructions import is_unseen
from ornstein.simulation.tabletop.splits import held_out_pairs, words


def test_sentences_say_what_is_moved_where_to_and_how() -> None:
    """Read back from the text alone, by the planner's grammar."""
    spoken = SpokenTasks(600, seed=3)
    batch = spoken.at(np.arange(800))
    assert len(spoken) == 600
    names, seen = speakable_names(), words("seen")
    assert len(set(names)) == len(names)
    counts = dict.fromkeys(SKILLS, 0)
    for sentence, moved, goal, skill in zip(batch.sentences, batch.moved, batch.goal, batch.skill, strict=True):
        (read,) = goals_of(sentence, seen.objects, seen.symbols, seen.colours)
        assert read.skill == SKILLS[skill]
        counts[read.skill] += 1
        wanted = {
            "pick": "the air",
            "push": read.direction,
            "place_in_bowl": "the bowl",
            "place_on_mat": f"the mat with the {read.mat[0]} {read.mat[1]}" if read.mat else "",
            "open_drawer": "the drawer open",
            "close_drawer": "the drawer closed",
        }.get(read.skill, read.reference)
        assert names[goal] == wanted
        assert names[moved] == (read.object or wanted)
    assert min(counts.values()) > 60


def test_nothing_leaks() -> None:
    spoken = SpokenTasks(2000, seed=1)
    seen, names = words("seen"), speakable_names()
    for sentence, moved, *_ in spoken._said:
        assert not is_unseen(sentence)
        name = names[moved]
        assert name in seen.objects or name.startswith("the drawer")
    others = {*words("web_only").objects, *words("held_out").objects}
    assert not others & set(names)
    stacked = {names[moved] for _, moved, _, skill in spoken._said if SKILLS[skill] == "stack"}
    assert not {("stack", name) for name in stacked} & held_out_pairs()


def test_a_place_of_the_stream_is_a_function_of_its_number() -> None:
    spoken = SpokenTasks(50, seed=2)
    some, all_ = spoken.at(np.array([4, 9])), spoken.at(np.arange(10))
    assert some.sentences == [all_.sentences[4], all_.sentences[9]]
    assert spoken.at(np.arange(10)).sentences != SpokenTasks(50, seed=5).at(np.arange(10)).sentences
    with pytest.raises(DataError, match="at least one sentence"):
        SpokenTasks(0)
