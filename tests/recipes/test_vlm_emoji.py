"""The recipe learns from lessons what is where, and is the same when it is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ornstein
from ornstein.core.errors import DataError
from ornstein.data.questions import Lessons
from ornstein.data.web_pictures import MOST_ITEMS, item_names, name_of, render
from ornstein.networks.vision_language import VisionLanguageConfig
from ornstein.recipes.vlm_emoji import VLMEmojiRecipe, lesson_tensors, train_vlm_emoji, trained_tokenizer

NETWORK = VisionLanguageConfig(
    channels=(8, 16), blocks=(0, 1), vision_depth=1, vision_heads=2, width=24, depth=1, heads=2, vocabulary=600
)


def _recipe(steps: int = 3) -> VLMEmojiRecipe:
    recipe = VLMEmojiRecipe(network=NETWORK)
    short = {"steps": steps, "batch_size": 2, "warmup_steps": 1, "checkpoint_every": 2, "preview_every": 3}
    return replace(recipe, naming=replace(recipe.naming, **short), optimization=replace(recipe.optimization, **short))


def test_it_trains_answers_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """Cut off while naming, and again while answering."""
    whole = train_vlm_emoji(_recipe(), tmp_path / "whole")
    model = ornstein.load(tmp_path / "whole", expect="vision-language")
    lesson = Lessons(split="validation").at(0)
    answers = model.answer(render(lesson.picture)[None], [question.text for question in lesson.questions], most=4)
    assert len(answers) == len(lesson.questions)
    (text,) = (tmp_path / "whole" / "previews").glob("*.txt")
    assert lesson.questions[0].text in text.read_text("utf8")
    for name, resume in (("picture_tensors", False), ("lesson_tensors", True)):
        with _stopping_at(name, 3), pytest.raises(KeyboardInterrupt):
            train_vlm_emoji(_recipe(), tmp_path / "cut", resume=resume)
    resumed = train_vlm_emoji(_recipe(), tmp_path / "cut", resume=True)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@contextmanager
def _stopping_at(name: str, call: int) -> Iterator[None]:
    from ornstein.recipes import vlm_emoji

    made, calls = getattr(vlm_emoji, name), []

    def stop(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return made(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vlm_emoji, name, stop)
        yield


def test_naming_teaches_the_encoder_and_leaves_the_decoder(tmp_path: Path) -> None:
    from ornstein.recipes.vlm_emoji import fresh_network
    from ornstein.training import initialise

    recipe = replace(_recipe(), questions=1)
    train_vlm_emoji(recipe, tmp_path)
    fresh = initialise(lambda: fresh_network(NETWORK, trained_tokenizer(600, 0)), recipe.naming.seed).state_dict()
    named = ornstein.load(tmp_path / "naming", expect="vision-language").network.state_dict()
    for name, before in fresh.items():
        learns = name.startswith(("vision.", "aids.")) and name != "vision.positions"
        assert torch.equal(before.half(), named[name].half()) != learns, name


def test_batches_hold_the_lessons() -> None:
    tokenizer = trained_tokenizer(600, 0)
    lessons = [Lessons(questions=3).at(k) for k in range(6)]
    batch = lesson_tensors(lessons, tokenizer, 3)
    for row, lesson in enumerate(lessons):
        np.testing.assert_array_equal(batch["pictures"][row], render(lesson.picture))
        for k, item in enumerate(lesson.picture.items):
            assert item_names()[int(batch["things"][row, k])] == name_of(item)
            torch.testing.assert_close(batch["places"][row, k], torch.tensor([item.x, item.y]))
        assert (batch["things"][row, len(lesson.picture.items) :] == -1).all()
        for k in range(3):
            answered = batch["tokens"][3 * row + k][batch["answered"][3 * row + k]]
            if k < len(lesson.questions):
                assert tokenizer.decode(answered.tolist()).strip() == lesson.questions[k].answer.lower()
                asked = batch["tokens"][3 * row + k][~batch["answered"][3 * row + k]].tolist()
                assert tokenizer.decode(asked) == f"q: {lesson.questions[k].text} a:".lower()
            else:
                assert not len(answered)
    assert batch["things"].shape == (6, MOST_ITEMS)


def test_tokens_of_places_begin_as_a_scale() -> None:
    """The nearer two columns are, the more alike their tokens; columns and rows are unrelated."""
    from ornstein.policies import PlaceTokens
    from ornstein.recipes.vlm_emoji import fresh_network
    from ornstein.training import initialise

    tokenizer = trained_tokenizer(600, 0)
    network = initialise(lambda: fresh_network(NETWORK, tokenizer), 0)
    columns, rows = (network.tokens_in.weight.detach()[list(tokens)] for tokens in PlaceTokens.of(tokenizer))
    alike = torch.nn.functional.cosine_similarity(columns[:, None], columns[None], dim=-1)
    near, far = (float(alike.diagonal(k).mean()) for k in (1, 20))
    assert near > 0.65
    assert far < 0.4
    assert columns.std() == pytest.approx(float(network.tokens_in.weight.detach().std()), rel=0.2)
    assert float(torch.nn.functional.cosine_similarity(columns, rows, dim=-1).abs().mean()) < 0.6


def test_the_tokenizer_knows_robots_words_too() -> None:
    tokenizer = trained_tokenizer(2048, 0)
    prompt = "Q: what action should the robot take to put the red apple on the mat with the crescent moon? A:"
    assert len(tokenizer.encode(prompt)) < 30


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="questions"):
        VLMEmojiRecipe(questions=0)
    with pytest.raises(DataError, match="recognition"):
        VLMEmojiRecipe(recognition=-1)
