"""What else a text-to-image model can do: start from a picture, draw a part anew, go from one prompt or noise to another."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ornstein.core.errors import DataError
from ornstein.data.pictures import to_rgb
from ornstein.diffusion import KeyedNoise, KnownData, time_steps
from ornstein.images.autoencoding import to_tensor
from ornstein.images.settings import DrawingSettings
from ornstein.networks.autoencoder import DOWNSAMPLING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image

    from ornstein.diffusion.sampling import Denoiser, Step
    from ornstein.images.text_to_image import TextToImagePipeline


def image_to_image(
    pipeline: TextToImagePipeline,
    prompt: str,
    image: Image,
    *,
    strength: float = 0.6,
    settings: DrawingSettings | None = None,
    track: Callable[[Iterator[Any], int], Iterator[Any]] = lambda steps, total: steps,
) -> Image:
    """The picture noised up to the time `strength` · T and drawn anew from there (Meng et al. 2022, SDEdit).

    Args:
        image: of any size; scaled to the model's, what is transparent on white, 16 bits as 8.
        strength: within (0, 1]: how much may change; 1 leaves nothing of the picture.

    Raises:
        DataError: a number is out of range, or the prompt cannot be read.
    """
    return _image(_draw(pipeline, prompt, settings or DrawingSettings(), _encode(pipeline, image), strength, track))


def inpaint(
    pipeline: TextToImagePipeline,
    prompt: str,
    image: Image,
    mask: Image,
    *,
    strength: float = 1.0,
    settings: DrawingSettings | None = None,
    track: Callable[[Iterator[Any], int], Iterator[Any]] = lambda steps, total: steps,
) -> Image:
    """The picture with what the mask shows in white drawn anew (see `KnownData`); all else stays as it was, to the last bit of the
    picture scaled to the model's size.

    Args:
        image, mask: of the same size; the mask's grey levels count as black or white, whichever is nearer, what is transparent as black.
        strength: how much of what was there before may go, as for `image_to_image`.

    Raises:
        DataError: the sizes differ, nothing or everything is masked, or as for `image_to_image`.
    """
    if image.size != mask.size:
        raise DataError(f"a mask has the picture's size {image.size}, got {mask.size}")
    white = _rgb(mask, pipeline, "black").mean(2) >= 127.5
    if white.all() or not white.any():
        raise DataError("the mask is white where to draw and black where to keep; it needs some of both")
    # A latent cell is drawn anew where any of its pixels is.
    cells = functional.max_pool2d(torch.from_numpy(white).float()[None, None], DOWNSAMPLING).to(pipeline.device)
    known = _encode(pipeline, image)

    def keep(denoiser: Denoiser) -> Denoiser:
        return KnownData(denoiser, pipeline.schedule, pipeline.config.prediction, known, cells)

    drawn = _draw(pipeline, prompt, settings or DrawingSettings(), known, strength, track, wrap=keep)
    return _image(np.where(white[..., None], drawn, _rgb(image, pipeline)))


def interpolate(
    pipeline: TextToImagePipeline,
    prompts: tuple[str, str],
    frames: int,
    *,
    seeds: tuple[int, int] | None = None,
    only: Sequence[int] | None = None,
    settings: DrawingSettings | None = None,
    track: Callable[[Iterator[Any], int], Iterator[Any]] = lambda steps, total: steps,
) -> list[Image]:
    """Pictures from the first prompt to the second: frame k mixes their predictions with weights 1 − a and a, a = k / (frames − 1).

    Args:
        frames: two at least; the first and the last are the two prompts' own pictures.
        seeds: of the first and the last frame's noise; between them it turns from one to the other, at the same length (White 2016).
            By default both are the settings' seed.
        only: the frames to draw, if not all.

    Raises:
        DataError: as for `image_to_image`.
    """
    settings = settings or DrawingSettings()
    if frames < 2:
        raise DataError(f"an interpolation has at least two frames, got {frames}")
    if only is not None and not all(0 <= k < frames for k in only):
        raise DataError(f"the frames of {frames} are 0 … {frames - 1}, got {list(only)}")
    pipeline.check_prompts([*prompts, *filter(None, [settings.negative_prompt])])
    first, last = (KeyedNoise(seed, [0], pipeline.device) for seed in seeds or (settings.seed, settings.seed))
    stepper = pipeline.sampler(settings.sampler, settings.num_inference_steps, settings.eta)

    def towards(prompt: str) -> Callable[[Tensor, Tensor], Tensor]:
        # By itself: padded to the other's length, it would be rounded otherwise, and an end would not be the prompt's own picture.
        condition, nothing = pipeline.conditions([prompt], settings.negative_prompt)
        guided = pipeline.guided(settings.guidance_scale, nothing, settings.guidance_interval, stepper)
        return lambda x_t, t: guided(x_t, t, condition)

    ends = towards(prompts[0]), towards(prompts[1])

    @torch.inference_mode()
    def walk(k: int) -> Iterator[Step]:
        share = k / (frames - 1)
        mixed, noise = _Mixed(*ends, share), _TurnedNoise(first, last, share)
        yield from stepper.iterate(mixed, noise.initial(pipeline.latent_shape), None, noise)

    wanted = range(frames) if only is None else only
    steps = track(chain.from_iterable(map(walk, wanted)), len(wanted) * stepper.num_steps)
    return [_image(pipeline.decode(step.x)[0]) for step in steps if step.index == stepper.num_steps - 1]


class _Mixed:
    """A denoiser between two; at either end the other one is not evaluated."""

    def __init__(self, first: Callable[[Tensor, Tensor], Tensor], last: Callable[[Tensor, Tensor], Tensor], share: float) -> None:
        self.first, self.last, self.share = first, last, share

    def __call__(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        if self.share in (0.0, 1.0):
            return (self.last if self.share else self.first)(x_t, t)
        return torch.lerp(self.first(x_t, t), self.last(x_t, t), self.share)


class _TurnedNoise:
    """A noise source on the great circle between two, at the start and at every step."""

    def __init__(self, first: KeyedNoise, last: KeyedNoise, share: float) -> None:
        self.first, self.last, self.share = first, last, share

    def initial(self, shape: Sequence[int]) -> Tensor:
        return _turned(self.first.initial(shape), self.last.initial(shape), self.share)

    def at(self, step: int, shape: Sequence[int]) -> Tensor:
        return _turned(self.first.at(step, shape), self.last.at(step, shape), self.share)


def _draw(
    pipeline: TextToImagePipeline,
    prompt: str,
    settings: DrawingSettings,
    known: Tensor,
    strength: float,
    track: Callable[[Iterator[Any], int], Iterator[Any]],
    wrap: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
) -> NDArray[np.uint8]:
    """From `known`, noised to the first time step at or below `strength` · T, along the rest of the whole way's steps."""
    pipeline.check_prompts([prompt, *filter(None, [settings.negative_prompt])])
    times = times_below(pipeline, strength, settings.num_inference_steps)
    stepper = pipeline.sampler(settings.sampler, len(times), settings.eta, times)
    noise = KeyedNoise(settings.seed, [0], pipeline.device).initial(pipeline.latent_shape)
    x = pipeline.schedule.add_noise(known, torch.tensor(times[:1], device=pipeline.device), noise)
    walk = pipeline.trajectory(
        [prompt],
        [0],
        stepper,
        settings.guidance_scale,
        settings.seed,
        negative_prompt=settings.negative_prompt,
        guidance_interval=settings.guidance_interval,
        start=x,
        wrap=wrap,
    )
    for step in track(walk, stepper.num_steps):
        x = step.x
    return pipeline.decode(x)[0]


