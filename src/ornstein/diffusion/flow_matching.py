r"""Flow matching along straight lines (Lipman et al. 2023; Liu et al. 2023, "rectified flow").

    x_τ = (1 − τ) ε + τ x,        dx/dτ = E[x − ε | x_τ],        τ from 0 (noise) to 1 (data)

The network learns that velocity. It is not the v of `predictions`, which belongs to paths with α² + σ² = 1; both paths have the same marginals
up to scale and time, so what is known of one can be turned into the other (tested on mixtures).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from ornstein.core.errors import DataError, DivergenceError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

    #: (x_τ, τ, condition) → velocity of x_τ's shape; τ has shape (batch,), within [0, 1].
    Velocity = Callable[[Tensor, Tensor, Any], Tensor]

Method = Literal["euler", "midpoint", "heun"]


def flow_matching_loss(
    velocity: Velocity,
    x: Float[Tensor, "batch ..."],
    condition: Any,
    rng: torch.Generator,
    *,
    early: float = 0.0,
) -> Tensor:
    """Mean squared error to x − ε at drawn times (Lipman et al. 2023, eq. 23 with σ_min = 0).

    Args:
        x: data, of about unit variance. rng: draws τ, then ε; a generator on x's device.
        early: 0 draws τ uniformly; above, more often near the noise, τ = 1 − u^(1 / (1 + early)): π0 (Black et al. 2024) draws from a beta
            distribution for the same reason, that actions follow from observations more than pictures from sentences.

    Raises:
        DataError: no data, `early` below 0, or the network returns another shape.
    """
    if x.numel() == 0 or early < 0:
        raise DataError(f"flow matching needs at least one sample and early ≥ 0, got {len(x)} and {early}")
    u = torch.rand(len(x), generator=rng, device=x.device)
    tau = 1 - u ** (1 / (1 + early))
    eps = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
    at = tau.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    predicted = velocity((1 - at) * eps + at * x, tau, condition)
    if predicted.shape != x.shape:
        raise DataError(f"the velocity must have the data's shape {tuple(x.shape)}, got {tuple(predicted.shape)}")
    precision = torch.promote_types(x.dtype, torch.float32)  # as in `ddpm_loss`
    return (predicted.to(precision) - (x - eps).to(precision)).square().mean()


def flow(
    velocity: Velocity,
    noise: Float[Tensor, "batch ..."],
    num_steps: int,
    condition: Any = None,
    *,
    method: Method = "euler",
) -> Float[Tensor, "batch ..."]:
    """Data from noise, in equal steps of τ; deterministic.

    Args:
        noise: standard normal. method: "euler", one evaluation a step; "midpoint" and "heun", two, second order.

    Raises:
        DataError: no steps. UnknownNameError: no such method. DivergenceError: a number is no longer finite.
    """
    if num_steps < 1:
        raise DataError(f"a flow takes at least one step, got {num_steps}")
    if method not in get_args(Method):
        raise unknown_name("method", method, get_args(Method))
    x, h = noise.to(torch.promote_types(noise.dtype, torch.float32)), 1.0 / num_steps
    for k in range(num_steps):
        v = velocity(x, _times(x, k * h), condition)
        if method == "midpoint":
            v = velocity(x + h / 2 * v, _times(x, (k + 0.5) * h), condition)
        elif method == "heun":
            v = (v + velocity(x + h * v, _times(x, (k + 1) * h), condition)) / 2
        x = x + h * v
        if not torch.isfinite(x).all():
            raise DivergenceError(f"the flow is no longer finite after step {k + 1} of {num_steps}")
    return x


def _times(x: Tensor, tau: float) -> Tensor:
    return torch.full((len(x),), min(tau, 1.0), device=x.device)
