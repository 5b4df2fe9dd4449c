"""Editing with denoisers that are exact: what comes out is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ornstein.core.errors import DataError
from ornstein.diffusion import NoiseSchedule
from ornstein.images import DrawingSettings, TextToImageConfig, TextToImagePipeline, image_to_image, inpaint, interpolate
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig
from ornstein.networks.dit import DiT, DiTConfig

NETWORK = DiTConfig(width=32, depth=1, heads=2)
STAGE = AutoencoderConfig(quarter_channels=8, eighth_channels=8, encoder_blocks=1, decoder_blocks=1)
SETTINGS = DrawingSettings(num_inference_steps=20, guidance_scale=1.0)
APPLE, DOG = "a red apple", "a dog above a car"


class Points(torch.nn.Module):
    """The exact v of data that are a few pictures, whatever the prompt."""

    def __init__(self, schedule: NoiseSchedule, latents: torch.Tensor) -> None:
        super().__init__()
        self.schedule, self.latents = schedule, latents

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        alpha, sigma = self.schedule.alpha_sigma(t, x_t)
        distances = (x_t.flatten(1)[:, None] - alpha.reshape(-1, 1, 1) * self.latents.flatten(1)).square().sum(-1)
        weights = (-distances / (2 * sigma.reshape(-1, 1) ** 2)).softmax(1)
        x_0 = (weights @ self.latents.flatten(1)).reshape(x_t.shape)
        return alpha * (x_t - alpha * x_0) / sigma - sigma * x_0


class Answer(torch.nn.Module):
    """The exact v of data that are a single point a prompt: x_0 = the pieces' first numbers, summed."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    @staticmethod
    def answer(pieces: torch.Tensor) -> torch.Tensor:
        return 3 * pieces.sum(1)[:, :4, None, None].expand(-1, -1, 16, 16)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        alpha, sigma = self.schedule.alpha_sigma(t, x_t)
        x_0 = self.answer(condition.pieces)
        return alpha * (x_t - alpha * x_0) / sigma - sigma * x_0


@pytest.fixture
def pipeline() -> TextToImagePipeline:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = DiT(NETWORK), Autoencoder(STAGE)
    return TextToImagePipeline(*networks, TextToImageConfig(NETWORK, NoiseSchedule.cosine().to_json(), "v_prediction", "0" * 16))


@pytest.fixture
def knowing(pipeline: TextToImagePipeline) -> TextToImagePipeline:
    pipeline.denoiser = Answer(pipeline.schedule)  # type: ignore[assignment]
    return pipeline


def _pictures(n: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((128, 128)) for _ in range(n)]


def _latent(pipeline: TextToImagePipeline, picture: Image.Image) -> torch.Tensor:
    from ornstein.images import to_tensor

    with torch.inference_mode():
        return pipeline.autoencoder.encode(to_tensor(np.array(picture)[None])).float().clone()


def _decoded(pipeline: TextToImagePipeline, latent: torch.Tensor) -> np.ndarray:
    return pipeline.decode(latent)[0].astype(int)


def test_little_strength_stays_with_the_picture_and_full_strength_leaves_it(pipeline: TextToImagePipeline) -> None:
    """Data that are two pictures: noised a little, the nearer one comes back; from noise alone, either."""
    pictures = _pictures(2)
    latents = torch.cat([_latent(pipeline, picture) for picture in pictures])
    latents = 3 * latents / latents.std()
    pipeline.denoiser = Points(pipeline.schedule, latents)  # type: ignore[assignment]
    ends = [_decoded(pipeline, latent[None]) for latent in latents]
    came = {0.2: set(), 1.0: set()}
    for strength, found in came.items():
        for seed in range(8):
            drawn = image_to_image(pipeline, APPLE, pictures[0], strength=strength, settings=DrawingSettings(20, 1.0, seed))
            distances = [np.abs(np.asarray(drawn).astype(int) - end).mean() for end in ends]
            assert min(distances) < 2
            found.add(int(np.argmin(distances)))
    assert came[1.0] == {0, 1}
    assert len(came[0.2]) == 1


