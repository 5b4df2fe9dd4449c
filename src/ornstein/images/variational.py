"""The variational autoencoder's objective: a bound on bits a dimension, never the likelihood itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ornstein.core.errors import DataError
from ornstein.networks.ladder_vae import discretised_logistic_log_prob, kl_divergence

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

    from ornstein.networks.ladder_vae import LadderVAE


def negative_elbo(
    model: LadderVAE, pictures: Float[Tensor, "batch 3 side side"], rng: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean negative evidence lower bound in bits a dimension (Kingma & Welling 2014), and its two parts.

    Args:
        pictures: 8-bit numbers scaled to [−1, 1].
    """
    law, groups = model.descend(len(pictures), model.look(pictures), _noise(rng, len(pictures)))
    unit = math.log(2) * pictures[0].numel()
    rate = torch.stack([kl_divergence(q, p).flatten(1).sum(1) for p, q, _ in groups]).sum(0) / unit
    distortion = -discretised_logistic_log_prob(pictures.float(), law).flatten(1).sum(1) / unit
    return (rate + distortion).mean(), {"rate": rate.mean(), "distortion": distortion.mean()}


@torch.inference_mode()
def importance_weighted_bits(
    model: LadderVAE, pictures: Float[Tensor, "batch 3 side side"], rng: torch.Generator, *, samples: int
) -> Tensor:
    """A tighter bound: −log₂ (1/K) Σ p(x, z_k) / q(z_k | x) a dimension (Burda et al. 2016), float64 (batch,).

    In expectation it falls as K grows and never below the true figure; with K = 1 it is the negative ELBO.

    Raises:
        DataError: no samples.
    """
    if samples < 1:
        raise DataError(f"importance weighting needs at least one sample, got {samples}")
    maps, batch = model.look(pictures), len(pictures)
    logs = []
    for _ in range(samples):
        law, groups = model.descend(batch, maps, _noise(rng, batch))
        log_ratio = discretised_logistic_log_prob(pictures.float(), law).double().flatten(1).sum(1)
        for prior, posterior, z in groups:
            log_ratio += (prior.log_prob(z) - posterior.log_prob(z)).double().flatten(1).sum(1)
        logs.append(log_ratio)
    log_mean = torch.logsumexp(torch.stack(logs), dim=0) - math.log(samples)
    return -log_mean / (math.log(2) * pictures[0].numel())


def _noise(rng: torch.Generator, batch: int) -> Callable[[int, tuple[int, ...]], Tensor]:
    return lambda number, shape: torch.randn(batch, *shape, generator=rng, device=rng.device)
