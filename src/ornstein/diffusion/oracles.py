r"""Distributions whose denoiser is known exactly: what samplers, objectives and likelihoods are tested against.

Under x_t = α x_0 + σ ε, with p_0 the data's distribution, the best predictions are conditional means given x_t, and

    E[x_0 | x_t] = (x_t + σ² ∇ log p_t(x_t)) / α                                                (Tweedie's formula)

    Gaussian N(μ, Σ):            p_t = N(αμ, α²Σ + σ²I),   E[x_0 | x_t] = μ + αΣ (α²Σ + σ²I)⁻¹ (x_t − αμ)
    mixture Σ_k w_k N(μ_k, Σ_k): p_t the mixture of those, E[x_0 | x_t] the components' own, weighted by p(k | x_t)
    data set {x_i}:              the mixture of points, Σ_k = 0: a softmax over −‖x_t − αx_i‖²/2σ²

All in float64. α and σ are numbers, or one for each row of x_t.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ornstein.core.errors import DataError, OrnsteinError
from ornstein.diffusion.predictions import check_prediction, coefficients, convert

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from jaxtyping import Float, Shaped
    from numpy.typing import NDArray

    from ornstein.diffusion.schedule import NoiseSchedule, Time

    PerRow = float | Float[Tensor, " n"]


class Distribution(ABC):
    """Data in d dimensions with everything that diffusion asks of them, exact."""

    @abstractmethod
    def sample(self, n: int, rng: torch.Generator) -> Float[Tensor, "n d"]:
        """n independent draws of x_0, float64."""

    @abstractmethod
    def log_prob(self, x_t: Float[Tensor, "n d"], alpha: PerRow = 1.0, sigma: PerRow = 0.0) -> Float[Tensor, " n"]:
        """log p_t(x_t) in nats, of the noised distribution at (α, σ); the data's own by default."""

    @abstractmethod
    def score(self, x_t: Float[Tensor, "n d"], alpha: PerRow = 1.0, sigma: PerRow = 0.0) -> Float[Tensor, "n d"]:
        """∇ log p_t(x_t)."""

    @abstractmethod
    def posterior_mean(self, x_t: Float[Tensor, "n d"], alpha: PerRow, sigma: PerRow) -> Float[Tensor, "n d"]:
        """E[x_0 | x_t]."""

    @abstractmethod
    def posterior_variance(self, x_t: Float[Tensor, "n d"], alpha: PerRow, sigma: PerRow) -> Float[Tensor, " n"]:
        """tr Cov[x_0 | x_t] / d: the squared error of the best guess, the mean over dimensions."""

    def optimal_loss(
        self, schedule: NoiseSchedule, t: int, prediction: str, *, n: int, rng: torch.Generator
    ) -> tuple[float, float]:
        """The least mean squared error that any denoiser can reach at step t in what it predicts, and its standard error.

            E ‖y − E[y | x_t]‖² / d = c² · E tr Cov[x_0 | x_t] / d,    y = a x_t + c x_0

        The expectation over x_t is estimated from n draws; the error of the guess within each is exact.
        """
        level = schedule.level(t)
        factor = coefficients("sample", prediction, level.alpha, level.sigma).of_prediction ** 2
        x_0 = self.sample(n, rng)
        x_t = level.alpha * x_0 + level.sigma * torch.randn(x_0.shape, generator=rng, dtype=x_0.dtype)
        errors = factor * self.posterior_variance(x_t, level.alpha, level.sigma)
        return float(errors.mean()), float(errors.std() / n**0.5)

    def flow(
        self, x_t: Float[Tensor, "n d"], schedule: NoiseSchedule, t: Time, s: Time, *, tolerance: float = 1e-11
    ) -> Float[Tensor, "n d"]:
        """Where the probability-flow ODE carries x_t from time t to time s, either way; to about `tolerance`.

        In the angle φ with α = cos φ, σ = sin φ, the ODE is dx/dφ = E[v | x_t] (Salimans & Ho 2022, appendix D), with
        v = −σ (x_0 + α ∇ log p): nothing is divided by, so that t = 0 can be reached where the data have a density.

        Raises:
            DataError: the data are points, or have no spread in some direction, and a time is 0.
        """
        from scipy.integrate import solve_ivp

        start, end = schedule.angle(torch.tensor([t, s], dtype=torch.float64)).tolist()
        shape = tuple(x_t.shape)

        def velocity(angle: float, flat: NDArray[np.float64]) -> NDArray[np.float64]:
            x = torch.from_numpy(flat).reshape(shape)
            alpha, sigma = math.cos(angle), math.sin(angle)
            v = -sigma * (self.posterior_mean(x, alpha, sigma) + alpha * self.score(x, alpha, sigma))
            return v.flatten().numpy()

        found = solve_ivp(velocity, (start, end), x_t.double().flatten().numpy(), "DOP853", rtol=tolerance, atol=tolerance)
        if not found.success:
            raise OrnsteinError(f"the probability flow could not be followed from t = {t} to {s}: {found.message}")
        return torch.from_numpy(found.y[:, -1].copy()).reshape(shape)

    def denoiser(self, schedule: NoiseSchedule, prediction: str) -> Callable[..., Tensor]:
        """The exact denoiser `(x_t, t, condition) → prediction`, in x_t's type; any mixture of times within (0, T], whole or not."""
        check_prediction(prediction)

        def denoise(x_t: Float[Tensor, "n d"], t: Shaped[Tensor, " n"], condition: Any = None) -> Float[Tensor, "n d"]:
            x = x_t.double()
            if t.is_floating_point():
                angle = schedule.angle(t).to(x_t.device)
                alpha, sigma = angle.cos(), angle.sin()
            else:
                alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            best = self.posterior_mean(x, alpha, sigma)
            return convert(best, "sample", prediction, x, alpha[:, None], sigma[:, None]).to(x_t.dtype)

        return denoise