def test_only_the_steps_below_the_strength_are_taken(knowing: TextToImagePipeline) -> None:
    seen: list[int] = []
    inner = knowing.denoiser

    def watched(x: torch.Tensor, t: torch.Tensor, c: Any) -> torch.Tensor:
        seen.append(int(t[0]))
        return inner(x, t, c)

    knowing.denoiser = watched  # type: ignore[assignment]
    image_to_image(knowing, APPLE, _pictures(1)[0], strength=0.5, settings=SETTINGS)
    assert seen == list(range(500, 0, -50))
    drawn = image_to_image(knowing, APPLE, _pictures(1)[0], strength=1.0, settings=SETTINGS)
    wanted = _decoded(knowing, Answer.answer(knowing.condition([APPLE]).pieces))
    assert np.abs(np.asarray(drawn).astype(int) - wanted).max() <= 1


def test_what_is_not_masked_stays_to_the_last_bit_and_the_rest_is_the_prompts(knowing: TextToImagePipeline) -> None:
    picture = _pictures(1)[0].resize((64, 64))
    white = np.zeros((64, 64), np.uint8)
    white[8:40, 16:48] = 255
    drawn = np.asarray(inpaint(knowing, APPLE, picture, Image.fromarray(white), settings=SETTINGS))
    large, inside = np.asarray(picture.resize((128, 128))), np.asarray(Image.fromarray(white).resize((128, 128))) >= 128
    assert np.array_equal(drawn[~inside], large[~inside])
    known = _latent(knowing, picture.resize((128, 128)))
    cells = torch.zeros(1, 1, 16, 16)
    cells[..., 2:10, 4:12] = 1
    latent = torch.where(cells > 0, Answer.answer(knowing.condition([APPLE]).pieces), known)
    assert np.abs(drawn.astype(int) - _decoded(knowing, latent))[inside].max() <= 1


def test_pictures_of_every_kind_are_read_as_they_look(knowing: TextToImagePipeline) -> None:
    from ornstein.images.editing import _rgb

    clear = Image.new("RGBA", (20, 30), (255, 0, 0, 0))
    clear.paste((0, 128, 0, 255), (0, 0, 20, 15))
    pixels = _rgb(clear, knowing)
    assert pixels.shape == (128, 128, 3)
    assert pixels[10, 60].tolist() == [0, 128, 0]
    assert pixels[120, 60].tolist() == [255, 255, 255]
    assert _rgb(clear, knowing, "black")[120, 60].tolist() == [0, 0, 0]
    assert _rgb(Image.new("L", (5, 5), 90), knowing)[0, 0].tolist() == [90, 90, 90]
    for value, wanted in ((0, 0), (90 * 257, 90), (65535, 255)):
        deep = Image.fromarray(np.full((5, 5), value, np.uint16))
        assert _rgb(deep, knowing)[0, 0].tolist() == [wanted] * 3
    with pytest.raises(DataError, match="no scale"):
        _rgb(Image.new("F", (5, 5), 0.5), knowing)


def test_what_is_transparent_in_a_mask_is_kept(knowing: TextToImagePipeline) -> None:
    picture = _pictures(1)[0]
    mask = Image.new("RGBA", (128, 128), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (0, 0, 128, 64))
    drawn = np.asarray(inpaint(knowing, APPLE, picture, mask, settings=SETTINGS))
    assert np.array_equal(drawn[64:], np.asarray(picture)[64:])
    assert not np.array_equal(drawn[:64], np.asarray(picture)[:64])


