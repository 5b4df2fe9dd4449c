"""The recipe of the few-step student, tiny: distil, export, load, draw."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
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
    with pytest.raises(TrainingError):  # there is a run already
        train_text_to_image_fast(_recipe(teacher), student)


def test_a_student_sees_scenes_as_its_teacher_did(teacher: Path, student: Path, tmp_path: Path) -> None:
    shares = {"pair_share": 0.5, "count_share": 0.0, "group_share": 0.5, "data_seed": 3}
    recipe = TextToImageRecipe(network=DiTConfig(width=32, depth=1, heads=2), optimization=_steps(2), scenes=8, **shares)  # type: ignore[arg-type]
    train_text_to_image(recipe, tmp_path / "teacher")
    train_text_to_image_fast(_recipe(tmp_path / "teacher", 2), tmp_path / "run")
    (mine,) = (tmp_path / "run" / "cache").iterdir()
    (its,) = (tmp_path / "teacher" / "cache").iterdir()
    assert (mine.name, mine.read_bytes()) == (its.name, its.read_bytes())
    (other,) = (student / "cache").iterdir()
    assert other.name != mine.name


def test_a_student_of_a_model_of_ones_own_pictures_needs_their_folder(tmp_path: Path) -> None:
    folder, rng = tmp_path / "data" / "mosaics", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)).save(folder / f"{k}.png")
    network = DiTConfig(latent_size=4, patch_size=2, width=32, depth=1, heads=2)
    recipe = TextToImageRecipe(network=network, optimization=_steps(2), data=tmp_path / "data", autoencoder_steps=2)
    train_text_to_image(recipe, tmp_path / "teacher")
    with pytest.raises(DataError, match="trained on a folder of pictures: say which, with --data"):
        train_text_to_image_fast(_recipe(tmp_path / "teacher", 2), tmp_path / "run")
    student = dataclasses.replace(_recipe(tmp_path / "teacher", 2), data=tmp_path / "data")
    train_text_to_image_fast(student, tmp_path / "run")
    (picture,) = ornstein.load(tmp_path / "run", expect="text-to-image")("mosaics", num_inference_steps=1, guidance_scale=2.0)
    assert picture.size == (32, 32)
    card = (tmp_path / "run" / "model" / "card.md").read_text()
    assert "12 pictures" in card
    assert "OpenMoji" not in card


def test_guidance_scales_out_of_order_are_refused() -> None:
    with pytest.raises(DataError, match="in order"):
        FastTextToImageRecipe(lowest_guidance=5.0, highest_guidance=2.0)
