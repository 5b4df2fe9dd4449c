r"""The training objective.

    L = E_{t, x_0, ε} w_t ‖y_θ(α_t x_0 + σ_t ε, t) − y‖² / d,    t uniform on 1 … T

with y the quantity that the network predicts (ε: Ho et al. 2020, eq. 14), d the numbers in a sample, and weights w_t as in
`ornstein.diffusion.weighting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ornstein.core.errors import DataError, unknown_name
from ornstein.diffusion.predictions import check_prediction, from_pair
from ornstein.diffusion.weighting import loss_weight

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int64

    from ornstein.diffusion.schedule import NoiseSchedule
    from ornstein.diffusion.weighting import Weighting, WeightOfLogSNR

Times = Literal["uniform", "stratified", "logit_normal"]


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
    weighting: Weighting | WeightOfLogSNR = "simple",
    min_snr_gamma: float = 5.0,
    times: Times = "uniform",
) -> DiffusionLoss:
    """One Monte-Carlo estimate of the objective.

    Args:
        denoiser: `(x_t, t, condition)` → a prediction of x_t's shape.
        x_0: data, of about unit variance. condition: passed on as it is.
        prediction: what the denoiser predicts, one of `PREDICTIONS`.
        rng: draws t, then ε; a generator on x_0's device.
        weighting, min_snr_gamma: see `loss_weight`. times: see `sample_times`.

    Raises:
        DataError: x_0 is empty, the prediction has another shape, or a weight does not exist. UnknownNameError: no such
            prediction, weighting or way to draw times.
    """
    check_prediction(prediction)
    if x_0.numel() == 0:
        raise DataError("the diffusion loss needs at least one sample")
    t = sample_times(len(x_0), schedule.num_steps, rng, times)
    eps = torch.randn(x_0.shape, generator=rng, device=x_0.device, dtype=x_0.dtype)
    alpha, sigma = schedule.alpha_sigma(t, x_0)
    predicted = denoiser(alpha * x_0 + sigma * eps, t, condition)
    if predicted.shape != x_0.shape:
        raise DataError(f"the denoiser must return the data's shape {tuple(x_0.shape)}, got {tuple(predicted.shape)}")
    target = from_pair(x_0, eps, prediction, alpha, sigma)
    # At least float32: under autocast the network's output is half precision, and squares of small errors would vanish.
    precision = torch.promote_types(x_0.dtype, torch.float32)
    per_sample = (predicted.to(precision) - target.to(precision)).square().flatten(1).mean(1)
    if weighting != "simple":
        # Cast before the move: some devices have no float64.
        weight = loss_weight(schedule, t.cpu(), prediction, weighting, min_snr_gamma=min_snr_gamma)
        per_sample = per_sample * weight.to(per_sample.dtype).to(per_sample.device)
    return DiffusionLoss(per_sample.mean(), per_sample, t)


def sample_times(batch: int, num_steps: int, rng: torch.Generator, times: Times = "uniform") -> Int64[Tensor, " batch"]:
    """Time steps within 1 … T.

    Args:
        times: "uniform"; "stratified", uniform too but one from each of `batch` equal parts of the range, the parts in random
            order, which lowers the variance of the estimate; or "logit_normal", t = ⌈T · sigmoid(z)⌉ with z ~ N(0, 1), which
            prefers the middle (Esser et al. 2024, §3.1). The last changes the loss: it is a weighting by another name.

    Raises:
        UnknownNameError: there is no such way.
    """
    match times:
        case "uniform":
            return torch.randint(1, num_steps + 1, (batch,), generator=rng, device=rng.device)
        case "stratified":
            order = torch.randperm(batch, generator=rng, device=rng.device)
            precision = torch.float32 if rng.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
            place = (order + torch.rand(batch, generator=rng, device=rng.device, dtype=precision)) / batch
        case "logit_normal":
            place = torch.sigmoid(torch.randn(batch, generator=rng, device=rng.device))
        case _:
            raise unknown_name("way to draw times", times, get_args(Times))
    return (place * num_steps).long().clamp(max=num_steps - 1) + 1


def loss_by_band(result: DiffusionLoss, num_steps: int, bands: int = 4) -> Float[Tensor, " bands"]:
    """The mean loss in each of `bands` equal parts of 1 … T, from little noise to much; NaN where no t fell.

    Raises:
        DataError: more bands than time steps, or none.
    """
    if not 1 <= bands <= num_steps:
        raise DataError(f"there are between 1 and {num_steps} bands, got {bands}")
    band = (result.t - 1) * bands // num_steps
    per_sample = result.per_sample.detach()
    totals = torch.zeros(bands, dtype=per_sample.dtype, device=per_sample.device).index_add_(0, band, per_sample)
    return totals / torch.bincount(band, minlength=bands)
