"""Bits a dimension of the models that have any: diffusion by its exact flow and by its bound, a VAE by its bound alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ornstein.claims.outcome import Measure, mean_measure
from ornstein.diffusion import bits_per_dimension, dequantise, flow_log_likelihood, variational_bound
from ornstein.images import to_tensor
from ornstein.images.variational import importance_weighted_bits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ornstein.images import VAE, PixelDiffusion

_BATCH = 32


def likelihoods(models: dict[str, list[Any]], real: NDArray[np.uint8], seed: int, *, quick: bool) -> list[Measure]:
    """Means over fresh pictures, for the first model of a method; all in bits a dimension of 8-bit pictures."""
    few, many, evaluations, samples = (2, 4, 5, 2) if quick else (64, 500, 60, 64)
    found: list[Measure] = []
    for model in models.get("diffusion", [])[:1]:
        found += _of_diffusion(model, real, seed, few, many, evaluations)
    for model in models.get("VAE", [])[:1]:
        bounds = {k: _of_vae(model, real[:few], seed, k) for k in (1, samples)}
        found += [
            mean_measure(f"VAE's bound, {k} sample{'s' if k > 1 else ''}", bound.numpy(), unit="bits a dimension")
            for k, bound in bounds.items()
        ]
    return found


def _of_diffusion(
    model: PixelDiffusion, real: NDArray[np.uint8], seed: int, few: int, many: int, evaluations: int
) -> list[Measure]:
    rng = torch.Generator().manual_seed(seed)
    flow, error, bound = [], [], []
    dimensions = real[0].size
    for part in _parts(real[:few]):
        x = dequantise(torch.from_numpy(part).permute(0, 3, 1, 2), 256, rng).float()
        exact = flow_log_likelihood(
            model.network, x, None, model.schedule, model.config.prediction, trace="hutchinson", probes=2, rng=rng, tolerance=1e-3,
            check_solver=False,
        )  # fmt: skip
        flow.append(bits_per_dimension(exact.log_prob, dimensions, levels=256))
        error.append(exact.standard_error / dimensions)
    with torch.inference_mode():
        for part in _parts(real[:many]):
            terms = variational_bound(
                model.denoise, to_tensor(part), None, model.schedule, model.config.prediction, rng, levels=256,
                evaluations=evaluations,
            )  # fmt: skip
            bound.append(terms.total)
    unit = "bits a dimension"
    return [
        mean_measure("diffusion's exact flow, dequantised", torch.cat(flow).numpy(), unit=unit),
        Measure(
            "its trace estimator's mean standard error a picture", float(torch.cat(error).mean()), n=few, unit="nats a dimension"
        ),
        mean_measure("diffusion's variational bound", torch.cat(bound).numpy(), unit=unit),
    ]


def _of_vae(model: VAE, real: NDArray[np.uint8], seed: int, samples: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.cat([importance_weighted_bits(model.network, to_tensor(part), rng, samples=samples) for part in _parts(real)])


def _parts(pictures: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH)]
