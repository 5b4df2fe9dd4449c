r"""The samplers. With α = √α̅, σ = √(1 − α̅), from t to s < t:

DDPM    x_s ~ q(x_s | x_t, x̂_0), or with the larger variance 1 − α̅_t/α̅_s      (Ho et al. 2020, §3.2, algorithm 2)
DDIM    x_s = α_s x̂_0 + √(σ_s² − ς²) ε̂ + ς z,  ς = η · (posterior's deviation)  (Song et al. 2021, eq. 12 and 16)
Euler   the probability-flow ODE dy/dr = ε̂ in y = x/α, r = σ/α, one slope a step (ibid., eq. 14)
Heun    the same with the mean of two slopes: order 2, two evaluations a step     (Karras et al. 2022, algorithm 1)

and in half the log-SNR, λ = log(α/σ), h = λ_s − λ_t, where the ODE's linear part has an exact solution:

    x_s = (σ_s/σ_t) x_t + α_s ∫_0^h e^{u−h} x̂_0(λ_t + u) du                     (Lu et al. 2022, eq. 8)

DPM-Solver++(2M)  x̂_0 extrapolated from the last two: order 2, one evaluation a step           (ibid., algorithm 2)
SDE-DPM-Solver++(2M)  the same for the reverse SDE: fresh noise at each step                   (ibid., eq. 19 and appendix)
DPM-Solver++(3M)  the parabola through the last three, integrated exactly: order 3, one evaluation a step but two at the first
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch

from ornstein.core.errors import DataError
from ornstein.diffusion.sampling import Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from ornstein.diffusion.sampling import Trajectory
    from ornstein.diffusion.schedule import Level


@dataclass(eq=False)
class DDPM(Sampler):
    """Ancestral sampling, over skipped steps too. The last step returns the mean, as in the paper.

    Args:
        variance: "small" is the posterior's, right for data that are a point; "large" is right for x_0 ~ N(0, I).
    """

    variance: Literal["small", "large"] = "small"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance not in ("small", "large"):
            raise DataError(f"DDPM's variance is 'small' or 'large', got {self.variance!r}")
        self._moves = [self._move(now, then) for now, then in pairwise(self.levels)]

    @property
    def stochastic(self) -> bool:
        return True

    def _move(self, now: Level, then: Level) -> tuple[float, float, float]:
        of_x_0, of_x, small = self.schedule.jump_posterior(now.t, then.t)
        variance = small if self.variance == "small" else self.schedule.jump_variance(now.t, then.t)
        return of_x_0, of_x, math.sqrt(variance) if then.t > 0 else 0.0

    def step(self, index: int, x: Tensor, x_0: Tensor, run: Trajectory) -> Tensor:
        of_x_0, of_x, deviation = self._moves[index]
        mean = torch.add(x * of_x, x_0, alpha=of_x_0)
        return mean if deviation == 0.0 else mean.add_(run.fresh_noise(index, x), alpha=deviation)


@dataclass(eq=False)
class DDIM(Sampler):
    """η = 0: deterministic. η = 1: as random as DDPM with the small variance. The marginals are the same for all.

    Args:
        eta: η within [0, 1].
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.eta <= 1.0:
            raise DataError(f"eta must lie between 0 (deterministic) and 1, got {self.eta}")
        self._moves = [self._move(now, then) for now, then in pairwise(self.levels)]

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def _move(self, now: Level, then: Level) -> tuple[float, float, float]:
        fresh = self.eta * math.sqrt(self.schedule.jump_posterior(now.t, then.t)[2])
        # With ε̂ = (x_t − α_t x̂_0)/σ_t: the share of x_t, and what is left for x̂_0.
        of_x = math.sqrt(max(then.sigma**2 - fresh**2, 0.0)) / now.sigma
        return then.alpha - now.alpha * of_x, of_x, fresh

    def step(self, index: int, x: Tensor, x_0: Tensor, run: Trajectory) -> Tensor:
        of_x_0, of_x, deviation = self._moves[index]
        mean = torch.add(x * of_x, x_0, alpha=of_x_0)
        return mean if deviation == 0.0 else mean.add_(run.fresh_noise(index, x), alpha=deviation)


@dataclass(eq=False)
class Euler(Sampler):
    """One slope a step. The same map as DDIM with η = 0 (Song et al. 2021, §4.3), written as what it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels[0].alpha == 0.0:
            raise DataError(
                f"{type(self).__name__} divides by alpha, and no signal is left at t = {self.levels[0].t}: use DDIM or"
                " DPMSolverPP2M, with a denoiser that predicts 'sample' or 'v_prediction'"
            )
        self._changes = [then.sigma / then.alpha - now.sigma / now.alpha for now, then in pairwise(self.levels)]

    def step(self, index: int, x: Tensor, x_0: Tensor, run: Trajectory) -> Tensor:
        return self._along(index, x, _slope(self.levels[index], x, x_0))

    def _along(self, index: int, x: Tensor, slope: Tensor) -> Tensor:
        """From y = x/α along dy/dr = slope to the next level, and back to x."""
        now, then = self.levels[index], self.levels[index + 1]
        return torch.add(x * (then.alpha / now.alpha), slope, alpha=then.alpha * self._changes[index])


@dataclass(eq=False)
class Heun(Euler):
    """Two slopes a step, their mean; one at the last step, since ε̂ does not exist at t = 0."""

    def step(self, index: int, x: Tensor, x_0: Tensor, run: Trajectory) -> Tensor:
        slope = _slope(self.levels[index], x, x_0)
        guess = self._along(index, x, slope)
        then = self.levels[index + 1]
        if then.t == 0:
            return guess
        slope_then = _slope(then, guess, run.estimate(index + 1, guess))
        return self._along(index, x, (slope + slope_then) / 2)


@dataclass(eq=False)
class DPMSolverPP2M(Sampler):
    """Linear extrapolation of x̂_0 over λ from the last two steps; first order at both ends, where there are not two."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._moves = [self._move(index) for index in range(self.num_steps)]

    def _move(self, index: int) -> tuple[float, float, float]:
        now, then = self.levels[index], self.levels[index + 1]
        if then.t == 0:  # λ is infinite at the data: the limit of the formula is x̂_0 itself
            return 0.0, 1.0, 0.0
        h = _half_log_snr(then) - _half_log_snr(now)
        whole = -then.alpha * math.expm1(-h)
        if index == 0:
            return then.sigma / now.sigma, whole, 0.0
        h_before = _half_log_snr(now) - _half_log_snr(self.levels[index - 1])
        extrapolation = h / (2 * h_before)  # 1/(2r) in the paper
        return then.sigma / now.sigma, whole * (1 + extrapolation), -whole * extrapolation

    def step(self, index: int, x: Tensor, x_0: Tensor, run: Trajectory) -> Tensor:
        of_x, of_x_0, of_previous = self._moves[index]
        result = torch.add(x * of_x, x_0, alpha=of_x_0)
        return result.add_(run.past_x_0[0], alpha=of_previous) if of_previous else result


