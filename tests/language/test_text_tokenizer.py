"""Every text comes back, digits stay apart, and action tokens take nothing from texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.core.errors import DataError, UnknownNameError
from ornstein.data.questions import PLACES, Lessons
from ornstein.language import TextTokenizer
from ornstein.language.text_tokenizer import action_token

_MARKS = [f"<{axis}{k}>" for axis in "xy" for k in range(PLACES)]


def _texts() -> list[str]:
    stream = Lessons(seed=9)
    return [f"Q: {q.text} A: {q.answer}" for k in range(600) for q in stream.at(k).questions]


TOKENIZER = TextTokenizer.train(_texts(), size=1200, special=_MARKS)
WITH_ACTIONS = [TOKENIZER.with_actions(256, manner) for manner in ("extend", "overwrite")]  # type: ignore[arg-type]


@pytest.mark.parametrize("tokenizer", [TOKENIZER, *WITH_ACTIONS], ids=["plain", "extended", "overwritten"])
@given(text=st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_every_text_comes_back_in_small_letters(tokenizer: TextTokenizer, text: str) -> None:
    lower = TOKENIZER._tokenizer.normalizer.normalize_str(text)
    assert tokenizer.decode(tokenizer.encode(text)) == lower


@pytest.mark.parametrize("tokenizer", [TOKENIZER, *WITH_ACTIONS], ids=["plain", "extended", "overwritten"])
def test_marks_and_digits_are_single_tokens(tokenizer: TextTokenizer) -> None:
    for mark in _MARKS:
        assert len(tokenizer.encode(mark)) == 1
    for before, after in (("", ""), ("number ", ""), ("", " plus 7")):
        joined = tokenizer.encode(f"{before}4821{after}")
        for digit in "4821":
            assert tokenizer.encode(digit)[0] in joined
        assert len(joined) == len(tokenizer.encode(before)) + 4 + len(tokenizer.encode(after))
    assert tokenizer.decode(tokenizer.encode("where? <x12> <y40>")) == "where? <x12> <y40>"


def test_frequent_words_are_one_token() -> None:
    assert len(TOKENIZER.encode("where is the picture?")) <= 8
    assert TOKENIZER.size == 1200
    assert sum(TOKENIZER.counts) == sum(len(TOKENIZER.encode(text)) for text in _texts())


def test_extension_leaves_all_as_it_is() -> None:
    extended = WITH_ACTIONS[0]
    assert extended.size == TOKENIZER.size + 256
    assert extended.actions == tuple(range(1200, 1456))
    for text in _texts()[:200]:
        assert extended.encode(text) == TOKENIZER.encode(text)


def test_overwriting_takes_the_least_frequent_and_texts_do_without_them() -> None:
    overwritten = WITH_ACTIONS[1]
    assert overwritten.size == TOKENIZER.size
    taken = set(overwritten.actions)
    assert len(taken) == 256
    assert not taken & {TOKENIZER.pad, TOKENIZER.end, *(TOKENIZER.encode(mark)[0] for mark in _MARKS)}
    free = [count for number, count in enumerate(TOKENIZER.counts) if number in taken]
    kept = sorted(count for number, count in enumerate(TOKENIZER.counts) if number not in taken)
    assert sum(free) < 0.1 * sum(TOKENIZER.counts)
    assert max(free) < kept[-100]
    for text in _texts()[:200]:
        tokens = overwritten.encode(text)
        assert not taken & set(tokens)
        assert overwritten.decode(tokens) == text.lower()
        untouched = [token for token in TOKENIZER.encode(text) if token not in taken]
        assert set(untouched) <= set(tokens) | taken


@pytest.mark.parametrize("tokenizer", WITH_ACTIONS, ids=["extended", "overwritten"])
def test_actions_are_spelled_and_no_text_says_them_by_chance(tokenizer: TextTokenizer) -> None:
    assert tokenizer.decode([tokenizer.actions[3], tokenizer.actions[255], tokenizer.end]) == action_token(3) + action_token(255)
    assert not set(tokenizer.actions) & set(tokenizer.encode("<action3> <action255>"))


@pytest.mark.parametrize("tokenizer", [TOKENIZER, *WITH_ACTIONS], ids=["plain", "extended", "overwritten"])
def test_no_text_ends_an_answer(tokenizer: TextTokenizer) -> None:
    tokens = tokenizer.encode("the <end> of a <pad>")
    assert not {tokenizer.end, tokenizer.pad} & set(tokens)
    assert tokenizer.decode(tokens) == "the <end> of a <pad>"


def test_it_is_kept_as_plain_data() -> None:
    for tokenizer in (TOKENIZER, *WITH_ACTIONS):
        again = TextTokenizer.from_json(json.loads(json.dumps(tokenizer.to_json())))
        assert again == tokenizer
        assert again.encode("find the lion") == tokenizer.encode("find the lion")
    assert TextTokenizer.train(_texts(), size=1200, special=_MARKS).to_json() == TOKENIZER.to_json()


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="there are none"):
        TextTokenizer.train([""])
    with pytest.raises(DataError, match="do not fit into 300"):
        TextTokenizer.train(["a"], size=300, special=_MARKS)
    with pytest.raises(DataError, match="twice"):
        TextTokenizer.train(["a"], special=["<x0>", "<x0>"])
    with pytest.raises(DataError, match="tokens run"):
        TOKENIZER.decode([1200])
    with pytest.raises(DataError, match="already"):
        WITH_ACTIONS[0].with_actions()
    with pytest.raises(UnknownNameError, match="manner"):
        TOKENIZER.with_actions(256, "append")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="there are"):
        TOKENIZER.with_actions(1000)
    with pytest.raises(DataError, match="at least 2 bins"):
        TOKENIZER.with_actions(1)
    for change in ({"codes": "{}"}, {"special": ["<z>"]}, {"counts": [1]}, {"size": 3}):
        with pytest.raises(DataError):
            TextTokenizer.from_json({**TOKENIZER.to_json(), **change})
