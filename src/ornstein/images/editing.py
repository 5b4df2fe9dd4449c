"""What else a text-to-image model can do: start from a picture, draw a part anew, go from one prompt or noise to another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ornstein.core.errors import DataError
from ornstein.diffusion import KeyedNoise, KnownData, time_steps
from ornstein.images.autoencoding import to_tensor
from ornstein.networks.autoencoder import DOWNSAMPLING
from ornstein.networks.dit import TextCondition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image

    from ornstein.diffusion.sampling import Denoiser
    from ornstein.images.text_to_image import SamplerName, TextToImagePipeline


@dataclass(frozen=True)
class DrawingSettings:
    """How to draw, as for `TextToImagePipeline.__call__`. num_inference_steps: of a whole way from noise to picture."""

    num_inference_steps: int = 50
    guidance_scale: float = 4.0
    seed: int = 0
    sampler: SamplerName = "ddim"
    eta: float = 0.0
    negative_prompt: str = ""


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
        image: any size and mode; scaled to the model's, what is transparent on white. strength: within (0, 1]: how much may change; 1 leaves nothing of the picture.

    Raises:
        DataError: a number is out of range, or the prompt cannot be read.
    """
    settings = settings or DrawingSettings()
    if not 0.0 < strength <= 1.0:
        raise DataError(f"the strength lies between 0 (excluded) and 1, got {strength}")
    known = _encode(pipeline, image)
    return _draw(pipeline, [prompt], settings, known, strength=strength, track=track)[0]


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
        image, mask: of the same size; the mask's grey levels count as black or white, whichever is nearer.
        strength: how much of what was there before may go, as for `image_to_image`.

    Raises:
        DataError: the sizes differ, nothing or everything is masked, or as for `image_to_image`.
    """
    settings = settings or DrawingSettings()
    if image.size != mask.size:
        raise DataError(f"a mask has the picture's size {image.size}, got {mask.size}")
    if not 0.0 < strength <= 1.0:
        raise DataError(f"the strength lies between 0 (excluded) and 1, got {strength}")
    side = pipeline.latent_shape[1] * DOWNSAMPLING
    white = np.asarray(mask.convert("L").resize((side, side))) >= 128
    if white.all() or not white.any():
        raise DataError("the mask is white where to draw and black where to keep; it needs some of both")
    # A latent cell is drawn anew where any of its pixels is.
    cells = functional.max_pool2d(torch.from_numpy(white).float()[None, None], DOWNSAMPLING).to(pipeline.device)
    known = _encode(pipeline, image)

    def keep(denoiser: Denoiser) -> Denoiser:
        return KnownData(denoiser, pipeline.schedule, pipeline.config.prediction, known, cells)

    drawn = _draw(pipeline, [prompt], settings, known, strength=strength, wrap=keep, track=track)[0]
    pixels = np.where(white[..., None], np.asarray(drawn), _pixels(pipeline, image))
    return _image(pixels)


def interpolate(
    pipeline: TextToImagePipeline,
    prompts: tuple[str, str],
    frames: int,
    *,
    seeds: tuple[int, int] | None = None,
    settings: DrawingSettings | None = None,
    track: Callable[[Iterator[Any], int], Iterator[Any]] = lambda steps, total: steps,
) -> list[Image]:
    """Pictures from the first prompt to the second: frame k mixes their predictions with weights 1 − a and a, a = k / (frames − 1).

    Args:
        frames: two at least; the first and the last are the two prompts' own pictures.
        seeds: of the first and the last frame's noise; between them it turns from one to the other, at the same length (White 2016).
            By default both are the settings' seed.

    Raises:
        DataError: as for `image_to_image`.
    """
    settings = settings or DrawingSettings()
    if frames < 2:
        raise DataError(f"an interpolation has at least two frames, got {frames}")
    first, last = seeds or (settings.seed, settings.seed)
    noise = [KeyedNoise(seed, [0], pipeline.device).initial(pipeline.latent_shape) for seed in (first, last)]
    pipeline.check_prompts(prompts)
    stepper = pipeline.sampler(settings.sampler, settings.num_inference_steps, settings.eta)
    ticks = track(iter(range(frames * stepper.num_steps)), frames * stepper.num_steps)
    both, nothing = pipeline.conditions(prompts, settings.negative_prompt)
    guided = pipeline.guided(settings.guidance_scale, _row(nothing, 0))
    pictures = []
    for k in range(frames):
        share = k / (frames - 1)
        mixed, x = _Mixed(guided, _row(both, 0), _row(both, 1), share), _turned(noise[0], noise[1], share)
        with torch.inference_mode():
            for step in stepper.iterate(mixed, x, None, KeyedNoise(first, [0], pipeline.device)):
                next(ticks, None)
                x = step.x
        pictures.append(_image(pipeline.decode(x)[0]))
    next(ticks, None)
    return pictures


class _Mixed:
    """A denoiser between two conditions; at either end the other one is not evaluated."""

    def __init__(self, denoiser: Denoiser, first: TextCondition, last: TextCondition, share: float) -> None:
        self.denoiser, self.first, self.last, self.share = denoiser, first, last, share

    def __call__(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        if self.share in (0.0, 1.0):
            return self.denoiser(x_t, t, self.last if self.share else self.first)
        return torch.lerp(self.denoiser(x_t, t, self.first), self.denoiser(x_t, t, self.last), self.share)


def _row(condition: TextCondition, index: int) -> TextCondition:
    return TextCondition(*(leaf[index : index + 1] for leaf in condition))


def _draw(
    pipeline: TextToImagePipeline,
    prompts: Sequence[str],
    settings: DrawingSettings,
    known: Tensor,
    *,
    strength: float,
    wrap: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
    track: Callable[[Iterator[Any], int], Iterator[Any]],
) -> list[Image]:
    """From `known`, noised to the first time step at or below `strength` · T, along the rest of the whole way's steps."""
    pipeline.check_prompts([*prompts, *([settings.negative_prompt] if settings.negative_prompt else [])])
    whole = time_steps(pipeline.schedule.num_steps, settings.num_inference_steps, "trailing")
    times = [t for t in whole if t <= strength * pipeline.schedule.num_steps]
    if not times:
        raise DataError(f"{settings.num_inference_steps} steps leave none below a strength of {strength}: take more of either")
    stepper = pipeline.sampler(settings.sampler, len(times), settings.eta, times)
    noise = KeyedNoise(settings.seed, range(len(prompts)), pipeline.device).initial(pipeline.latent_shape)
    start = pipeline.schedule.add_noise(known, torch.full((len(known),), times[0], device=pipeline.device), noise)
    x = start
    steps = pipeline.trajectory(
        prompts, range(len(prompts)), stepper, settings.guidance_scale, settings.seed,
        negative_prompt=settings.negative_prompt, start=start, wrap=wrap,
    )  # fmt: skip
    for step in track(steps, stepper.num_steps):
        x = step.x
    return [_image(picture) for picture in pipeline.decode(x)]


def _pixels(pipeline: TextToImagePipeline, image: Image) -> NDArray[np.uint8]:
    """RGB at the model's size; what is transparent becomes white."""
    import PIL.Image

    side = pipeline.latent_shape[1] * DOWNSAMPLING
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", opaque.size, "white"), opaque)
    return np.array(image.convert("RGB").resize((side, side)))  # a copy: PIL lends its memory read-only


@torch.inference_mode()
def _encode(pipeline: TextToImagePipeline, image: Image) -> Tensor:
    return pipeline.autoencoder.encode(to_tensor(_pixels(pipeline, image)[None]).to(pipeline.device)).float()


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
