"""Texts are learnt where they answer; answers are made of allowed tokens and do not depend on who else asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import ornstein
from ornstein.core.checkpoint import write_checkpoint
from ornstein.core.errors import CheckpointError, DataError
from ornstein.language import TextTokenizer
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.policies import VisionLanguageModel, answer_loss, text_tensors
from ornstein.policies.texts import answer_tokens, question_tokens

_TEXTS = ["Q: where is the lion? A: <x1> <y2>", "Q: what is this? A: a lion", "Q: how many lions are there? A: 3"] * 3
TOKENIZER = TextTokenizer.train(_TEXTS, size=320, special=["<x1>", "<y2>"])
CONFIG = VisionLanguageConfig(
    image_size=32,
    channels=(8, 16),
    blocks=(0, 1),
    vision_depth=1,
    vision_heads=2,
    width=24,
    depth=2,
    heads=3,
    vocabulary=TOKENIZER.size,
    context=32,
)
QUESTIONS = ["where is the lion?", "what is this?", "how many lions are there?", "what is this?"]


@pytest.fixture
def model(shaken: Callable[[Callable[[], VisionLanguageNetwork]], VisionLanguageNetwork]) -> VisionLanguageModel:
    return VisionLanguageModel(shaken(lambda: VisionLanguageNetwork(CONFIG)), TOKENIZER)


def _pictures(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_only_answers_count_in_the_loss(model: VisionLanguageModel) -> None:
    """Written out: the mean of −log p of each answer token given all before it."""
    asked = [("where is the lion?", "<x1> <y2>"), ("what is this?", "a lion"), None, ("how many lions are there?", "3")]
    texts = text_tensors(TOKENIZER, asked)
    seen = model.network.see(torch.from_numpy(_pictures()))
    loss, log = answer_loss(model.network, seen, texts)
    right = log["right"]
    expected, hits = [], []
    for k, one in enumerate(asked):
        if one is None:
            continue
        question, answer = question_tokens(TOKENIZER, one[0]), answer_tokens(TOKENIZER, one[1])
        logits = model.network(seen[k // 2 : k // 2 + 1], torch.tensor([question + answer]))[0]
        for j, token in enumerate(answer):
            told = logits[len(question) + j - 1].log_softmax(-1)
            expected.append(-told[token])
            hits.append(float(told.argmax() == token))
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    assert float(right) == pytest.approx(np.mean(hits))


def test_answers_are_the_likeliest_token_after_token(model: VisionLanguageModel) -> None:
    """As by reading all anew for every token, one question at a time; some end before others."""
    pictures, questions = _pictures(6), [QUESTIONS[1]] * 6
    with torch.no_grad():
        model.network.tokens_in.weight[TOKENIZER.end] *= 2  # said now and then
    together = model.answer(pictures, questions, most=6)
    assert {answer.whole for answer in together} == {True, False}
    for k, question in enumerate(questions):
        seen = model.network.see(torch.from_numpy(pictures[k : k + 1]))
        tokens, chance, ended = question_tokens(TOKENIZER, question), 0.0, False
        begin = len(tokens)
        while len(tokens) < begin + 6 and not ended:
            logits = model.network(seen, torch.tensor([tokens]))[0, -1]
            logits[TOKENIZER.pad] = -torch.inf
            best, token = logits.log_softmax(-1).max(-1)
            tokens.append(int(token))
            chance, ended = chance + float(best), int(token) == TOKENIZER.end
        assert together[k].text == TOKENIZER.decode(tokens[begin:]).strip()
        assert together[k].log_probability == pytest.approx(chance, abs=1e-4)
        assert together[k].whole == ended
        alone = model.answer(pictures[k : k + 1], [question], most=6)[0]
        assert (alone.text, alone.whole) == (together[k].text, together[k].whole)


def test_it_says_what_it_may(model: VisionLanguageModel) -> None:
    places = {TOKENIZER.encode(mark)[0] for mark in ("<x1>", "<y2>")}
    for answer in model.answer(_pictures(), QUESTIONS, most=5, allowed=places):
        assert not answer.text.replace("<x1>", "").replace("<y2>", "")
    only = TOKENIZER.encode("<x1>")
    (answer,) = model.answer(_pictures(1), ["what is this?"], most=3, allowed=only)
    assert set(answer.text.split("<x1>")) == {""}
    assert answer.log_probability <= 0


def test_it_is_loaded_strictly(model: VisionLanguageModel, tmp_path: Path) -> None:
    config = {**asdict(CONFIG), "tokenizer": TOKENIZER.to_json()}

    def written(name: str, **change: object) -> Path:
        write_checkpoint(
            tmp_path / name,
            kind="vision-language",
            config={**config, **change},
            tensors=model.network.state_dict(),
            provenance={},
            card="",
        )
        return tmp_path / name

    loaded = ornstein.load(written("whole"), expect="vision-language")
    assert [a.text for a in loaded.answer(_pictures(), QUESTIONS, most=5)] == [
        a.text for a in model.answer(_pictures(), QUESTIONS, most=5)
    ]
    for name, change, complaint in (
        ("other", {"depth": 3}, "do not fit their configuration"),
        ("unknown", {"speed": 3}, "does not fit a vision-language model"),
        ("words", {"tokenizer": {"codes": "{}"}}, "does not fit a vision-language model"),
        ("mixed", {"tokenizer": TOKENIZER.with_actions(4, "extend").to_json()}, "different tokens, its tokenizer has"),
    ):
        with pytest.raises(CheckpointError, match=complaint):
            ornstein.load(written(name, **change))


def test_mistakes_are_named(model: VisionLanguageModel) -> None:
    with pytest.raises(DataError, match="got 3 for 2"):
        model.answer(_pictures(), QUESTIONS[:3])
    with pytest.raises(DataError, match="got 0 for 2"):
        model.answer(_pictures(), [])
    with pytest.raises(DataError, match="32 at most"):
        model.answer(_pictures(1), ["where is the lion? " * 12])
    with pytest.raises(DataError, match="allowed tokens"):
        model.answer(_pictures(1), ["what is this?"], allowed=[TOKENIZER.size])
    with pytest.raises(DataError, match="most = 0"):
        model.answer(_pictures(1), ["what is this?"], most=0)
    with pytest.raises(DataError, match="32 × 32"):
        model.answer(np.zeros((1, 16, 16, 3), np.uint8), ["what is this?"])
