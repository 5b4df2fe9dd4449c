r"""Distributions whose denoiser is known exactly: what samplers, objectives and likelihoods are tested against.

Under x_t = α x_0 + σ ε a Gaussian N(μ, Σ) becomes N(αμ, α²Σ + σ²I), and a mixture becomes the mixture of those. The best
predictions are conditional means, E[ε | x_t] = −σ ∇ log p_t(x_t) (Tweedie's formula).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ornstein.core.errors import DataError
from ornstein.diffusion.predictions import Prediction, convert

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int64

    from ornstein.diffusion.schedule import NoiseSchedule


class GaussianMixture:
    """Σ_k w_k N(μ_k, Σ_k) in d dimensions, float64."""

    def __init__(self, weights: Float[Tensor, " k"], means: Float[Tensor, "k d"], covariances: Float[Tensor, "k d d"]) -> None:
        self.weights, self.means, self.covariances = (part.double() for part in (weights, means, covariances))
        k, d = self.means.shape
        if self.weights.shape != (k,) or self.covariances.shape != (k, d, d):
            raise DataError(
                f"a mixture takes weights (k,), means (k, d) and covariances (k, d, d); got {tuple(weights.shape)},"
                f" {tuple(means.shape)}, {tuple(covariances.shape)}"
            )
        if (self.weights <= 0).any() or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise DataError("the weights of a mixture must be positive and sum to 1")
        self.weights = self.weights / self.weights.sum()  # float32 input sums to 1 up to rounding only
        self._variances, self._axes = torch.linalg.eigh(self.covariances)
        if (self._variances < -1e-12).any():
            raise DataError("a covariance has a negative variance in some direction")
        self._variances = self._variances.clamp(min=0)

    def sample(self, n: int, rng: torch.Generator) -> Float[Tensor, "n d"]:
        """n independent draws of x_0."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        z = torch.randn(n, self.means.shape[1], generator=rng, dtype=torch.float64)
        return self.means[which] + torch.einsum("nde,ne->nd", self._axes[which], self._variances[which].sqrt() * z)

    def log_prob(self, x_t: Float[Tensor, "n d"], alpha: float = 1.0, sigma: float = 0.0) -> Float[Tensor, " n"]:
        """log p_t(x_t) in nats, of the noised distribution at (α, σ); the data's own by default."""
        return torch.logsumexp(self._joint(x_t, alpha, sigma)[0], dim=1)

    def score(self, x_t: Float[Tensor, "n d"], alpha: float, sigma: float) -> Float[Tensor, "n d"]:
        """∇ log p_t(x_t)."""
        log_joint, slopes = self._joint(x_t, alpha, sigma)
        return torch.einsum("nk,nkd->nd", torch.softmax(log_joint, dim=1), slopes)

    def denoiser(self, schedule: NoiseSchedule, prediction: Prediction) -> Callable[[Tensor, Tensor, Any], Tensor]:
        """The exact denoiser `(x_t, t, condition) → prediction`; all rows of a batch at one time step or several."""

        def denoise(x_t: Float[Tensor, "n d"], t: Int64[Tensor, " n"], condition: Any = None) -> Float[Tensor, "n d"]:
            result = torch.empty_like(x_t)
            for step in torch.unique(t).tolist():
                rows = t == step
                bar = float(schedule.alpha_bars[step])
                alpha, sigma = math.sqrt(bar), math.sqrt(1 - bar)
                x = x_t[rows].double()
                value = convert(self.score(x, alpha, sigma), "score", prediction, x, x.new_tensor(alpha), x.new_tensor(sigma))
                result[rows] = value.to(x_t.dtype)
            return result

        return denoise

    def _joint(self, x_t: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """log w_k N(x_t; …) as (n, k), and each component's own score as (n, k, d)."""
        variances = alpha**2 * self._variances + sigma**2
        if (variances <= 0).any():
            raise DataError("a density that is flat in no direction needs a positive variance or some noise (sigma > 0)")
        centered = torch.einsum("kde,nkd->nke", self._axes, x_t.double()[:, None] - alpha * self.means[None])
        whitened = centered / variances
        d = self.means.shape[1]
        log_density = -0.5 * ((centered * whitened).sum(-1) + variances.log().sum(-1) + d * math.log(2 * math.pi))
        return self.weights.log() + log_density, -torch.einsum("kde,nke->nkd", self._axes, whitened)


class Gaussian(GaussianMixture):
    """N(μ, Σ): here the probability flow and every sampler's output law are known in closed form too."""

    def __init__(self, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]) -> None:
        super().__init__(torch.ones(1), mean[None], covariance[None])

    def flow(self, x_t: Float[Tensor, "n d"], schedule: NoiseSchedule, t: int, s: int) -> Float[Tensor, "n d"]:
        """Where the probability-flow ODE carries x_t from step t to step s: it keeps the standardised position.

        In each principal direction of Σ, (x − αμ)/√(α²λ + σ²) is constant along the flow.
        """
        bar_t, bar_s = float(schedule.alpha_bars[t]), float(schedule.alpha_bars[s])
        axes, variances, mean = self._axes[0], self._variances[0], self.means[0]
        place = (x_t.double() - math.sqrt(bar_t) * mean) @ axes / (bar_t * variances + 1 - bar_t).sqrt()
        return math.sqrt(bar_s) * mean + (place * (bar_s * variances + 1 - bar_s).sqrt()) @ axes.T
