"""Three ways to draw small pictures from noise: diffusion over pixels, a GAN's generator, a VAE's decoder.

All draw by number: picture i of a seed starts from noise that depends on (seed, i) alone, whatever the batch around it (the pictures
themselves then agree to rounding, since networks compute batches of another shape in another order).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ornstein.core.errors import CheckpointError, DataError
from ornstein.diffusion import DPMSolverPP2M, KeyedNoise, NoiseSchedule, Sampler
from ornstein.images.autoencoding import to_pixels
from ornstein.networks.adversarial import AdversarialPair, DCGANConfig, R3GANConfig
from ornstein.networks.categorical_vae import CategoricalVAE, CategoricalVAEConfig
from ornstein.networks.precision import fast_precision
from ornstein.networks.unet import UNet, UNetConfig
from ornstein.networks.weight_files import load_strictly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ornstein.core.checkpoint import Checkpoint

_BATCH = 64


class PixelModel(Protocol):
    """What the three have in common."""

    network: nn.Module
    resolution: int

    def draw(self, indices: Sequence[int], *, seed: int = 0) -> NDArray[np.uint8]:
        """Pictures of these numbers, RGB uint8 (n, resolution, resolution, 3)."""
        ...


@dataclass(frozen=True)
class PixelDiffusionConfig:
    """What a checkpoint of kind "pixel-diffusion" is made of, apart from its weights."""

    network: UNetConfig
    schedule: dict[str, Any]
    prediction: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PixelDiffusionConfig:
        network = UNetConfig(**{**data["network"], "multipliers": tuple(data["network"]["multipliers"])})
        return cls(network, data["schedule"], data["prediction"])


class PixelDiffusion:
    """A U-Net that denoises pixels in [−1, 1]."""

    def __init__(self, network: UNet, config: PixelDiffusionConfig, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.network, self.config = network.to(self.device).eval(), config
        self.schedule = NoiseSchedule.from_json(config.schedule)
        self.resolution = config.network.resolution

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> PixelDiffusion:
        """Load strictly.

        Raises:
            CheckpointError: configuration or weights do not fit.
        """
        config = _fitting(checkpoint, lambda: PixelDiffusionConfig.from_json(checkpoint.config))
        return cls(load_strictly(UNet(config.network), checkpoint), config, device)

    def sampler(self, kind: type[Sampler] = DPMSolverPP2M, num_steps: int = 25, **settings: Any) -> Sampler:
        """A sampler over this model's schedule; x̂_0 is clipped to the range of pixels."""
        return kind(self.schedule, num_steps, prediction=self.config.prediction, clip=1.0, **settings)

    @torch.inference_mode()
    def draw(
        self, indices: Sequence[int], *, seed: int = 0, stepper: Sampler | None = None, batch_size: int = _BATCH
    ) -> NDArray[np.uint8]:
        """Pictures of these numbers; by default with 25 steps of DPM-Solver++ 2M."""
        stepper = stepper or self.sampler()
        shape = (3, self.resolution, self.resolution)

        def part(noise: KeyedNoise) -> Tensor:
            return stepper.sample(self.denoise, noise.initial(shape), None, noise)

        return _in_batches(indices, seed, batch_size, self.device, part)

    def denoise(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The network as a denoiser, in the fast precision of the device."""
        with fast_precision(self.device):
            return self.network(x_t, t, condition)


class GAN:
    """A generator; its discriminator is kept beside it."""

    def __init__(self, network: AdversarialPair, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.resolution = network.config.resolution

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> GAN:
        """Load strictly.

        Raises:
            CheckpointError: configuration or weights do not fit.
        """
        return cls(
            load_strictly(AdversarialPair(_fitting(checkpoint, lambda: gan_config(checkpoint.config))), checkpoint), device
        )

    @torch.inference_mode()
    def draw(self, indices: Sequence[int], *, seed: int = 0, batch_size: int = _BATCH) -> NDArray[np.uint8]:
        """Pictures of these numbers, one evaluation each."""
        size = self.network.config.latent_size

        def part(noise: KeyedNoise) -> Tensor:
            with fast_precision(self.device):
                return self.network.draw(noise.initial((size,)))

        return _in_batches(indices, seed, batch_size, self.device, part)


class VAE:
    """A variational autoencoder with choices among a few values for latents."""

    def __init__(self, network: CategoricalVAE, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.resolution = network.config.resolution

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> VAE:
        """Load strictly.

        Raises:
            CheckpointError: configuration or weights do not fit.
        """

        def config() -> CategoricalVAEConfig:
            data = checkpoint.config
            return CategoricalVAEConfig(**{**data, "encoder_channels": tuple(data["encoder_channels"])})

        return cls(load_strictly(CategoricalVAE(_fitting(checkpoint, config)), checkpoint), device)

    @torch.inference_mode()
    def draw(self, indices: Sequence[int], *, seed: int = 0, batch_size: int = _BATCH) -> NDArray[np.uint8]:
        """Pictures of these numbers: latents from the prior, and the mean of each pixel's law, which is smoother than a draw from it."""

        def part(noise: KeyedNoise) -> Tensor:
            with fast_precision(self.device):
                law, _ = self.network.describe(len(noise.sample_indices), None, noise.at)
            return law.mean

        return _in_batches(indices, seed, batch_size, self.device, part)


def gan_config(data: dict[str, Any]) -> R3GANConfig | DCGANConfig:
    """The configuration behind `{"recipe": "r3gan" or "dcgan", …}`."""
    fields = {**data, "channels": tuple(data["channels"])}
    match fields.pop("recipe"):
        case "r3gan":
            return R3GANConfig(**fields)
        case "dcgan":
            return DCGANConfig(**fields)
        case other:
            raise DataError(f"a GAN's recipe is r3gan or dcgan, got {other!r}")


def _fitting(checkpoint: Checkpoint, config: Callable[[], Any]) -> Any:
    try:
        return config()
    except (KeyError, TypeError, DataError) as error:
        raise CheckpointError(f"the configuration of {checkpoint.path} does not fit a {checkpoint.kind}: {error}") from error


def _in_batches(
    indices: Sequence[int], seed: int, batch_size: int, device: torch.device, part: Callable[[KeyedNoise], Tensor]
) -> NDArray[np.uint8]:
    if batch_size < 1 or len(indices) == 0:
        raise DataError(f"there must be a number to draw and a batch size of at least 1, got {len(indices)} and {batch_size}")
    chunks = (indices[start : start + batch_size] for start in range(0, len(indices), batch_size))
    return np.concatenate([to_pixels(part(KeyedNoise(seed, chunk, device))) for chunk in chunks])
