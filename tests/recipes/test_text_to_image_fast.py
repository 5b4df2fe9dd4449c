"""The recipe of the few-step student, tiny: distil, export, load, draw."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ornstein
from ornstein.core.errors import CheckpointError, DataError, TrainingError
from ornstein.images import FewStepPipeline, TextToImagePipeline
from ornstein.networks.dit import DiTConfig
from ornstein.recipes.text_to_image import TextToImageRecipe, train_text_to_image
from ornstein.recipes.text_to_image_fast import FastTextToImageRecipe, train_text_to_image_fast
from ornstein.training import Optimization


def _steps(steps: int, **settings: int) -> Optimization:
    every = {"log_every": 1, "checkpoint_every": 2, "preview_every": 4} | settings
    return Optimization(steps=steps, batch_size=6, learning_rate=1e-3, warmup_steps=1, precision="fp32", **every)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    recipe = TextToImageRecipe(network=DiTConfig(width=32, depth=1, heads=2), optimization=_steps(2), scenes=12)
    train_text_to_image(recipe, out)
    return out / "model"


def _recipe(teacher: Path, steps: int = 4) -> FastTextToImageRecipe:
    return FastTextToImageRecipe(optimization=_steps(steps), teacher=str(teacher), scenes=12)


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("student") / "run"
    train_text_to_image_fast(_recipe(teacher), out)
    return out


def test_from_a_teacher_to_pictures(student: Path) -> None:
    pipeline = ornstein.load(student, expect="text-to-image")
    assert isinstance(pipeline, FewStepPipeline)
    assert pipeline.config.guidance_range == (1.0, 7.0)
    (picture,) = pipeline("a red apple", num_inference_steps=4, guidance_scale=2.0)
    assert picture.size == (128, 128)
    assert (student / "previews" / "step-0000004.png").exists()


def test_the_teacher_stays_a_denoiser(teacher: Path) -> None:
    assert type(ornstein.load(teacher)) is TextToImagePipeline


def test_interrupted_and_resumed_equals_uninterrupted(teacher: Path, student: Path, tmp_path: Path) -> None:
    """The moving average that makes the targets is part of the state: resumed, it must be the one that is read back."""

    class Stop(Exception):
        pass

    from ornstein.recipes import text_to_image_fast

    class Interrupted(text_to_image_fast._Shortcuts):
        calls = 0

        def __call__(self, *arguments: object) -> object:  # type: ignore[override]
            self.calls += 1
            if self.calls == 4:
                raise Stop
            return super().__call__(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_to_image_fast, "_Shortcuts", Interrupted)
        with pytest.raises(Stop):
            train_text_to_image_fast(_recipe(teacher), tmp_path / "run")
    train_text_to_image_fast(_recipe(teacher), tmp_path / "run", resume=True)
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "run", student))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_who_cannot_be_a_teacher(student: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a few-step student itself"):
        train_text_to_image_fast(_recipe(student / "model"), tmp_path / "a")
    recipe = dataclasses.replace(_recipe(teacher), autoencoder="emoji-classifier")
    with pytest.raises(CheckpointError, match="autoencoder"):
        train_text_to_image_fast(recipe, tmp_path / "b")
    with pytest.raises(TrainingError):  # there is a run already
        train_text_to_image_fast(_recipe(teacher), student)


def test_guidance_scales_out_of_order_are_refused() -> None:
    with pytest.raises(DataError, match="in order"):
        FastTextToImageRecipe(lowest_guidance=5.0, highest_guidance=2.0)
