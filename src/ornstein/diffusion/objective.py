r"""The training objective.

    L = E_{t, x_0, ε} w_t ‖y_θ(α_t x_0 + σ_t ε, t) − y‖² / d,    t uniform on 1 … T

with y the quantity that the network predicts (ε: Ho et al. 2020, eq. 14) and d the numbers in a sample. A weight means
something only together with what is predicted, because at one x_t the squared errors of the four are proportional:

    ‖Δx_0‖² = ‖Δε‖² / SNR,    ‖Δv‖² = ‖Δε‖² / α̅,    ‖Δscore‖² = ‖Δε‖² / σ²,    SNR = α̅ / σ²

    "simple"    w = 1 for whatever is predicted: relative to the ε-loss that is 1/SNR for x_0, 1/α̅ for v, 1/σ² for the score.
    "min_snr"   min(SNR, γ) · ‖Δx_0‖² for every prediction (Hang et al. 2023, §3.4): so w is min(SNR, γ) for x_0,
                min(SNR, γ)/SNR for ε, min(SNR, γ)/(SNR + 1) for v, min(SNR, γ) σ²/SNR for the score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from ornstein.core.errors import DataError
from ornstein.diffusion.predictions import check_prediction, from_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int64

    from ornstein.diffusion.schedule import NoiseSchedule

Weighting = Literal["simple", "min_snr"]


class DiffusionLoss(NamedTuple):
    """loss: the scalar to minimise. per_sample: (batch,), weighted, its terms. t: (batch,), the time steps drawn."""

    loss: Tensor
    per_sample: Tensor
    t: Tensor


def ddpm_loss(
    denoiser: Callable[[Tensor, Tensor, Any], Tensor],
    x_0: Float[Tensor, "batch ..."],
    condition: Any,
    schedule: NoiseSchedule,
    prediction: str,
    rng: torch.Generator,
    *,
    weighting: Weighting = "simple",
    min_snr_gamma: float = 5.0,
    stratified: bool = False,
) -> DiffusionLoss:
    """One Monte-Carlo estimate of the objective.

    Args:
        denoiser: `(x_t, t, condition)` → a prediction of x_t's shape.
        x_0: data, of about unit variance. condition: passed on as it is.
        prediction: what the denoiser predicts, one of `PREDICTIONS`.
        rng: draws t, then ε; a generator on x_0's device.
        weighting: "simple" or "min_snr" with γ = `min_snr_gamma`: see the head of this module.
        stratified: one t from each of `batch` equal parts of 1 … T, which lowers the variance of the estimate.

    Raises:
        DataError: x_0 is empty, the prediction has another shape, or the weighting is unknown. UnknownNameError: no such
            prediction.
    """
    check_prediction(prediction)
    if weighting not in ("simple", "min_snr"):
        raise DataError(f"the weighting must be 'simple' or 'min_snr', got {weighting!r}")
    if x_0.numel() == 0:
        raise DataError("the diffusion loss needs at least one sample")
    t = sample_times(len(x_0), schedule.num_steps, rng, stratified=stratified)
    eps = torch.randn(x_0.shape, generator=rng, device=x_0.device, dtype=x_0.dtype)
    alpha, sigma = schedule.alpha_sigma(t, x_0)
    predicted = denoiser(alpha * x_0 + sigma * eps, t, condition)
    if predicted.shape != x_0.shape:
        raise DataError(f"the denoiser must return the data's shape {tuple(x_0.shape)}, got {tuple(predicted.shape)}")
    target = from_pair(x_0, eps, prediction, alpha, sigma)
    # At least float32: under autocast the network's output is half precision, and squares of small errors would vanish.
    precision = torch.promote_types(x_0.dtype, torch.float32)
    per_sample = (predicted.to(precision) - target.to(precision)).square().flatten(1).mean(1)
    if weighting == "min_snr":
        weight = min_snr_weight(
            schedule, t.cpu(), prediction, min_snr_gamma
        )  # cast before the move: some devices have no float64
        per_sample = per_sample * weight.to(per_sample.dtype).to(per_sample.device)
    return DiffusionLoss(per_sample.mean(), per_sample, t)


def sample_times(batch: int, num_steps: int, rng: torch.Generator, *, stratified: bool = False) -> Int64[Tensor, " batch"]:
    """Time steps uniform on 1 … T; stratified: one from each of `batch` equal parts of the range, the parts in random order."""
    if not stratified:
        return torch.randint(1, num_steps + 1, (batch,), generator=rng, device=rng.device)
    order = torch.randperm(batch, generator=rng, device=rng.device)
    precision = torch.float32 if rng.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    place = (order + torch.rand(batch, generator=rng, device=rng.device, dtype=precision)) / batch
    return (place * num_steps).long().clamp(max=num_steps - 1) + 1


def min_snr_weight(schedule: NoiseSchedule, t: Int64[Tensor, " batch"], prediction: str, gamma: float) -> Float[Tensor, " batch"]:
    """The factor of each sample's squared error (Hang et al. 2023, §3.4), float64, for the error of what is predicted.

    Written with γ/SNR rather than min(SNR, γ)/SNR: finite where no signal is left (SNR = 0), too.
    """
    if not gamma > 0:
        raise DataError(f"gamma of the min-SNR weighting must be positive, got {gamma}")
    snr = torch.exp(schedule.log_snr(t))
    for_eps = (gamma / snr).clamp(max=1.0)
    match check_prediction(prediction):
        case "epsilon":
            return for_eps
        case "sample":
            return snr.clamp(max=gamma)
        case "v_prediction":
            return for_eps * schedule.alpha_bar(t)  # SNR / (SNR + 1) = α̅
        case "score":
            return for_eps * schedule.sigma(t) ** 2
