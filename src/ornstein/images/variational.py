"""The variational autoencoder's objective: a bound on bits a dimension, never the likelihood itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ornstein.core.errors import DataError
from ornstein.networks.categorical_vae import SMALLEST_LOG_SCALE, discretised_logistic_log_prob

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

    from ornstein.networks.categorical_vae import CategoricalVAE


def negative_elbo(
    model: CategoricalVAE, pictures: Float[Tensor, "batch 3 side side"], rng: torch.Generator, *, scale_weight: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean negative evidence lower bound in bits a dimension (Kingma & Welling 2014), and its two parts.

    Args:
        pictures: 8-bit numbers scaled to [−1, 1].
        scale_weight: β of Seitzer et al. 2022 ("On the Pitfalls of Heteroscedastic Uncertainty Estimation"). Each number's
            likelihood counts in the loss in proportion to its law's scale^β, which takes no gradient: with 0 it is the bound itself,
            whose gradient is all for the numbers that are certain already. The two parts that are returned are never weighted.

    Raises:
        DataError: β below zero.
    """
    if not scale_weight >= 0:
        raise DataError(f"the weight of scales must not be negative, got {scale_weight}")
    law, choices = model.describe(len(pictures), model.look(pictures), _noise(rng, len(pictures)))
    unit = math.log(2) * pictures[0].numel()
    rate = torch.stack([choice.divergence().sum(1) for choice in choices]).sum(0).mean() / unit
    bits = -discretised_logistic_log_prob(pictures.float(), law) / math.log(2)
    weights = (scale_weight * law.log_scale.detach().clamp(min=SMALLEST_LOG_SCALE)).exp()
    return rate + (bits * weights / weights.mean()).mean(), {"rate": rate, "distortion": bits.mean()}


@torch.inference_mode()
def importance_weighted_bits(
    model: CategoricalVAE, pictures: Float[Tensor, "batch 3 side side"], rng: torch.Generator, *, samples: int
) -> Tensor:
    """A tighter bound: −log₂ (1/K) Σ p(x, z_k) / q(z_k | x) a dimension (Burda et al. 2016), float64 (batch,).

    In expectation it falls as K grows and never below the true figure; with K = 1 it is the negative ELBO.

    Raises:
        DataError: no samples.
    """
    if samples < 1:
        raise DataError(f"importance weighting needs at least one sample, got {samples}")
    seen, batch = model.look(pictures), len(pictures)
    logs = []
    for _ in range(samples):
        law, choices = model.describe(batch, seen, _noise(rng, batch))
        log_ratio = discretised_logistic_log_prob(pictures.float(), law).double().flatten(1).sum(1)
        for choice in choices:
            log_ratio += choice.log_ratio().double()
        logs.append(log_ratio)
    log_mean = torch.logsumexp(torch.stack(logs), dim=0) - math.log(samples)
    return -log_mean / (math.log(2) * pictures[0].numel())


def _noise(rng: torch.Generator, batch: int) -> Callable[[int, tuple[int, ...]], Tensor]:
    return lambda number, shape: torch.randn(batch, *shape, generator=rng, device=rng.device)
