r"""How likely data are under a diffusion model: a bound from its chain, and the exact density of its probability flow.

The chain gives the variational bound (Ho et al. 2020, eq. 5), term by term:

    −log p(x_0) ≤ KL(q(x_T | x_0) ‖ N(0, I)) + Σ_{t=2}^T KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) − log p(x_0 | x_1)

The flow gives the density itself (Song et al. 2021, §4.3). In the angle φ with α = cos φ and σ = sin φ the probability-flow ODE is
dx/dφ = v̂(x, φ) (Salimans & Ho 2022, appendix D), so that along it

    log p_start(x) = log N(x_T; 0, I) + ∫ div v̂ dφ

with the divergence exact, one backward pass a dimension, or estimated: div v̂ = E[eᵀ (∂v̂/∂x) e] for random signs e (Hutchinson 1990).

Both are about densities of continuous data. Whole numbers have none: spread them first (`dequantise`), or take the bound's decoder
for them, which gives true probabilities. A bound and an exact figure are different things: do not compare one model's bound with
another's density as if they were the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ornstein.core.errors import DataError, DivergenceError, OrnsteinError
from ornstein.diffusion.predictions import coefficients, convert
from ornstein.diffusion.samplers import DDPM

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from jaxtyping import Float, Shaped
    from numpy.typing import NDArray

    from ornstein.diffusion.schedule import NoiseSchedule, Time

    Denoiser = Callable[[Tensor, Tensor, Any], Tensor]

_LN_2 = math.log(2)


@dataclass(frozen=True)
class VariationalBound:
    """The bound's terms in bits a dimension, float64, one row a sample.

    prior: (batch,), KL at T. steps: (batch, n), the KLs at the time steps `times` (n,), each within 2 … T. decoder: (batch,),
    −log₂ p(x_0 | x_1) a dimension; for continuous data it is a density and may be negative. num_steps: T.
    """

    prior: Tensor
    steps: Tensor
    decoder: Tensor
    times: Tensor
    num_steps: int

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """The whole bound; where only some steps were evaluated, an unbiased estimate of it."""
        if not len(self.times):  # T = 1: there is nothing between
            return self.prior + self.decoder
        return self.prior + self.decoder + self.steps.mean(1) * (self.num_steps - 1)


@torch.no_grad()
def variational_bound(
    denoiser: Denoiser,
    x_0: Float[Tensor, "batch ..."],
    condition: Any,
    schedule: NoiseSchedule,
    prediction: str,
    rng: torch.Generator,
    *,
    variance: Literal["small", "large"] = "small",
    levels: int | None = None,
    evaluations: int | None = None,
) -> VariationalBound:
    """One Monte-Carlo estimate: a fresh x_t for each term.

    Args:
        denoiser: `(x_t, t, condition)` → a prediction of x_t's shape. condition: passed on as it is.
        variance: of p(x_{t−1} | x_t), as in `DDPM`.
        levels: None for continuous data. Else x_0 holds whole numbers 0 … levels − 1 scaled to [−1, 1], and the decoder gives each
            the probability of its interval, the outer ones open (Ho et al. 2020, eq. 13).
        evaluations: how many of the T − 1 middle terms, one at random from each of as many equal parts; all by default.

    Raises:
        DataError: a number is out of range, the data are not on the levels, or the denoiser returns another shape.
        DivergenceError: a prediction is not finite; names the time step.
    """
    steps = schedule.num_steps
    kernel = DDPM(schedule, steps, prediction=prediction, variance=variance)
    if evaluations is not None and not 1 <= evaluations <= max(steps - 1, 1):
        raise DataError(f"the bound has {steps - 1} middle terms, {evaluations} evaluations were asked for")
    if levels is not None:
        _check_levels(x_0, levels)
    if not x_0.is_floating_point():
        raise DataError(f"the data are floating point numbers, got {x_0.dtype}: scale whole numbers to [−1, 1] and give `levels`")
    x_0 = x_0.to(torch.promote_types(x_0.dtype, torch.float32))

    def estimate(t: int) -> Tensor:
        eps = torch.randn(x_0.shape, generator=rng, dtype=x_0.dtype, device=x_0.device)
        now = schedule.level(t)
        x_t = now.alpha * x_0 + now.sigma * eps
        return _predicted_data(denoiser, x_t, t, condition, schedule, kernel.prediction)

    times = _terms(steps, evaluations, rng)
    terms = [_step_term(estimate(t) - x_0, t, schedule, variance) for t in times]
    decoder = _decoder_term(x_0, estimate(1), math.sqrt(float(schedule.betas[1])), levels)
    moments = x_0.double().square().flatten(1).mean(1).tolist()
    prior = torch.tensor([schedule.terminal_kl(moment) for moment in moments], dtype=torch.float64)
    shape = (len(x_0), 0)
    return VariationalBound(
        prior,
        torch.stack(terms, 1).cpu() if terms else torch.zeros(shape, dtype=torch.float64),
        decoder.cpu(),
        torch.tensor(times, dtype=torch.int64),
        steps,
    )


@dataclass(frozen=True)
class FlowLikelihood:
    """log_prob: nats, (batch,). standard_error: of the divergence's estimate, (batch,); 0 where it is exact. solver_error: how far
    log_prob moves when the solver's tolerance is a tenth, (batch,); NaN where that was not asked for. evaluations: of the denoiser.
    """

    log_prob: Tensor
    standard_error: Tensor
    solver_error: Tensor
    evaluations: int


def flow_log_likelihood(
    denoiser: Denoiser,
    x: Float[Tensor, "batch ..."],
    condition: Any,
    schedule: NoiseSchedule,
    prediction: str,
    *,
    start: Time = 1,
    trace: Literal["exact", "hutchinson"] = "exact",
    probes: int = 8,
    rng: torch.Generator | None = None,
    tolerance: float = 1e-5,
    check_solver: bool = True,
) -> FlowLikelihood:
    """log p_start(x) of the model: x is taken as data at time `start`, and what the flow makes of it at T is N(0, I).

    The model's own density differs from the data's where the schedule leaves signal at T: that is part of the answer.

    Args:
        denoiser: differentiable in x_t, each row by itself; called at times between whole steps, too.
        start: the lowest time that the denoiser knows. Noise as small as that belongs to the density.
        trace: "exact" costs one backward pass a dimension, "hutchinson" one for each of `probes` random sign vectors from `rng`.
        tolerance: relative and absolute, of an adaptive Runge–Kutta method of order 8 (scipy's DOP853).
        check_solver: solve a second time with a tenth of the tolerance, report the difference, and return the better solution.

    Raises:
        DataError: a number is out of range, or the random probes have no generator. OrnsteinError: the solver fails.
    """
    if not x.is_floating_point():
        raise DataError(f"a density is of floating point numbers, got {x.dtype}: spread whole numbers first (dequantise)")
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # in half precision the solver would chase the rounding
    last = schedule.level(schedule.num_steps)
    coefficients(prediction, "sample", last.alpha, last.sigma)  # refuses what says nothing where no signal is left
    if trace not in ("exact", "hutchinson"):
        raise DataError(f"the trace is 'exact' or 'hutchinson', got {trace!r}")
    if not 0 < start < schedule.num_steps:
        raise DataError(f"the flow starts at a time 0 < start < {schedule.num_steps}, got {start}")
    if not 0 < tolerance < 1 or probes < 2:
        raise DataError(f"a tolerance lies between 0 and 1 and two probes are the least, got {tolerance} and {probes}")
    signs = None
    if trace == "hutchinson":
        if rng is None:
            raise DataError("random probes need a generator: pass rng")
        shape = (probes, *x.shape)
        signs = torch.randint(0, 2, shape, generator=rng, device=x.device).to(x.dtype) * 2 - 1
    flow = _Flow(denoiser, condition, schedule, prediction, signs)
    found = flow.solve(x, start, tolerance)
    error = torch.full((len(x),), math.nan, dtype=torch.float64)
    if check_solver:
        finer = flow.solve(x, start, tolerance / 10)
        error = (finer.mean(1) - found.mean(1)).abs()
        found = finer
    spread = found.std(1) / found.shape[1] ** 0.5 if signs is not None else torch.zeros(len(x), dtype=torch.float64)
    return FlowLikelihood(found.mean(1), spread, error, flow.evaluations)


def dequantise(whole: Shaped[Tensor, "*shape"], levels: int, rng: torch.Generator) -> Float[Tensor, "*shape"]:
    """Whole numbers 0 … levels − 1, each spread evenly over its interval, scaled to [−1, 1]; float64 (Theis et al. 2016, §3.1)."""
    values = whole.double()  # first: 256 as an 8-bit number would be 0
    if levels < 2 or bool(((values < 0) | (values >= levels) | (values != values.round())).any()):
        raise DataError(f"whole numbers within 0 … {levels - 1} are needed, got {float(values.min())} … {float(values.max())}")
    inside = torch.rand(whole.shape, generator=rng, dtype=torch.float64, device=whole.device)
    return (whole.double() + inside) * (2 / levels) - 1


def bits_per_dimension(log_prob: Float[Tensor, " batch"], dimensions: int, levels: int | None = None) -> Float[Tensor, " batch"]:
    """Nats a sample → bits a dimension.

    Args:
        log_prob: of the sample, in nats. levels: of the whole numbers that `dequantise` spread over [−1, 1]; the result is then an
            upper bound on the bits that they take (Theis et al. 2016, eq. 4). None leaves the density as it is.
    """
    if dimensions < 1 or (levels is not None and levels < 2):
        raise DataError(f"at least one dimension and two levels are needed, got {dimensions} and {levels}")
    bits = -log_prob.double() / (dimensions * _LN_2)
    return bits if levels is None else bits + math.log2(levels / 2)


class _Flow:
    """The probability flow with the integral of its divergence: state (x, one integral a probe)."""

    def __init__(
        self, denoiser: Denoiser, condition: Any, schedule: NoiseSchedule, prediction: str, signs: Tensor | None
    ) -> None:
        self.denoiser, self.condition, self.schedule, self.prediction = denoiser, condition, schedule, prediction
        self.signs = signs
        self.evaluations = 0

    def solve(self, x: Tensor, start: Time, tolerance: float) -> Tensor:
        """log p_start in nats, (batch, probes or 1)."""
        from scipy.integrate import solve_ivp

        ends = torch.tensor([start, self.schedule.num_steps], dtype=torch.float64)
        first, last = self.schedule.angle(ends).tolist()
        columns = 1 if self.signs is None else len(self.signs)

        def derivative(angle: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
            here = torch.from_numpy(state[: x.numel()]).reshape(x.shape).to(x.device, x.dtype)
            velocity, divergence = self._velocity(here, angle)
            return torch.cat([velocity.double().flatten(), divergence.double().flatten()]).cpu().numpy()

        nothing = torch.zeros(len(x) * columns, dtype=torch.float64)
        begin = torch.cat([x.detach().double().flatten().cpu(), nothing]).numpy()
        solved = solve_ivp(derivative, (first, last), begin, "DOP853", rtol=tolerance, atol=tolerance)
        if not solved.success:
            raise OrnsteinError(f"the probability flow could not be followed: {solved.message}")
        end = torch.from_numpy(solved.y[:, -1].copy())
        x_T = end[: x.numel()].reshape(len(x), -1)
        prior = -0.5 * (x_T.square().sum(1) + x_T.shape[1] * math.log(2 * math.pi))
        return prior[:, None] + end[x.numel() :].reshape(len(x), columns)

    def _velocity(self, x: Tensor, angle: float) -> tuple[Tensor, Tensor]:
        """v̂ at x, and its divergence, (batch, probes or 1)."""
        self.evaluations += 1
        time = torch.full((len(x),), self.schedule.time_at_angle(angle), dtype=torch.float64, device="cpu").to(x.device)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            predicted = self.denoiser(x, time, self.condition)
            if predicted.shape != x.shape:
                raise DataError(f"the denoiser must return the data's shape {tuple(x.shape)}, got {tuple(predicted.shape)}")
            predicted = predicted.to(x.dtype)
            v = convert(predicted, self.prediction, "v_prediction", x, math.cos(angle), math.sin(angle))
            if not bool(torch.isfinite(v).all()):
                raise DivergenceError(f"the denoiser's prediction is not finite at t = {float(time[0]):.4g}")
            divergence = self._exact(v, x) if self.signs is None else self._estimated(v, x, self.signs)
        return v.detach(), divergence

    @staticmethod
    def _exact(v: Tensor, x: Tensor) -> Tensor:
        flat = v.flatten(1)
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for k in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, k].sum(), x, retain_graph=True)
            total += row.flatten(1)[:, k]
        return total[:, None]

    @staticmethod
    def _estimated(v: Tensor, x: Tensor, signs: Tensor) -> Tensor:
        columns = []
        for e in signs:
            (product,) = torch.autograd.grad(v, x, e, retain_graph=True)
            columns.append((product * e).flatten(1).sum(1))
        return torch.stack(columns, 1)


def _terms(num_steps: int, evaluations: int | None, rng: torch.Generator) -> list[int]:
    """Time steps within 2 … T: all, or one at random from each of n parts, which may overlap in a step that both share."""
    count = num_steps - 1
    if evaluations is None or count == 0:
        return list(range(2, num_steps + 1))
    place = torch.arange(evaluations) + torch.rand(evaluations, generator=rng, device=rng.device).cpu()
    return (2 + (place * count / evaluations).long().clamp(max=count - 1)).tolist()


def _predicted_data(denoiser: Denoiser, x_t: Tensor, t: int, condition: Any, schedule: NoiseSchedule, prediction: str) -> Tensor:
    level = schedule.level(t)
    predicted = denoiser(x_t, torch.full((len(x_t),), t, dtype=torch.int64, device=x_t.device), condition)
    if predicted.shape != x_t.shape:
        raise DataError(f"the denoiser must return the data's shape {tuple(x_t.shape)}, got {tuple(predicted.shape)}")
    of_x, of_prediction = coefficients(prediction, "sample", level.alpha, level.sigma)
    x_0 = of_x * x_t + of_prediction * predicted.to(x_t.dtype)
    if not bool(torch.isfinite(x_0).all()):
        raise DivergenceError(f"the denoiser's prediction is not finite at t = {t}")
    return x_0


def _step_term(error: Tensor, t: int, schedule: NoiseSchedule, variance: str) -> Tensor:
    """KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) in bits a dimension: two Gaussians whose means differ by a · (x̂_0 − x_0)."""
    of_x_0, _, true = schedule.posterior(t)
    modelled = true if variance == "small" else schedule.jump_variance(t, t - 1)
    ratio = true / modelled
    squares = error.double().square().flatten(1).mean(1)
    return (0.5 * (ratio - 1 - math.log(ratio)) + 0.5 * of_x_0**2 / modelled * squares) / _LN_2


def _decoder_term(x_0: Tensor, mean: Tensor, deviation: float, levels: int | None) -> Tensor:
    """−log₂ p(x_0 | x_1) a dimension."""
    x, center = x_0.double().flatten(1), mean.double().flatten(1)
    if levels is None:
        return (0.5 * ((x - center) / deviation).square().mean(1) + 0.5 * math.log(2 * math.pi * deviation**2)) / _LN_2
    half = 1 / (levels - 1)  # neighbours are 2/(levels − 1) apart
    above = torch.where(x > 1 - half, math.inf, (x + half - center) / deviation)
    below = torch.where(x < -1 + half, -math.inf, (x - half - center) / deviation)
    # On the side where both tails are small, so that their difference keeps its digits.
    flip = (above + below > 0) & torch.isfinite(above + below) | (above == math.inf)
    low, high = torch.where(flip, -above, below), torch.where(flip, -below, above)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    log_mass = log_high + torch.log(-torch.expm1(torch.where(torch.isinf(log_low), -math.inf, log_low - log_high)))
    return -log_mass.mean(1) / _LN_2


def _check_levels(x_0: Tensor, levels: int) -> None:
    if levels < 2:
        raise DataError(f"whole numbers need two levels at least, got {levels}")
    whole = (x_0.double() + 1) * (levels - 1) / 2
    if (
        bool((whole < -1e-3).any())
        or bool((whole > levels - 1 + 1e-3).any())
        or bool(((whole - whole.round()).abs() > 1e-3).any())
    ):
        raise DataError(
            f"with levels={levels} the data must be whole numbers 0 … {levels - 1} scaled to [−1, 1]: 2 k / {levels - 1} − 1"
        )