@dataclass(eq=False)
class DPMSolverPP2MSDE(Sampler):
    """DPM-Solver++(2M) for the reverse SDE: as random as DDPM with the small variance, of higher order in x̂_0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._moves = [self._move(index) for index in range(self.num_steps)]

    @property
    def stochastic(self) -> bool:
        return True

    def _move(self, index: int) -> tuple[float, float, float, float]:
        now, then = self.levels[index], self.levels[index + 1]
        if then.t == 0:
            return 0.0, 1.0, 0.0, 0.0
        h = _half_log_snr(then) - _half_log_snr(now)
        whole = -then.alpha * math.expm1(-2 * h)
        deviation = then.sigma * math.sqrt(-math.expm1(-2 * h))
        of_x = then.sigma / now.sigma * math.exp(-h)
        if index == 0:
            return of_x, whole, 0.0, deviation
        extrapolation = h / (2 * (_half_log_snr(now) - _half_log_snr(self.levels[index - 1])))
        return of_x, whole * (1 + extrapolation), -whole * extrapolation, deviation

    def step(self, index: int, x: Tensor, x_0: Tensor, run: Trajectory) -> Tensor:
        of_x, of_x_0, of_previous, deviation = self._moves[index]
        result = torch.add(x * of_x, x_0, alpha=of_x_0)
        if of_previous:
            result.add_(run.past_x_0[0], alpha=of_previous)
        return result.add_(run.fresh_noise(index, x), alpha=deviation) if deviation else result


@dataclass(eq=False)
class DPMSolverPP3M(Sampler):
    """Order 3 in truth: the first step, which has no past, takes a second evaluation, since one of order 1 would leave its error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._moves = [self._move(index) for index in range(self.num_steps)]
        now, then = self.levels[:2]
        h = _half_log_snr(then) - _half_log_snr(now)
        self._correction = then.alpha * _moments(h)[1] / h if 0 < h < math.inf else 0.0

    def _move(self, index: int) -> tuple[float, float, float, float]:
        """Factors of x, x̂_0 and the two before it."""
        now, then = self.levels[index], self.levels[index + 1]
        if then.t == 0:
            return 0.0, 1.0, 0.0, 0.0
        h = _half_log_snr(then) - _half_log_snr(now)
        flat, linear, square = (then.alpha * moment for moment in _moments(h))
        lambdas = [_half_log_snr(level) for level in reversed(self.levels[max(index - 2, 0) : index + 1])]
        gaps = [a - b for a, b in pairwise(lambdas) if b > -math.inf]  # the past, latest first
        # The parabola in Newton's form, f_0 + u f[0,1] + u (u + h_1) f[0,1,2], with as much of it as there is a past for.
        slope = linear / gaps[0] if gaps else 0.0
        bend, older = 0.0, 1.0
        if len(gaps) > 1:
            bend, older = (square + gaps[0] * linear) / (gaps[0] + gaps[1]) / gaps[0], gaps[0] / gaps[1]
        return then.sigma / now.sigma, flat + slope + bend, -slope - bend * (1 + older), bend * older

    def step(self, index: int, x: Tensor, x_0: Tensor, run: Trajectory) -> Tensor:
        of_x, *factors = self._moves[index]
        result = x * of_x
        for factor, estimate in zip(factors, (x_0, *run.past_x_0), strict=False):
            result.add_(estimate, alpha=factor)
        if index == 0 and self._correction:
            result.add_(run.estimate(1, result) - x_0, alpha=self._correction)
        return result


def _moments(h: float) -> tuple[float, float, float]:
    """∫_0^h e^{u−h} u^k du for k = 0, 1, 2, by parts; h may be infinite."""
    flat = -math.expm1(-h)
    if h == math.inf:
        return flat, 0.0, 0.0  # nothing is extrapolated over an infinite step
    linear = h - flat
    return flat, linear, h**2 - 2 * linear


def _half_log_snr(level: Level) -> float:
    if level.alpha == 0 or level.sigma == 0:
        return -math.inf if level.alpha == 0 else math.inf
    return math.log(level.alpha / level.sigma)


def _slope(level: Level, x: Tensor, x_0: Tensor) -> Tensor:
    """ε̂ = (x − α x̂_0)/σ."""
    return torch.add(x / level.sigma, x_0, alpha=-level.alpha / level.sigma)
