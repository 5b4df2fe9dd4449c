"""The objective of the autoencoder, and pictures ↔ tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from numpy.typing import NDArray

    from ornstein.networks.autoencoder import Autoencoder

_STATISTICS_MOMENTUM = 0.01


def to_tensor(pixels: NDArray[np.uint8]) -> Float[Tensor, "batch 3 height width"]:
    """RGB pictures uint8 (batch, height, width, 3) → float32 in [−1, 1], channels first."""
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise DataError(f"pictures must be uint8 (batch, height, width, 3), got {pixels.dtype} {pixels.shape}")
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(pictures: Float[Tensor, "batch 3 height width"]) -> NDArray[np.uint8]:
    """Pictures in [−1, 1] (clipped) → uint8 (batch, height, width, 3)."""
    scaled: UInt8[Tensor, "batch 3 height width"] = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def autoencoder_loss(
    model: Autoencoder,
    pixels: Float[Tensor, "batch 3 height width"],
    rng: torch.Generator,
    *,
    latent_noise: float,
    prior_weight: float,
    edge_weight: float,
    equivariance_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reconstruction through a noisy bottleneck.

    Four terms: mean absolute error; the same between differences of neighbouring pixels (edges; OpenMoji lives by its
    outlines); |z|², the KL divergence of N(z, σ²) to N(0, I) up to a constant; and the error of decoding the *halved*
    latent against the halved picture, which keeps fine noise out of the latent and makes it easier to diffuse
    (Skorokhodov et al. 2025, "Improving the Diffusability of Autoencoders").

    Args:
        pixels: in [−1, 1].
        latent_noise: σ, the fixed posterior standard deviation.
        prior_weight, edge_weight, equivariance_weight: of the terms above.

    Returns:
        The loss and its parts for the log; `psnr` is in dB with the noisy bottleneck.
    """
    z = model.encode_raw(pixels)
    with torch.no_grad():  # the standardisation that `encode` and `decode` use
        flat = z.detach().float()
        model.latent_mean.lerp_(flat.mean((0, 2, 3)), _STATISTICS_MOMENTUM)
        model.latent_std.lerp_(flat.std((0, 2, 3)), _STATISTICS_MOMENTUM)
    noise = torch.randn(z.shape, generator=rng, device=z.device)
    noisy = z + latent_noise * noise
    reconstruction = model.decoder(noisy).float()
    absolute = (reconstruction - pixels).abs().mean()
    edges = _edge_difference(reconstruction, pixels)
    halved = functional.avg_pool2d(noisy, 2)
    small = (model.decoder(halved).float() - functional.avg_pool2d(pixels, 2)).abs().mean()
    prior = z.float().square().mean()
    loss = absolute + edge_weight * edges + equivariance_weight * small + prior_weight * prior
    with torch.no_grad():
        squared = (reconstruction.clamp(-1, 1) - pixels).square().mean() / 4
    return loss, {
        "psnr": -10 * squared.log10(),
        "absolute": absolute.detach(),
        "small": small.detach(),
        "z_rms": prior.detach().sqrt(),
    }


def _edge_difference(a: Tensor, b: Tensor) -> Tensor:
    difference = a - b
    return (difference[..., 1:] - difference[..., :-1]).abs().mean() + (
        difference[..., 1:, :] - difference[..., :-1, :]
    ).abs().mean()


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB of each picture of a batch: 10 log10(255² / mean squared error), at most 100."""
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2).reshape(len(a), -1).mean(axis=1)
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(error, 1e-9)), 100.0)


@torch.inference_mode()
def reconstruction_psnr(model: Autoencoder, pixels: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.float64]:
    """PSNR in dB of each picture (n, side, side, 3) after encoding and decoding; pictures are read batch by batch."""
    values = []
    for start in range(0, len(pixels), batch_size):
        part = np.ascontiguousarray(pixels[start : start + batch_size])
        values.append(psnr(part, to_pixels(model.decode(model.encode(to_tensor(part))))))
    return np.concatenate(values)