class GaussianMixture(Distribution):
    """Σ_k w_k N(μ_k, Σ_k) in d dimensions."""

    def __init__(self, weights: Float[Tensor, " k"], means: Float[Tensor, "k d"], covariances: Float[Tensor, "k d d"]) -> None:
        """
        Args:
            weights: positive, sum 1. covariances: symmetric, none negative in any direction; zero is a point.
        """
        self.weights, self.means, self.covariances = (part.double() for part in (weights, means, covariances))
        if self.means.ndim != 2 or self.covariances.shape != (*self.means.shape, self.means.shape[1]):
            raise DataError(
                "a mixture takes weights (k,), means (k, d) and covariances (k, d, d); got"
                f" {tuple(weights.shape)}, {tuple(means.shape)}, {tuple(covariances.shape)}"
            )
        self.weights = _checked_weights(self.weights, len(self.means))
        if not torch.allclose(self.covariances, self.covariances.mT):
            raise DataError("a covariance must be symmetric")
        self._variances, self._axes = torch.linalg.eigh(self.covariances)
        if (self._variances < -1e-12).any():
            raise DataError("a covariance has a negative variance in some direction")
        self._variances = self._variances.clamp(min=0)

    def sample(self, n: int, rng: torch.Generator) -> Float[Tensor, "n d"]:
        which = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        z = torch.randn(n, self.means.shape[1], generator=rng, dtype=torch.float64)
        return self.means[which] + torch.einsum("nde,ne->nd", self._axes[which], self._variances[which].sqrt() * z)

    def log_prob(self, x_t: Float[Tensor, "n d"], alpha: PerRow = 1.0, sigma: PerRow = 0.0) -> Float[Tensor, " n"]:
        return torch.logsumexp(self._joint(x_t, alpha, sigma)[0], dim=1)

    def score(self, x_t: Float[Tensor, "n d"], alpha: PerRow = 1.0, sigma: PerRow = 0.0) -> Float[Tensor, "n d"]:
        log_joint, whitened = self._joint(x_t, alpha, sigma)
        return -self._average(log_joint, torch.einsum("kde,nke->nkd", self._axes, whitened))

    def posterior_mean(self, x_t: Float[Tensor, "n d"], alpha: PerRow, sigma: PerRow) -> Float[Tensor, "n d"]:
        log_joint, whitened = self._joint(x_t, alpha, sigma)
        shift = torch.einsum("kde,nke->nkd", self._axes, self._variances * whitened)
        return self._average(log_joint, self.means + _column(alpha, x_t)[..., None] * shift)

    def posterior_variance(self, x_t: Float[Tensor, "n d"], alpha: PerRow, sigma: PerRow) -> Float[Tensor, " n"]:
        log_joint, whitened = self._joint(x_t, alpha, sigma)
        a, s = (_column(value, x_t)[..., None] for value in (alpha, sigma))
        means = self.means + a * torch.einsum("kde,nke->nkd", self._axes, self._variances * whitened)
        # Within a component the posterior's variance along an axis is λσ²/(α²λ + σ²); between them, the spread of their means.
        within = (self._variances * s**2 / (a**2 * self._variances + s**2)).sum(-1)
        between = (means - self._average(log_joint, means)[:, None]).square().sum(-1)
        return (torch.softmax(log_joint, dim=1) * (within + between)).sum(1) / self.means.shape[1]

    def _joint(self, x_t: Tensor, alpha: PerRow, sigma: PerRow) -> tuple[Tensor, Tensor]:
        """log w_k N(x_t; …) as (n, k); and (α²Σ_k + σ²I)⁻¹ (x_t − αμ_k) along the principal axes of Σ_k, as (n, k, d)."""
        a, s = (_column(value, x_t)[..., None] for value in (alpha, sigma))
        variances = a**2 * self._variances + s**2
        if (variances <= 0).any():
            raise DataError("this distribution has no density without noise (sigma > 0): some variance is zero")
        centered = torch.einsum("kde,nkd->nke", self._axes, x_t.double()[:, None] - a * self.means)
        whitened = centered / variances
        d = self.means.shape[1]
        log_density = -0.5 * ((centered * whitened).sum(-1) + variances.log().sum(-1) + d * math.log(2 * math.pi))
        return self.weights.log() + log_density, whitened

    @staticmethod
    def _average(log_joint: Tensor, of_each: Tensor) -> Tensor:
        return torch.einsum("nk,nkd->nd", torch.softmax(log_joint, dim=1), of_each)