def test_interpolation_ends_at_the_prompts_own_pictures(knowing: TextToImagePipeline) -> None:
    answers = [Answer.answer(knowing.condition([prompt]).pieces) for prompt in (APPLE, DOG)]
    frames = interpolate(knowing, (APPLE, DOG), 5, settings=SETTINGS)
    assert len(frames) == 5
    for share, frame in zip((0.0, 0.25, 0.5, 0.75, 1.0), frames, strict=True):
        wanted = _decoded(knowing, torch.lerp(*answers, share))
        assert np.abs(np.asarray(frame).astype(int) - wanted).max() <= 1


def test_noise_turns_without_shrinking(pipeline: TextToImagePipeline) -> None:
    """Frames between two seeds: the ends are the seeds' own pictures bit for bit, and noise keeps its length in between."""
    for eta in (0.0, 1.0):  # where every step adds noise, that turns too
        settings = DrawingSettings(num_inference_steps=20, guidance_scale=1.0, eta=eta)
        frames = interpolate(pipeline, (APPLE, APPLE), 3, seeds=(3, 4), settings=settings)
        for frame, seed in ((frames[0], 3), (frames[-1], 4)):
            own = pipeline(APPLE, num_inference_steps=20, guidance_scale=1.0, seed=seed, eta=eta)[0]
            assert np.array_equal(np.asarray(frame), np.asarray(own))
    from ornstein.images.editing import _turned

    a, b = (torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    lengths = [float(_turned(a, b, share).norm()) for share in np.linspace(0, 1, 9)]
    assert max(lengths) / min(lengths) < 1.05
    torch.testing.assert_close(_turned(a, a, 0.3), a)


def test_a_negative_prompt_takes_the_place_of_nothing(knowing: TextToImagePipeline) -> None:
    """x̃_0 = x_0(negative) + w (x_0(prompt) − x_0(negative)), for data that are one point a prompt."""
    prompt, negative = (Answer.answer(knowing.condition([text]).pieces) for text in (APPLE, DOG))
    settings: dict[str, Any] = {"num_inference_steps": 20, "seed": 0}
    found = knowing.denoise([APPLE], [0], guidance_scale=2.5, negative_prompt=DOG, **settings)
    torch.testing.assert_close(found, negative + 2.5 * (prompt - negative), atol=2e-3, rtol=1e-3)
    plain = knowing.denoise([APPLE], [0], guidance_scale=2.5, **settings)
    torch.testing.assert_close(plain, 2.5 * prompt, atol=2e-3, rtol=1e-3)  # nothing's pieces are zero


def test_mistakes_are_named(knowing: TextToImagePipeline) -> None:
    picture, mask = _pictures(2)
    black, white = (Image.fromarray(np.full((128, 128), value, np.uint8)) for value in (0, 255))
    half = Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 64)[None].repeat(128, 0))
    for call, message in (
        (lambda: image_to_image(knowing, APPLE, picture, strength=0.0), "strength"),
        (lambda: image_to_image(knowing, APPLE, picture, strength=1.5), "strength"),
        (lambda: image_to_image(knowing, APPLE, picture, strength=0.01, settings=SETTINGS), "take more of either"),
        (lambda: image_to_image(knowing, " ", picture), "empty"),
        (lambda: inpaint(knowing, APPLE, picture, mask.resize((64, 64))), "the picture's size"),
        (lambda: inpaint(knowing, APPLE, picture, black), "some of both"),
        (lambda: inpaint(knowing, APPLE, picture, white), "some of both"),
        (lambda: inpaint(knowing, APPLE, picture, half, strength=2.0), "strength"),
        (lambda: interpolate(knowing, (APPLE, DOG), 1), "two frames"),
        (lambda: interpolate(knowing, (APPLE, ""), 3), "empty"),
        (lambda: interpolate(knowing, (APPLE, DOG), 3, settings=DrawingSettings(negative_prompt=" ")), "empty"),
        (lambda: knowing(APPLE, negative_prompt="   "), "empty"),
    ):
        with pytest.raises(DataError, match=message):
            call()