def times_below(pipeline: TextToImagePipeline, strength: float, num_steps: int) -> list[int]:
    """The time steps, of `num_steps` for the whole way, that are left from `strength` · T on.

    Raises:
        DataError: there is none, or a number is out of range.
    """
    if not 0.0 < strength <= 1.0:
        raise DataError(f"the strength lies between 0 (excluded) and 1, got {strength}")
    steps = pipeline.schedule.num_steps
    times = [t for t in time_steps(steps, num_steps, "trailing") if t <= strength * steps]
    if not times:
        raise DataError(f"{num_steps} steps leave none below a strength of {strength}: take more of either")
    return times


def _rgb(image: Image, pipeline: TextToImagePipeline, behind: str = "white") -> NDArray[np.uint8]:
    """At the model's size, on the colour `behind` where it is transparent."""
    side = pipeline.latent_shape[1] * DOWNSAMPLING
    return np.array(to_rgb(image, behind).resize((side, side)))  # a copy: PIL lends its memory read-only


@torch.inference_mode()
def _encode(pipeline: TextToImagePipeline, image: Image) -> Tensor:
    return pipeline.autoencoder.encode(to_tensor(_rgb(image, pipeline)[None]).to(pipeline.device)).float()


def _image(pixels: NDArray[np.uint8]) -> Image:
    import PIL.Image

    return PIL.Image.fromarray(pixels)


def _turned(a: Tensor, b: Tensor, share: float) -> Tensor:
    """From a to b along the great circle between them: normal noise in many dimensions lies near a sphere."""
    if torch.equal(a, b):
        return a
    cosine = float((a.flatten() @ b.flatten()) / (a.norm() * b.norm()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    return (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
