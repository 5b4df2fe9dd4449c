"""The pipeline around a tiny untrained network: what must hold whatever the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ornstein
from ornstein.core.checkpoint import read_checkpoint, write_checkpoint
from ornstein.core.errors import CheckpointError, DataError, UnknownNameError
from ornstein.diffusion import NoiseSchedule
from ornstein.images import TextToImageConfig, TextToImagePipeline
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig
from ornstein.networks.dit import DiT, DiTConfig

NETWORK = DiTConfig(width=32, depth=1, heads=2)
STAGE = AutoencoderConfig(quarter_channels=8, eighth_channels=8, encoder_blocks=1, decoder_blocks=1)


def _config(fingerprint: str = "0" * 16) -> TextToImageConfig:
    return TextToImageConfig(NETWORK, NoiseSchedule.cosine().to_json(), "v_prediction", fingerprint)


def _networks() -> tuple[DiT, Autoencoder]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser, autoencoder = DiT(NETWORK), Autoencoder(STAGE)
        with torch.no_grad():
            for parameter in denoiser.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return denoiser, autoencoder


@pytest.fixture(scope="module")
def pipeline() -> TextToImagePipeline:
    return TextToImagePipeline(*_networks(), _config())


def _draw(pipeline: TextToImagePipeline, prompt: str | list[str], **settings: object) -> np.ndarray:
    pictures = pipeline(prompt, num_inference_steps=4, **settings)  # type: ignore[arg-type]
    return np.stack([np.asarray(picture) for picture in pictures])


def test_same_prompt_seed_and_settings_give_the_same_picture_whatever_the_batch(pipeline: TextToImagePipeline) -> None:
    alone = _draw(pipeline, "a red apple", seed=5)
    assert np.array_equal(alone, _draw(pipeline, "a red apple", seed=5))
    among = _draw(pipeline, ["a dog", "a red apple", "a key"] * 4, seed=5)
    assert np.array_equal(alone[0], among[1])
    assert np.array_equal(alone[0], among[10])
    first_of_many = _draw(pipeline, "a red apple", seed=5, num_images_per_prompt=3)
    assert np.array_equal(alone[0], first_of_many[0])
    assert not np.array_equal(first_of_many[0], first_of_many[1])
    assert not np.array_equal(alone, _draw(pipeline, "a red apple", seed=6))


def test_guidance_zero_ignores_the_prompt_and_one_does_not(pipeline: TextToImagePipeline) -> None:
    assert np.array_equal(_draw(pipeline, "a dog", guidance_scale=0.0), _draw(pipeline, "a key", guidance_scale=0.0))
    assert not np.array_equal(_draw(pipeline, "a dog", guidance_scale=1.0), _draw(pipeline, "a key", guidance_scale=1.0))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "euler", "heun"])
def test_every_sampler_draws(pipeline: TextToImagePipeline, sampler: str) -> None:
    assert _draw(pipeline, "a dog", sampler=sampler).shape == (1, 128, 128, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inference_steps": 0}, "between 1 and 1000"),
        ({"num_inference_steps": 1001}, "between 1 and 1000"),
        ({"eta": 1.5}, "eta"),
        ({"seed": -1}, "seed"),
        ({"guidance_scale": float("nan")}, "guidance"),
    ],
)
def test_numbers_out_of_range_are_refused(pipeline: TextToImagePipeline, settings: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pipeline("a dog", **settings)  # type: ignore[arg-type]


def test_unknown_samplers_and_empty_prompts_are_refused(pipeline: TextToImagePipeline) -> None:
    with pytest.raises(UnknownNameError, match="ddim"):
        pipeline("a dog", sampler="dimm")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="empty"):
        pipeline(["a dog", ""])


def _save(folder: Path) -> Path:
    denoiser, autoencoder = _networks()
    stage = folder / "autoencoder"
    common = {"provenance": {}, "card": "test"}
    write_checkpoint(stage, kind="autoencoder", config=vars(STAGE), tensors=autoencoder.state_dict(), **common)
    config = _config(read_checkpoint(stage).fingerprint)
    path = folder / "text-to-image"
    write_checkpoint(path, kind="text-to-image", config=config.to_json(), tensors=denoiser.state_dict(), **common)
    return path


def test_a_saved_pipeline_draws_the_same(pipeline: TextToImagePipeline, tmp_path: Path) -> None:
    loaded = ornstein.load(_save(tmp_path), expect="text-to-image")
    assert np.array_equal(_draw(loaded, "a key", seed=2), _draw(pipeline, "a key", seed=2))


def test_another_autoencoder_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path)
    stage = tmp_path / "autoencoder"
    other = Autoencoder(STAGE).state_dict()
    write_checkpoint(stage, kind="autoencoder", config=vars(STAGE), tensors=other, provenance={}, card="test")
    with pytest.raises(CheckpointError, match="was trained on the latents of autoencoder"):
        ornstein.load(path)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    path = _save(tmp_path)
    checkpoint = read_checkpoint(path)
    tensors = {k: v for k, v in checkpoint.tensors().items() if k != "patch_out.weight"}
    tensors["surprise"] = tensors["patch_in.bias"]
    write_checkpoint(path, kind="text-to-image", config=checkpoint.config, tensors=tensors, provenance={}, card="test")
    with pytest.raises(CheckpointError, match=r"patch_out.weight is missing; surprise is unknown"):
        ornstein.load(path)
