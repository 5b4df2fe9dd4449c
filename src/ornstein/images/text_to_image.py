"""Latent text-to-image: a sentence → guided diffusion in the autoencoder's latent space → a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from ornstein.core.checkpoint import read_checkpoint
from ornstein.core.errors import CheckpointError, DataError, unknown_name
from ornstein.diffusion import (
    DDIM,
    DDPM,
    ClassifierFreeGuidance,
    DPMSolverPP2M,
    DPMSolverPP2MSDE,
    DPMSolverPP3M,
    Euler,
    Heun,
    KeyedNoise,
    NoiseSchedule,
    Sampler,
    Step,
)
from ornstein.images.autoencoding import to_pixels
from ornstein.images.settings import DrawingSettings, SamplerName
from ornstein.images.weights import load_autoencoder
from ornstein.language import UniversalSentenceEncoder, check_text
from ornstein.networks.autoencoder import DOWNSAMPLING, Autoencoder
from ornstein.networks.dit import DiT, DiTConfig, TextCondition
from ornstein.networks.precision import fast_precision
from ornstein.networks.weight_files import load_strictly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.diffusion.sampling import Denoiser

_SAMPLERS: dict[str, type[Sampler]] = {
    "ddim": DDIM,
    "ddpm": DDPM,
    "dpm++": DPMSolverPP2M,
    "dpm++3m": DPMSolverPP3M,
    "dpm++sde": DPMSolverPP2MSDE,
    "euler": Euler,
    "heun": Heun,
}


@dataclass(frozen=True)
class TextToImageConfig:
    """What a text-to-image checkpoint is made of, apart from its weights.

    guidance_range: of a few-step student, the scales that it was taught; empty for a denoiser.
    """

    network: DiTConfig
    schedule: dict[str, Any]
    prediction: str
    autoencoder_fingerprint: str
    resolution: int = 128
    guidance_range: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "guidance_range" or self.guidance_range}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TextToImageConfig:
        try:
            scales = tuple(map(float, data.get("guidance_range", ())))
            if scales and not (len(scales) == 2 and scales[0] <= scales[1]):
                raise DataError(f"a guidance range is two numbers in order, got {scales}")
            return cls(**{**data, "network": DiTConfig(**data["network"]), "guidance_range": scales})
        except (KeyError, TypeError, ValueError, DataError) as error:
            raise CheckpointError(f"the configuration of this text-to-image model does not fit: {error}") from error


class TextToImagePipeline:
    """Draws what a sentence says.

    >>> pipeline = ornstein.load("text-to-image")
    >>> pipeline("a red apple on a yellow background", seed=3)[0].save("apple.png")
    """

    network_type: ClassVar[type[DiT]] = DiT

    def __init__(
        self,
        denoiser: DiT,
        autoencoder: Autoencoder,
        config: TextToImageConfig,
        device: str | torch.device = "cpu",
        fingerprint: str = "",
    ) -> None:
        """
        Args:
            fingerprint: of the checkpoint that the networks were read from, if they were.
        """
        self.config = config
        self.device = torch.device(device)
        self.fingerprint = fingerprint
        self.denoiser = denoiser.to(self.device).eval()
        self.autoencoder = autoencoder.to(self.device).eval()
        self.schedule = NoiseSchedule.from_json(config.schedule)
        self.text = UniversalSentenceEncoder()

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, autoencoders: Sequence[Path] = (), device: str | torch.device = "cpu"
    ) -> TextToImagePipeline:
        """Load strictly, with the very autoencoder that the model was trained with.

        Args:
            autoencoders: where it may be, after the checkpoint's own folder `autoencoder/` and the one beside it.

        Raises:
            CheckpointError: the autoencoder is in none of these places, or weights do not fit the configuration.
        """
        config = TextToImageConfig.from_json(checkpoint.config)
        first_stage = first_stage_of(checkpoint, autoencoders)
        networks = load_strictly(cls.network_type(config.network), checkpoint), load_autoencoder(first_stage)
        return cls(*networks, config, device, checkpoint.fingerprint)

    def condition(self, prompts: Sequence[str]) -> TextCondition:
        """The prompts as the denoiser reads them, padded to the longest of them."""
        ids = self.text.piece_ids(list(prompts), self.config.network.text_length)
        ids = ids[:, : max(1, int((ids >= 0).sum(1).max()))]
        parts = (self.text.piece_vectors(ids), ids >= 0)
        return TextCondition(*(torch.from_numpy(part).to(self.device) for part in parts))

    @torch.inference_mode()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num_inference_steps: int = 50,
        guidance_scale: float = 4.0,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        num_images_per_prompt: int = 1,
        sampler: SamplerName = "ddim",
        eta: float = 0.0,
        negative_prompt: str = "",
        guidance_interval: tuple[int, int] | None = None,
        batch_size: int = 1,
        track: Callable[[Iterator[Any], int], Iterator[Any]] = lambda steps, total: steps,
    ) -> list[Image]:
        """Pictures for one or several prompts.

        The noise of picture j of a prompt depends on (seed, j) alone, and by default each picture is denoised by itself
        (its two guidance branches in one batch): so it is the same, bit for bit, alone or among others.

        Args:
            prompt: a sentence or several, each at most 300 characters.
            num_inference_steps: denoising steps. Each evaluates the network once ("heun" twice), on two branches where guidance is on.
            guidance_scale: w of ε̃ = ε(∅) + w (ε(c) − ε(∅)): 0 ignores the prompt, 1 follows it, more exaggerates it.
            seed: any integer from 0 to 2⁶⁴ − 1; 0 unless given. generator: draws the seed instead, so that its next call gives other pictures.
            num_images_per_prompt: pictures a prompt, in order: prompt 0's, prompt 1's, ….
            sampler: "ddim", "ddpm", "dpm++", "dpm++3m", "dpm++sde", "euler" or "heun". eta: DDIM's share of fresh noise, 0…1.
            negative_prompt: what guidance leads away from, instead of from no prompt at all. Has no effect at guidance 1.
            guidance_interval: guide only at time steps t with low ≤ t ≤ high, of 1 … T; elsewhere the prompt is followed plainly (w = 1).
            batch_size: pictures denoised together. Above 1 it is faster on an accelerator, and pictures differ from those drawn
                alone by rounding: matrix products of another shape add in another order.
            track: wraps the iteration over the steps (`Step`) of all batches, for a progress bar or to look at them.

        Returns:
            PIL images, `len(prompts) × num_images_per_prompt` of them.

        Raises:
            DataError: an empty or over-long prompt, or a number out of range. UnknownNameError: no such sampler.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if num_images_per_prompt < 1:
            raise DataError(f"num_images_per_prompt must be at least 1, got {num_images_per_prompt}")
        if generator is not None:
            if seed is not None:
                raise DataError("give a seed or a generator, not both")
            seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
        settings = DrawingSettings(
            num_inference_steps, guidance_scale, seed or 0, sampler, eta, negative_prompt, guidance_interval
        )
        texts = [text for text in prompts for _ in range(num_images_per_prompt)]
        indices = [j for _ in prompts for j in range(num_images_per_prompt)]
        return list(self.stream(texts, indices, settings, batch_size=batch_size, track=track))

    def stream(
        self,
        prompts: Sequence[str],
        sample_indices: Sequence[int],
        settings: DrawingSettings,
        *,
        batch_size: int = 1,
        track: Callable[[Iterator[Any], int], Iterator[Any]] = lambda steps, total: steps,
    ) -> Iterator[Image]:
        """The pictures one by one, each as soon as its batch is finished: no more than one batch is held.

        Picture i starts from the noise of (seed, sample_indices[i]). Other arguments and errors as for calling the pipeline; they are
        checked at once, before the first picture is asked for.
        """
        from PIL import Image

        batches = self._batches(prompts, sample_indices, settings, batch_size, track)
        return (Image.fromarray(picture) for latents in batches for picture in self.decode(latents, batch_size))

    def denoise(
        self,
        prompts: Sequence[str],
        sample_indices: Sequence[int],
        *,
        num_inference_steps: int,
        guidance_scale: float,
        seed: int,
        sampler: SamplerName = "ddim",
        eta: float = 0.0,
        negative_prompt: str = "",
        guidance_interval: tuple[int, int] | None = None,
        batch_size: int = 1,
        track: Callable[[Iterator[Any], int], Iterator[Any]] = lambda steps, total: steps,
    ) -> Tensor:
        """Latents (N, C, S, S) for N prompts; row i starts from the noise of (seed, sample_indices[i])."""
        settings = DrawingSettings(num_inference_steps, guidance_scale, seed, sampler, eta, negative_prompt, guidance_interval)
        return torch.cat(list(self._batches(prompts, sample_indices, settings, batch_size, track)))

    def _batches(
        self,
        prompts: Sequence[str],
        sample_indices: Sequence[int],
        settings: DrawingSettings,
        batch_size: int,
        track: Callable[[Iterator[Any], int], Iterator[Any]],
    ) -> Iterator[Tensor]:
        """Latents of batch after batch. What is wrong is refused here, not at the first step."""
        self.check_prompts([*dict.fromkeys(prompts), *filter(None, [settings.negative_prompt])])
        if batch_size < 1:
            raise DataError(f"the batch size must be at least 1, got {batch_size}")
        if settings.seed < 0:
            raise DataError(f"the seed must be at least 0, got {settings.seed}")
        self._check_guidance(settings.guidance_scale, settings.guidance_interval)
        stepper = self.sampler(settings.sampler, settings.num_inference_steps, settings.eta)
        chunks = [slice(start, start + batch_size) for start in range(0, len(prompts), batch_size)]
        walks = (
            self.trajectory(
                prompts[chunk],
                sample_indices[chunk],
                stepper,
                settings.guidance_scale,
                settings.seed,
                negative_prompt=settings.negative_prompt,
                guidance_interval=settings.guidance_interval,
            )
            for chunk in chunks
        )
        steps = track(chain.from_iterable(walks), len(chunks) * stepper.num_steps)
        return (step.x for step in steps if step.index == stepper.num_steps - 1)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuse what this model cannot read.

        Raises:
            DataError: there is none, or one is empty, too long or not valid Unicode.
        """
        if not prompts:
            raise DataError("no prompt was given")
        for text in prompts:
            check_text(text)
            pieces, most = self.text.count_pieces(text), self.config.network.text_length
            if pieces > most:
                raise DataError(f"the prompt has {pieces} word pieces and this model reads {most}: shorten {text!r}")

    @torch.inference_mode()
    def trajectory(
        self,
        prompts: Sequence[str],
        sample_indices: Sequence[int],
        stepper: Sampler,
        guidance_scale: float,
        seed: int,
        *,
        negative_prompt: str = "",
        guidance_interval: tuple[int, int] | None = None,
        start: Tensor | None = None,
        wrap: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
    ) -> Iterator[Step]:
        """The sampler's steps for prompts denoised together: what filmstrips and progress bars iterate over.

        Args:
            start: latents at the sampler's first time, instead of noise. wrap: changes the guided denoiser, for example `KnownData`.
        """
        noise = KeyedNoise(seed, list(sample_indices), device=self.device)
        condition, nothing = self.conditions(prompts, negative_prompt)
        guided = wrap(self.guided(guidance_scale, nothing, guidance_interval, stepper))
        first = noise.initial(self.latent_shape) if start is None else start
        yield from stepper.iterate(guided, first, condition, noise)

    def guided(self, scale: float, nothing: TextCondition, interval: tuple[int, int] | None, stepper: Sampler) -> Denoiser:
        """The network as a denoiser of latents for `stepper`, guided at the times within `interval`, away from `nothing`."""
        self._check_guidance(scale, interval)
        return ClassifierFreeGuidance(self._denoise_once, scale, nothing, interval=interval)

    def _check_guidance(self, scale: float, interval: tuple[int, int] | None) -> None:
        if not np.isfinite(scale):
            raise DataError(f"the guidance scale must be finite, got {scale}")
        most = self.schedule.num_steps
        if interval is not None and not 0 <= interval[0] <= interval[1] <= most:
            raise DataError(f"the guidance interval is LOW HIGH in time steps, 0 ≤ LOW ≤ HIGH ≤ {most}, got {interval}")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, S, S)."""
        network = self.config.network
        return network.latent_channels, network.latent_size, network.latent_size

    def conditions(self, prompts: Sequence[str], negative_prompt: str = "") -> tuple[TextCondition, TextCondition]:
        """The prompts, and what guidance starts from (nothing, or the negative prompt), padded alike."""
        condition = self.condition(prompts)
        if not negative_prompt:
            return condition, TextCondition.empty(len(prompts), condition.mask.shape[1], self.device)
        both = self.condition([*prompts, *[negative_prompt] * len(prompts)])
        count = len(prompts)
        return TextCondition(*(leaf[:count] for leaf in both)), TextCondition(*(leaf[count:] for leaf in both))

    def sampler(self, name: SamplerName, num_steps: int, eta: float = 0.0, times: Sequence[int] | None = None) -> Sampler:
        """The sampler of that name over this model's schedule; `times` are the steps to take instead of all the way from T."""
        if name not in _SAMPLERS:
            raise unknown_name("sampler", name, _SAMPLERS)
        if not 1 <= num_steps <= self.schedule.num_steps:
            raise DataError(f"the number of steps must be between 1 and {self.schedule.num_steps}, got {num_steps}")
        if not 0.0 <= eta <= 1.0:
            raise DataError(f"eta must lie between 0 (deterministic) and 1, got {eta}")
        if eta > 0 and name != "ddim":
            raise DataError(f"eta is DDIM's share of fresh noise; the sampler {name!r} has none: leave it at 0")
        settings: dict[str, Any] = {"prediction": self.config.prediction, "spacing": "trailing" if times is None else times}
        if name == "ddim":
            settings["eta"] = eta
        return _SAMPLERS[name](self.schedule, num_steps, **settings)

    @torch.inference_mode()
    def decode(self, latents: Tensor, batch_size: int = 1) -> NDArray[np.uint8]:
        """Standardised latents (N, C, S, S) → RGB uint8 (N, 8·S, 8·S, 3)."""
        pictures = [to_pixels(self.autoencoder.decode(part)) for part in torch.split(latents, batch_size)]
        return np.concatenate(pictures)

    def _denoise_once(self, x_t: Tensor, t: Tensor, condition: TextCondition) -> Tensor:
        with fast_precision(self.device):
            return self.denoiser(x_t, t, condition)


def first_stage_of(model: Checkpoint, autoencoders: Sequence[Path] = ()) -> Checkpoint:
    """The autoencoder that a text-to-image model was trained with; what else lies in the places, damaged or foreign, is no obstacle.

    Args:
        autoencoders: where it may be, after the model's own folder `autoencoder/` and the one beside it.

    Raises:
        CheckpointError: it is in none of these places.
    """
    fingerprint = TextToImageConfig.from_json(model.config).autoencoder_fingerprint
    places = [model.path / "autoencoder", model.path.parent / "autoencoder", *autoencoders]
    found = []
    for place in places:
        if not (place / "config.json").exists():
            continue
        try:
            stage = read_checkpoint(place, expect_kind="autoencoder")
        except CheckpointError as error:
            found.append(str(error))
            continue
        if stage.fingerprint == fingerprint:
            return stage
        found.append(f"{stage.fingerprint} in {place}")
    raise CheckpointError(
        f"{model.path} was trained on the latents of autoencoder {fingerprint}, found: {', '.join(found) or 'none'};"
        f" put the right one into {places[0]}"
    )


def picture_size(config: TextToImageConfig) -> int:
    """Side in pixels of what the model draws."""
    return config.network.latent_size * DOWNSAMPLING
