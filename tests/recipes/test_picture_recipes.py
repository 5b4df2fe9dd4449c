"""The recipes of the picture models, tiny: train, export, load, use."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import ornstein
from ornstein.assets import openmoji
from ornstein.core.errors import CheckpointError, DataError, TrainingError
from ornstein.data.latents import LatentScenes
from ornstein.data.scenes import render, sample_scene
from ornstein.images import to_pixels, to_tensor
from ornstein.language import UniversalSentenceEncoder
from ornstein.networks.autoencoder import AutoencoderConfig
from ornstein.networks.classifier import ClassifierConfig
from ornstein.networks.dit import DiTConfig
from ornstein.recipes import text_to_image
from ornstein.recipes.autoencoder import AutoencoderRecipe, train_autoencoder
from ornstein.recipes.emoji_classifier import EmojiClassifierRecipe, _labelled, train_emoji_classifier
from ornstein.recipes.text_to_image import TextToImageRecipe, train_text_to_image
from ornstein.training import Optimization

SMALL = DiTConfig(width=32, depth=1, heads=2)


def _steps(steps: int = 4, batch_size: int = 4) -> Optimization:
    return Optimization(
        steps=steps,
        batch_size=batch_size,
        learning_rate=1e-3,
        warmup_steps=1,
        log_every=1,
        checkpoint_every=2,
        preview_every=4,
        precision="fp32",
    )


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "t2i"
    train_text_to_image(TextToImageRecipe(network=SMALL, optimization=_steps(), scenes=12), out)
    return out


def test_text_to_image_from_the_shipped_first_stage_to_pictures(drawer: Path) -> None:
    """The exported folder does not hold the autoencoder: a run that is loaded from elsewhere must find it by itself."""
    pipeline = ornstein.load(drawer, expect="text-to-image")
    (picture,) = pipeline("a red apple", num_inference_steps=2)
    assert picture.size == (128, 128)
    assert pipeline.config.prediction == "v_prediction"
    assert (drawer / "previews" / "step-0000004.png").exists()


def test_the_text_statistics_come_from_the_captions(drawer: Path) -> None:
    pipeline = ornstein.load(drawer, expect="text-to-image")
    shares = {"single": 0.45, "count": 0.12, "pair": 0.3, "group": 0.13}
    ids = pipeline.text.piece_ids([sample_scene(i, shares=shares, jitter=0.0).caption for i in range(12)], 32)
    np.testing.assert_allclose(float(pipeline.denoiser.piece_std), pipeline.text.piece_vectors(ids[ids >= 0]).std(), rtol=0.01)


def test_shares_beyond_the_whole_are_refused() -> None:
    with pytest.raises(DataError, match="share between 0 and 1"):
        TextToImageRecipe(pair_share=0.7, count_share=0.4)


def test_dropped_captions_are_empty_and_batches_know_their_number(tmp_path: Path, drawer: Path) -> None:
    from ornstein.data.latents import LatentScenes
    from ornstein.language import UniversalSentenceEncoder

    encoder = UniversalSentenceEncoder()
    captions = [sample_scene(i).caption for i in range(16)]
    data = LatentScenes(
        np.arange(16, dtype=np.float16)[:, None, None, None] * np.ones((1, 4, 16, 16), np.float16),
        encoder.piece_ids(captions, 24),
    )
    recipe = TextToImageRecipe(condition_drop=0.25)
    batch = text_to_image.captioned_batch(np.arange(1600), data, encoder, recipe)
    dropped = ~batch["mask"].any(1)
    assert 0.2 < dropped.float().mean() < 0.3
    assert torch.equal(batch["pieces"][dropped], torch.zeros_like(batch["pieces"][dropped]))
    # Each epoch holds every scene once.
    rows = batch["latents"][:, 0, 0, 0].reshape(100, 16).sort(1).values
    assert torch.equal(rows, torch.arange(16.0).expand(100, 16))
    # Sample i is the same in whatever batch it comes.
    again = text_to_image.captioned_batch(np.array([700, 3]), data, encoder, recipe)
    length = again["mask"].shape[1]
    assert torch.equal(again["latents"], batch["latents"][[700, 3]])
    assert torch.equal(again["pieces"], batch["pieces"][[700, 3]][:, :length])
    assert not batch["mask"][[700, 3]][:, length:].any()


def test_a_later_start_resumes_and_another_recipe_does_not(drawer: Path) -> None:
    recipe = TextToImageRecipe(network=SMALL, optimization=_steps(), scenes=12)
    before = (drawer / "model" / "model.safetensors").read_bytes()
    train_text_to_image(recipe, drawer, resume=True)
    assert (drawer / "model" / "model.safetensors").read_bytes() == before
    with pytest.raises(TrainingError, match="condition_drop"):
        train_text_to_image(
            TextToImageRecipe(network=SMALL, optimization=_steps(), scenes=12, condition_drop=0.5), drawer, resume=True
        )


def test_a_small_autoencoder_learns_the_background(tmp_path: Path) -> None:
    network = AutoencoderConfig(quarter_channels=16, eighth_channels=16, encoder_blocks=1, decoder_blocks=1)
    recipe = AutoencoderRecipe(network=network, optimization=_steps(steps=24, batch_size=8))
    train_autoencoder(recipe, tmp_path / "run")
    model = ornstein.load(tmp_path / "run", expect="autoencoder")
    pixels = render(sample_scene(0, seed=5))[None]
    with torch.inference_mode():
        latents = model.encode(to_tensor(pixels))
        assert latents.shape == (1, 4, 16, 16)
        assert to_pixels(model.decode(latents)).shape == (1, 128, 128, 3)
    assert (tmp_path / "run" / "previews" / "step-0000024.png").exists()


def test_the_judge_is_trained_on_the_name_that_is_in_the_picture(tmp_path: Path) -> None:
    classes = len(openmoji.names())
    recipe = EmojiClassifierRecipe(network=ClassifierConfig(classes, channels=(8, 8, 8), blocks=1), optimization=_steps())
    batch = _labelled(np.arange(8), recipe)
    for index, label in enumerate(batch["label"].tolist()):
        assert openmoji.names()[label] == sample_scene(index, seed=recipe.data_seed, kind="single").objects[0].name
    train_emoji_classifier(recipe, tmp_path / "run")
    judge = ornstein.load(tmp_path / "run", expect="emoji-classifier")
    verdicts = judge.verdicts(np.stack([render(sample_scene(i, kind="single")) for i in range(2)]))
    assert all(len(verdict.ranking) == 5 and set(verdict.ranking) <= set(openmoji.names()) for verdict in verdicts)


def test_a_model_over_an_autoencoder_of_ones_own_can_draw_wherever_it_goes(tmp_path: Path) -> None:
    network = AutoencoderConfig(quarter_channels=16, eighth_channels=16, encoder_blocks=1, decoder_blocks=1)
    train_autoencoder(AutoencoderRecipe(network=network, optimization=_steps(steps=1)), tmp_path / "mine")
    recipe = TextToImageRecipe(network=SMALL, optimization=_steps(steps=1), scenes=4, autoencoder=str(tmp_path / "mine"))
    train_text_to_image(recipe, tmp_path / "run")
    shutil.rmtree(tmp_path / "mine")
    (tmp_path / "run" / "model").rename(tmp_path / "elsewhere")
    pipeline = ornstein.load(tmp_path / "elsewhere", expect="text-to-image")
    assert pipeline.autoencoder.config == network
    shutil.rmtree(tmp_path / "elsewhere" / "autoencoder")
    with pytest.raises(CheckpointError, match=r"was trained on the latents of autoencoder \w+, found: \w+ in "):
        ornstein.load(tmp_path / "elsewhere")


def test_dropped_captions_differ_from_epoch_to_epoch() -> None:
    """Else a tenth of the scenes would never be told to the model, however long it trains."""
    encoder = UniversalSentenceEncoder()
    captions = [f"a drawing of {number} keys" for number in range(40)]
    data = LatentScenes(np.zeros((40, 4, 16, 16), np.float16), encoder.piece_ids(captions, 24))
    recipe = TextToImageRecipe(condition_drop=0.5)
    told = []
    for epoch in range(2):
        batch = text_to_image.captioned_batch(np.arange(40 * epoch, 40 * (epoch + 1)), data, encoder, recipe)
        order = np.random.default_rng([recipe.data_seed, epoch, 4]).permutation(40)
        told.append({int(row) for row, kept in zip(order, batch["mask"].any(1).tolist(), strict=True) if kept})
    assert 10 < len(told[0]) < 30
    assert told[0] != told[1]
    assert told[0] & told[1]


def test_the_recipe_s_objective_reaches_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ornstein.diffusion

    real, seen = ornstein.diffusion.ddpm_loss, []

    def watched(*arguments: object, **settings: object) -> object:
        seen.append((arguments[4], settings))
        return real(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(ornstein.diffusion, "ddpm_loss", watched)
    recipe = TextToImageRecipe(network=SMALL, optimization=_steps(2), scenes=12, prediction="epsilon", weighting="simple")
    train_text_to_image(recipe, tmp_path / "run")
    assert seen == [("epsilon", {"weighting": "simple", "times": "stratified"})] * 2
    assert ornstein.load(tmp_path / "run").config.prediction == "epsilon"


def test_the_judge_sees_many_painted_drawings_and_none_that_its_ground_hides() -> None:
    from ornstein.assets import openmoji
    from ornstein.recipes.emoji_classifier import _repainted

    rng = np.random.default_rng(0)
    painted = []
    for i in range(600):
        scene = sample_scene(i, kind="single")
        (item,) = _repainted(scene, rng, 0.6).objects
        assert item.color != scene.background
        if item.name in openmoji.paintable_names():
            painted.append(bool(item.color))
        else:
            assert item == scene.objects[0]
    assert np.mean(painted) == pytest.approx(0.6, abs=4 * (0.24 / len(painted)) ** 0.5)
