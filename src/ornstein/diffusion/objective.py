r"""The training objective.

    L = E_{t, x_0, ε} ‖ε − ε_θ(√α̅_t x_0 + √(1 − α̅_t) ε, t)‖²,    t uniform on 1 … T        (Ho et al. 2020, eq. 14)

and the same for other predictions: the mean squared error of what the network predicts. `min_snr` weights it by
min(SNR_t, γ)/SNR_t relative to the ε-loss (Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting"), which
for v becomes min(SNR, γ)/(SNR + 1) and for x_0 min(SNR, γ).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from ornstein.core.errors import DataError
from ornstein.diffusion.predictions import Prediction, check_prediction, from_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int64

    from ornstein.diffusion.schedule import NoiseSchedule

Weighting = Literal["simple", "min_snr"]


class DiffusionLoss(NamedTuple):
    """loss: the scalar to minimise. per_sample: (batch,), weighted. t: (batch,), the time steps drawn."""

    loss: Tensor
    per_sample: Tensor
    t: Tensor


def ddpm_loss(
    denoiser: Callable[[Tensor, Tensor, Any], Tensor],
    x_0: Float[Tensor, "batch ..."],
    condition: Any,
    schedule: NoiseSchedule,
    prediction: Prediction,
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
        rng: draws t and ε; a generator on x_0's device.
        weighting: "simple" (each prediction's own mean squared error) or "min_snr" with γ = `min_snr_gamma`.
        stratified: one t from each of `batch` equal parts of 1 … T, which lowers the variance of the estimate.

    Raises:
        DataError: x_0 is empty, or the prediction has another shape.
    """
    check_prediction(prediction)
    if len(x_0) == 0:
        raise DataError("the diffusion loss needs at least one sample")
    t = sample_times(len(x_0), schedule.num_steps, rng, stratified=stratified)
    eps = torch.randn(x_0.shape, generator=rng, device=x_0.device, dtype=x_0.dtype)
    alpha, sigma = schedule.alpha_sigma(t, x_0)
    predicted = denoiser(alpha * x_0 + sigma * eps, t, condition)
    if predicted.shape != x_0.shape:
        raise DataError(f"the denoiser must return the data's shape {tuple(x_0.shape)}, got {tuple(predicted.shape)}")
    target = from_pair(x_0, eps, prediction, alpha, sigma)
    per_sample = (predicted.to(target.dtype) - target).square().flatten(1).mean(1)
    if weighting == "min_snr":
        per_sample = per_sample * min_snr_weight(schedule, t, prediction, min_snr_gamma).to(per_sample.dtype)
    elif weighting != "simple":
        raise DataError(f"the weighting must be 'simple' or 'min_snr', got {weighting!r}")
    return DiffusionLoss(per_sample.mean(), per_sample, t)


def sample_times(batch: int, num_steps: int, rng: torch.Generator, *, stratified: bool = False) -> Int64[Tensor, " batch"]:
    """Time steps uniform on 1 … T; stratified: the k-th from the k-th of `batch` equal parts, in random order of parts."""
    if not stratified:
        return torch.randint(1, num_steps + 1, (batch,), generator=rng, device=rng.device)
    order = torch.randperm(batch, generator=rng, device=rng.device)
    place = (order + torch.rand(batch, generator=rng, device=rng.device, dtype=torch.float64)) / batch
    return (place * num_steps).long().clamp(max=num_steps - 1) + 1


def min_snr_weight(
    schedule: NoiseSchedule, t: Int64[Tensor, " batch"], prediction: Prediction, gamma: float
) -> Float[Tensor, " batch"]:
    """Weight of each sample's squared error (Hang et al. 2023, §3.4), float64, for the prediction's own error."""
    if not gamma > 0:
        raise DataError(f"gamma of the min-SNR weighting must be positive, got {gamma}")
    snr = torch.exp(schedule.log_snr(t))
    clipped = snr.clamp(max=gamma)
    match prediction:
        case "epsilon":
            return clipped / snr
        case "sample":
            return clipped
        case "v_prediction":
            return clipped / (snr + 1)
        case _:  # the score is −ε/σ: its squared error is ε's divided by σ², so the weight is ε's times σ²
            return clipped / snr * (1 - schedule.alpha_bar(t))
