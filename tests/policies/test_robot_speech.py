"""Actions and places become tokens and come back; what is no action is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.core.errors import DataError
from ornstein.data.questions import PLACES
from ornstein.language import TextTokenizer
from ornstein.policies.robot_speech import RobotSpeech
from ornstein.simulation.tabletop import contract

_TEXTS = ["Q: what action should the robot take to pick up the lion? A: <x1> <y2>", "Q: where is the lion? A: <x3> <y4>"] * 4
_MARKS = [f"<{axis}{k}>" for axis in "xy" for k in range(PLACES)]
TOKENIZER = TextTokenizer.train(_TEXTS, size=480, special=_MARKS)
BODY = contract({"front": 64})
SPEECHES = [RobotSpeech(TOKENIZER.with_actions(256, "extend"), BODY, pointers=pointers) for pointers in (True, False)]


@pytest.mark.parametrize("speech", SPEECHES, ids=["with places", "without"])
@given(
    shares=st.lists(st.floats(0, 1), min_size=7, max_size=7),
    places=st.lists(st.floats(-1, 1), min_size=4, max_size=4),
)
@settings(max_examples=100, deadline=None)
def test_an_action_comes_back_within_half_a_bin_and_a_place_within_half_a_cell(
    speech: RobotSpeech, shares: list[float], places: list[float]
) -> None:
    action = BODY.action_low + np.array(shares) * (BODY.action_high - BODY.action_low)
    pointers = np.array(places).reshape(2, 2)
    tokens = speech.answer(action, pointers)
    assert len(tokens) == len(speech.pattern)
    assert all(token in may for token, may in zip(tokens, speech.pattern, strict=True))
    said = speech.understood(tokens)
    np.testing.assert_array_less(np.abs(said.action - action), (BODY.action_high - BODY.action_low) / 512 + 1e-6)
    if speech.pointers:
        assert said.pointers is not None
        assert np.abs(said.pointers - pointers).max() <= 1 / PLACES + 1e-6
    else:
        assert said.pointers is None


def test_it_reads_as_the_paper_says() -> None:
    speech = SPEECHES[0]
    assert speech.tokenizer.decode(speech.question("Pick up the lion.")) == (
        "q: what action should the robot take to pick up the lion? a:"
    )
    tokens = speech.answer(BODY.action_high, [[-1, -1], [0, 0.999]])
    assert speech.tokenizer.decode(tokens) == "<x0><y0><x32><y63>" + "<action255>" * 7


def test_what_is_no_action_is_told() -> None:
    speech = SPEECHES[0]
    tokens = speech.answer(np.zeros(7), np.zeros((2, 2)))
    for wrong in (
        tokens[1:],
        tokens[:-2],
        [*tokens[:-1], tokens[-2], tokens[-1]],
        [tokens[3], *tokens[1:]],
        speech.tokenizer.encode(" a lion"),
        [],
    ):
        with pytest.raises(DataError, match="no action"):
            speech.understood(wrong)
    with pytest.raises(DataError, match="not finite"):
        speech.answer(np.full(7, np.nan), np.zeros((2, 2)))
    with pytest.raises(DataError, match="pointer is not finite"):
        speech.answer(np.zeros(7), np.full((2, 2), np.inf))
    with pytest.raises(DataError, match="with_actions"):
        RobotSpeech(TOKENIZER, BODY)
    plain = TextTokenizer.train(_TEXTS, size=400).with_actions(8, "extend")
    with pytest.raises(DataError, match="of their own for places"):
        RobotSpeech(plain, BODY)
