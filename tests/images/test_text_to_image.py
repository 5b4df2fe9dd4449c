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


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "dpm++3m", "dpm++sde", "euler", "heun"])
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


class OneAnswer(torch.nn.Module):
    """The exact v of data that are a single point a prompt: x_0 = the pieces' first numbers, summed."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    @staticmethod
    def answer(pieces: torch.Tensor) -> torch.Tensor:
        return 3 * pieces.sum(1)[:, :4, None, None].expand(-1, -1, 16, 16)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
        alpha, sigma = self.schedule.alpha_sigma(t, x_t)
        x_0 = self.answer(condition.pieces)  # type: ignore[attr-defined]
        return alpha * (x_t - alpha * x_0) / sigma - sigma * x_0


@pytest.fixture
def knowing(pipeline: TextToImagePipeline) -> TextToImagePipeline:
    """A pipeline whose denoiser is exact."""
    exact = TextToImagePipeline(*_networks(), _config())
    exact.denoiser = OneAnswer(exact.schedule)  # type: ignore[assignment]
    return exact


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++", "dpm++3m", "dpm++sde", "euler", "heun"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_prompt_gets_its_own_answer(knowing: TextToImagePipeline, sampler: str, batch_size: int) -> None:
    prompts = ["a red apple", "two keys", "a dog above a car"]
    drawn = knowing.denoise(
        prompts, [0, 1, 2], num_inference_steps=7, guidance_scale=1.0, seed=0, sampler=sampler, batch_size=batch_size
    )
    wanted = OneAnswer.answer(knowing.condition(prompts).pieces)
    torch.testing.assert_close(drawn, wanted, atol=2e-3, rtol=0)
    assert (wanted[0] - wanted[1]).abs().max() > 0.05


def test_the_sampler_is_the_one_that_was_named(pipeline: TextToImagePipeline) -> None:
    kinds = {"ddim": "DDIM", "ddpm": "DDPM", "dpm++": "DPMSolverPP2M", "dpm++3m": "DPMSolverPP3M", "dpm++sde": "DPMSolverPP2MSDE"}
    kinds |= {"euler": "Euler", "heun": "Heun"}
    for name, kind in kinds.items():
        sampler = pipeline.sampler(name, 5)  # type: ignore[arg-type]
        assert (type(sampler).__name__, sampler.num_steps, sampler.prediction) == (kind, 5, "v_prediction")
    assert pipeline.sampler("ddim", 5, eta=0.3).eta == 0.3  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="leave it at 0"):
        pipeline.sampler("heun", 5, eta=0.3)


def test_a_generator_draws_the_seed(pipeline: TextToImagePipeline) -> None:
    generator = torch.Generator().manual_seed(3)
    first, second = (_draw(pipeline, "a key", generator=generator) for _ in range(2))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, _draw(pipeline, "a key", generator=torch.Generator().manual_seed(3)))
    with pytest.raises(DataError, match="not both"):
        pipeline("a key", seed=1, generator=generator)


def test_a_prompt_is_never_cut_in_silence(pipeline: TextToImagePipeline) -> None:
    words = ["key"] * 40
    counts = [pipeline.text.count_pieces(" ".join(words[:n])) for n in range(1, 41)]
    fits = max(n for n, count in enumerate(counts, 1) if count <= NETWORK.text_length)
    pipeline(" ".join(words[:fits]), num_inference_steps=1)
    with pytest.raises(DataError, match=f"{counts[fits]} word pieces and this model reads {NETWORK.text_length}"):
        pipeline(" ".join(words[: fits + 1]), num_inference_steps=1)


def test_a_damaged_or_foreign_neighbour_is_no_obstacle(tmp_path: Path) -> None:
    denoiser, autoencoder = _networks()
    config = {"quarter_channels": 8, "eighth_channels": 8, "encoder_blocks": 1, "decoder_blocks": 1, "latent_channels": 4}
    own = tmp_path / "model" / "autoencoder"
    write_checkpoint(own, kind="autoencoder", config=config, tensors=autoencoder.state_dict(), provenance={}, card="")
    fingerprint = read_checkpoint(own).fingerprint
    (tmp_path / "autoencoder").mkdir()
    (tmp_path / "autoencoder" / "config.json").write_text("{")
    folder = tmp_path / "drawer"
    write_checkpoint(
        folder,
        kind="text-to-image",
        config=_config(fingerprint).to_json(),
        tensors=denoiser.state_dict(),
        provenance={},
        card="",
    )
    assert TextToImagePipeline.from_checkpoint(read_checkpoint(folder), [own])
    with pytest.raises(CheckpointError, match=r"found: .*autoencoder.*damaged"):
        TextToImagePipeline.from_checkpoint(read_checkpoint(folder))
