"""The pipeline around a tiny untrained network: what must hold whatever the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ornstein
from ornstein.core.checkpoint import read_checkpoint, write_checkpoint
from ornstein.core.errors import CheckpointError, DataError, UnknownNameError
from ornstein.diffusion import NoiseSchedule, Step
from ornstein.images import (
    DrawingSettings,
    TextToImageConfig,
    TextToImagePipeline,
    image_to_image,
    inpaint,
    interpolate,
)
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig
from ornstein.networks.dit import DiT, DiTConfig, TextCondition

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


def test_guidance_acts_within_its_interval_alone(pipeline: TextToImagePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two branches inside, one outside; the whole way is guidance as ever, and an interval without a step is guidance 1."""
    seen: list[tuple[int, int]] = []
    network = pipeline.denoiser.forward

    def watched(x: torch.Tensor, t: torch.Tensor, condition: TextCondition) -> torch.Tensor:
        seen.append((int(t[0]), len(x)))
        return network(x, t, condition)

    monkeypatch.setattr(pipeline.denoiser, "forward", watched)
    settings = DrawingSettings(4, 3.0, guidance_interval=(250, 700))
    drawn = {"noise": _draw(pipeline, "a dog", guidance_scale=3.0, guidance_interval=(250, 700))[0]}
    assert seen == [(1000, 1), (750, 1), (500, 2), (250, 2)]
    start = Image.fromarray(drawn["noise"])
    mask = Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 64)[None].repeat(128, 0))
    for draw in (
        lambda: image_to_image(pipeline, "a dog", start, strength=1.0, settings=settings),
        lambda: inpaint(pipeline, "a dog", start, mask, settings=settings),
        lambda: interpolate(pipeline, ("a dog", "a key"), 2, settings=settings, only=[0]),
    ):
        seen.clear()
        draw()
        assert seen == [(1000, 1), (750, 1), (500, 2), (250, 2)]
    whole, none, plain, guided = (
        _draw(pipeline, "a dog", guidance_scale=w, guidance_interval=interval)[0]
        for w, interval in ((3.0, (0, 1000)), (3.0, (1, 249)), (1.0, None), (3.0, None))
    )
    assert np.array_equal(whole, guided)
    assert np.array_equal(none, plain)
    assert not np.array_equal(drawn["noise"], plain)
    for interval in ((3, 2), (-1, 5), (0, 1001)):
        with pytest.raises(DataError, match="LOW HIGH in time steps"):
            pipeline("a dog", guidance_interval=interval)


def test_pictures_are_streamed_as_they_are_finished(pipeline: TextToImagePipeline) -> None:
    """The first one costs the steps of its own batch; mistakes are refused before any; all are those of the call."""
    taken: list[int] = []

    def track(steps: Iterator[Step], total: int) -> Iterator[Step]:
        assert total == 3 * 4
        for step in steps:
            taken.append(step.index)
            yield step

    settings = DrawingSettings(4, seed=5)
    stream = pipeline.stream(["a key"] * 5, range(5), settings, batch_size=2, track=track)
    drawn = [np.asarray(next(stream))]
    assert taken == [0, 1, 2, 3]
    drawn += [np.asarray(picture) for picture in stream]
    assert taken == [0, 1, 2, 3] * 3
    assert np.array_equal(drawn, _draw(pipeline, "a key", seed=5, num_images_per_prompt=5, batch_size=2))
    with pytest.raises(DataError, match="empty"):
        pipeline.stream(["a key", " "], [0, 1], settings)
    with pytest.raises(DataError, match="batch size"):
        pipeline.stream(["a key"], [0], settings, batch_size=0)
    with pytest.raises(DataError, match="finite"):
        pipeline.stream(["a key"], [0], DrawingSettings(guidance_scale=float("inf")))


def test_frames_are_drawn_alone_as_among_the_others(pipeline: TextToImagePipeline) -> None:
    settings = DrawingSettings(3, eta=1.0)
    every = interpolate(pipeline, ("a key", "a dog"), 4, settings=settings)
    one = interpolate(pipeline, ("a key", "a dog"), 4, settings=settings, only=[2])
    assert [np.array_equal(np.asarray(one[0]), np.asarray(frame)) for frame in every] == [False, False, True, False]
    with pytest.raises(DataError, match="0 … 3"):
        interpolate(pipeline, ("a key", "a dog"), 4, only=[4])
