r"""How much each time step's error counts.

A weight means something only together with what is predicted, because at one x_t the squared errors of the four are proportional:

    ‖Δx_0‖² = ‖Δε‖² / SNR,    ‖Δv‖² = ‖Δε‖² / α̅,    ‖Δscore‖² = ‖Δε‖² / σ²,    SNR = α̅ / σ²

    "simple"    1 for whatever is predicted: relative to the ε-loss that is 1/SNR for x_0, 1/α̅ for v, 1/σ² for the score.
    "min_snr"   min(SNR, γ) · ‖Δx_0‖² for every prediction (Hang et al. 2023, §3.4): so min(SNR, γ)/SNR for ε,
                min(SNR, γ)/(SNR + 1) for v, min(SNR, γ) σ²/SNR for the score.
    "elbo"      T · ½ (SNR_{t−1} − SNR_t) · ‖Δx_0‖² (Ho et al. 2020, eq. 8, with σ_t² = β̃_t; Kingma et al. 2021, eq. 14), and
                T · ‖Δx_0‖² / (2 β_1) at t = 1, where p(x_0 | x_1) = N(x̂_0, β_1 I). Its mean over t is the variational bound on
                −log p(x_0) in nats a dimension, but for KL(q(x_T | x_0) ‖ p(x_T)) + ½ ln(2π β_1), which no network changes.
    a function  w(λ) of the log-SNR λ: the factor of ‖Δε‖², whatever is predicted (Kingma & Gao 2023, eq. 7, in time steps).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from ornstein.core.errors import DataError, unknown_name
from ornstein.diffusion.predictions import check_prediction

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from ornstein.diffusion.schedule import NoiseSchedule

Weighting = Literal["simple", "min_snr", "elbo"]
#: w(λ), float64 (batch,) → (batch,).
WeightOfLogSNR = Callable[[Tensor], Tensor]


def loss_weight(
    schedule: NoiseSchedule,
    t: Int64[Tensor, " batch"],
    prediction: str,
    weighting: Weighting | WeightOfLogSNR,
    *,
    min_snr_gamma: float = 5.0,
) -> Float[Tensor, " batch"]:
    """The factor of each sample's squared error in what is predicted; float64, t from 1.

    Args:
        weighting: see the head of this module. min_snr_gamma: γ.

    Raises:
        UnknownNameError: no such weighting or prediction. DataError: γ is not positive, a weight is negative or not finite, or
            has another shape.
    """
    check_prediction(prediction)
    if weighting == "simple":
        return torch.ones(t.shape, dtype=torch.float64, device=t.device)
    of_eps, of_x_0 = _of_eps_and_x_0(schedule, t, weighting, min_snr_gamma)
    match prediction:
        case "epsilon":
            weight = of_eps
        case "sample":
            weight = of_x_0
        case "v_prediction":  # by way of x_0 where no signal is left: a weight of ε may be infinite there
            signal = schedule.alpha_bar(t)
            weight = torch.where(signal > 0, of_eps * signal, of_x_0 * schedule.sigma(t) ** 2)
        case _:
            weight = of_eps * schedule.sigma(t) ** 2
    if weight.shape != t.shape or not bool((torch.isfinite(weight) & (weight >= 0)).all()):
        raise DataError(
            f"the weights of {prediction!r} must be finite, not negative and one a sample ({len(t)}), got {weight.tolist()[:4]}…;"
            " where no signal is left (zero terminal SNR), 'elbo' needs 'sample' or 'v_prediction'"
        )
    return weight


def _of_eps_and_x_0(
    schedule: NoiseSchedule, t: Tensor, weighting: Weighting | WeightOfLogSNR, gamma: float
) -> tuple[Tensor, Tensor]:
    """The same weighting as a factor of ‖Δε‖² and of ‖Δx_0‖²; written so that both are right where SNR is 0, if they exist."""
    log_snr = schedule.log_snr(t)
    snr = torch.exp(log_snr)
    if callable(weighting):
        of_eps = weighting(log_snr).to(torch.float64)
        return of_eps, of_eps * snr
    match weighting:
        case "min_snr":
            if not gamma > 0:
                raise DataError(f"gamma of the min-SNR weighting must be positive, got {gamma}")
            # γ/SNR rather than min(SNR, γ)/SNR: finite where SNR = 0, too.
            return (gamma / snr).clamp(max=1.0), snr.clamp(max=gamma)
        case "elbo":
            before = schedule.log_snr(t - 1)
            half = schedule.num_steps / 2
            # At t = 1 the bound has the decoder's term: 1/β_1 in place of an infinite SNR_0 − SNR_1.
            gain = torch.where(t > 1, torch.exp(before) - snr, 1 / schedule.beta(torch.ones_like(t)))
            relative = torch.where(t > 1, torch.expm1(before - log_snr), gain / snr)
            return half * relative, half * gain
        case _:
            raise unknown_name("weighting", str(weighting), get_args(Weighting))