class Gaussian(GaussianMixture):
    """N(μ, Σ): here the probability flow and every sampler's output law are known in closed form too."""

    def __init__(self, mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"]) -> None:
        super().__init__(torch.ones(1), mean[None], covariance[None])

    def flow(
        self, x_t: Float[Tensor, "n d"], schedule: NoiseSchedule, t: Time, s: Time, *, tolerance: float = 0.0
    ) -> Float[Tensor, "n d"]:
        """In closed form: the probability-flow ODE keeps the standardised position, so that no tolerance is needed.

        In each principal direction of Σ, (x − αμ)/√(α²λ + σ²) is constant along the flow.
        """
        now, then = schedule.level(t), schedule.level(s)
        axes, variances, mean = self._axes[0], self._variances[0], self.means[0]
        spread = now.alpha**2 * variances + now.sigma**2
        if bool((spread == 0).any()):
            raise DataError("no flow leads out of a point: some variance is zero, start at a time above 0")
        place = (x_t.double() - now.alpha * mean) @ axes / spread.sqrt()
        return then.alpha * mean + (place * (then.alpha**2 * variances + then.sigma**2).sqrt()) @ axes.T


class DiscreteData(Distribution):
    """A finite data set: what a network that memorises perfectly would learn. Costs n · N · d an evaluation."""

    def __init__(self, points: Float[Tensor, "N d"], weights: Float[Tensor, " N"] | None = None) -> None:
        """
        Args:
            points: the data, one a row. weights: positive, sum 1; equal by default.
        """
        if points.ndim != 2 or len(points) == 0:
            raise DataError(f"a data set takes points of shape (N, d), at least one, got {tuple(points.shape)}")
        self.points = points.double()
        equal = torch.full((len(points),), 1 / len(points), dtype=torch.float64)
        self.weights = equal if weights is None else _checked_weights(weights.double(), len(points))

    def sample(self, n: int, rng: torch.Generator) -> Float[Tensor, "n d"]:
        return self.points[torch.multinomial(self.weights, n, replacement=True, generator=rng)]

    def log_prob(self, x_t: Float[Tensor, "n d"], alpha: PerRow = 1.0, sigma: PerRow = 0.0) -> Float[Tensor, " n"]:
        joint, s = self._joint(x_t, alpha, sigma), _column(sigma, x_t)[:, 0]
        return torch.logsumexp(joint, dim=1) - x_t.shape[1] * (s.log() + 0.5 * math.log(2 * math.pi))

    def score(self, x_t: Float[Tensor, "n d"], alpha: PerRow = 1.0, sigma: PerRow = 0.0) -> Float[Tensor, "n d"]:
        a, s = _column(alpha, x_t), _column(sigma, x_t)
        return (a * self.posterior_mean(x_t, alpha, sigma) - x_t.double()) / s**2

    def posterior_mean(self, x_t: Float[Tensor, "n d"], alpha: PerRow, sigma: PerRow) -> Float[Tensor, "n d"]:
        return torch.softmax(self._joint(x_t, alpha, sigma), dim=1) @ self.points

    def posterior_variance(self, x_t: Float[Tensor, "n d"], alpha: PerRow, sigma: PerRow) -> Float[Tensor, " n"]:
        weights = torch.softmax(self._joint(x_t, alpha, sigma), dim=1)
        mean = weights @ self.points
        # About the data's own centre: a difference of large squares would lose digits.
        center = self.points.mean(0)
        second = weights @ (self.points - center).square().sum(1)
        return (second - (mean - center).square().sum(1)).clamp(min=0) / self.points.shape[1]

    def _joint(self, x_t: Tensor, alpha: PerRow, sigma: PerRow) -> Tensor:
        """log w_i − ‖x_t − αx_i‖²/2σ², (n, N)."""
        a, s = _column(alpha, x_t), _column(sigma, x_t)
        if (s <= 0).any():
            raise DataError("this distribution has no density without noise (sigma > 0): it is made of points")
        x = x_t.double()
        # The square is expanded: no (n, N, d) table. ‖x_t‖² is the same for all points, but log p needs it.
        squares = (x**2).sum(1, keepdim=True) - 2 * a * (x @ self.points.T) + a**2 * (self.points**2).sum(1)
        return self.weights.log() - squares / (2 * s**2)


def _checked_weights(weights: Tensor, count: int) -> Tensor:
    if weights.shape != (count,):
        raise DataError(f"{count} weights are needed, shape ({count},), got shape {tuple(weights.shape)}")
    if not bool((weights > 0).all()) or abs(float(weights.sum()) - 1) > 1e-6:
        raise DataError("the weights must be positive and sum to 1")
    return weights / weights.sum()  # float32 input sums to 1 up to rounding only


def _column(value: PerRow, x_t: Tensor) -> Tensor:
    """A number, or one a row, as (n or 1, 1) in float64."""
    column = torch.as_tensor(value, dtype=torch.float64, device=x_t.device).reshape(-1, 1)
    if len(column) not in (1, len(x_t)):
        raise DataError(f"alpha and sigma are numbers or one for each of the {len(x_t)} rows, got {len(column)}")
    return column
