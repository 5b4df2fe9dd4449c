r"""From noise to data. A sampler walks down a list of time steps T ≥ t_1 > t_2 > … > t_n > 0 and ends at step 0, the data.

One loop, one `step`: the base class owns the pairs (t, s) with s < t, asks the denoiser once for x̂_0 and ε̂ at t, and each
subclass says how x_s follows. With α = √α̅, σ = √(1 − α̅):

    DDPM    x_s ~ q(x_s | x_t, x̂_0), or with the larger variance β (Ho et al. 2020, §3.2)
    DDIM    x_s = α_s x̂_0 + √(σ_s² − ς²) ε̂ + ς z,  ς = η · (posterior standard deviation)   (Song et al. 2021, eq. 12 and 16)
    Euler   the probability-flow ODE d(x/α)/d(σ/α) = ε̂, one slope a step                     (ibid., eq. 14)
    Heun    the same with the mean of two slopes: second order, two evaluations a step         (Karras et al. 2022, algorithm 1)
    DPM-Solver++(2M)  the ODE in log-SNR with the last two x̂_0: second order, one evaluation   (Lu et al. 2022, algorithm 2)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from ornstein.core.errors import DataError, OrnsteinError
from ornstein.diffusion.predictions import Prediction, check_prediction, to_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ornstein.diffusion.noise import KeyedNoise
    from ornstein.diffusion.schedule import NoiseSchedule

    Denoiser = Callable[[Tensor, Tensor, Any], Tensor]

Spacing = Literal["trailing", "leading", "linspace"]


class Step(NamedTuple):
    """One step that was made: its number (from 0), from t to t_prev, the state at t_prev, and x̂_0 as seen from t."""

    number: int
    t: int
    t_prev: int
    x: Tensor
    x_0: Tensor


class Level(NamedTuple):
    """A time step with its α = √α̅_t and σ = √(1 − α̅_t), as plain numbers."""

    t: int
    alpha: float
    sigma: float


def time_steps(num_train: int, num_steps: int, spacing: Spacing) -> list[int]:
    """n distinct time steps, descending, for any 1 ≤ n ≤ T, whether or not n divides T.

    "trailing" starts at T (Lin et al. 2024), "leading" ends at 1, "linspace" does both (n ≥ 2).
    """
    if not 1 <= num_steps <= num_train:
        raise DataError(f"the number of sampling steps must be between 1 and {num_train}, got {num_steps}")
    match spacing:
        case "trailing":  # T, T − T/n, …: the last step reaches data from about T/n
            return [num_train - (k * num_train) // num_steps for k in range(num_steps)]
        case "leading":
            return [1 + (k * num_train) // num_steps for k in reversed(range(num_steps))]
        case "linspace":
            if num_steps == 1:
                return [num_train]
            return [round(num_train - k * (num_train - 1) / (num_steps - 1)) for k in range(num_steps)]
        case _:
            raise DataError(f"the spacing must be 'trailing', 'leading' or 'linspace', got {spacing!r}")


class Sampler:
    """The loop. Subclasses override `step` alone."""

    #: Whether `step` adds noise: then a noise source is needed.
    stochastic = False

    def __init__(
        self,
        schedule: NoiseSchedule,
        num_steps: int,
        *,
        prediction: Prediction,
        spacing: Spacing = "trailing",
        time_steps_given: Sequence[int] | None = None,
        clip: float | None = None,
    ) -> None:
        """
        Args:
            schedule: the one that the denoiser was trained with.
            num_steps: how many steps; with `time_steps_given` their number.
            prediction: what the denoiser predicts.
            time_steps_given: explicit steps, descending, within 1 … T, in place of `spacing`.
            clip: bound x̂_0 to [−clip, clip] (Ho et al. 2020 clip pictures at 1); never for latents.

        Raises:
            DataError: steps out of range or not descending. UnknownNameError: no such prediction.
        """
        check_prediction(prediction)
        times = time_steps(schedule.num_steps, num_steps, spacing) if time_steps_given is None else list(time_steps_given)
        descending = all(a > b for a, b in zip(times, times[1:], strict=False))
        if not times or not descending or times[0] > schedule.num_steps or times[-1] < 1 or len(times) != num_steps:
            raise DataError(
                f"time steps must be {num_steps} descending numbers within 1 … {schedule.num_steps}, got {times[:5]}"
                f"{'…' if len(times) > 5 else ''}"
            )
        if clip is not None and not clip > 0:
            raise DataError(f"clip must be positive, got {clip}")
        self.schedule, self.num_steps, self.prediction, self.clip = schedule, num_steps, prediction, clip
        bars = schedule.alpha_bars.tolist()
        levels = [Level(t, math.sqrt(bars[t]), math.sqrt(1 - bars[t])) for t in [*times, 0]]
        self.pairs = list(zip(levels[:-1], levels[1:], strict=True))

    def step(self, index: int, x: Tensor, x_0: Tensor, eps: Tensor, now: Level, then: Level, noise: Tensor | None) -> Tensor:
        """x at `then`, from x, x̂_0 and ε̂ at `now`. noise: standard normal, given where `stochastic` and then.t > 0."""
        raise TypeError(f"{type(self).__name__} does not say how to step")

    def iterate(self, denoiser: Denoiser, x: Tensor, condition: Any = None, noise: KeyedNoise | None = None) -> Iterator[Step]:
        """The steps one by one, for progress, previews and trajectories.

        Args:
            x: x at the first time step, shape (batch, …): for T, standard normal noise. Half precision is widened to float32.
            noise: the source of fresh noise; needed by stochastic samplers.

        Raises:
            DataError: noise is needed and missing, or the denoiser returns another shape.
            OrnsteinError: the state is no longer finite; names the step.
        """
        if self.stochastic and noise is None:
            raise DataError(
                f"{type(self).__name__} adds noise at each step: pass a noise source, for example KeyedNoise(seed, indices)"
            )
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        self._start(denoiser, condition)
        for index, (now, then) in enumerate(self.pairs):
            x_0, eps = self.predict(denoiser, x, now, condition)
            fresh = None
            if self.stochastic and then.t > 0 and noise is not None:
                fresh = noise.at(index, x.shape[1:]).to(x.device, x.dtype)
            x = self.step(index, x, x_0, eps, now, then, fresh)
            if not bool(torch.isfinite(x).all()):
                raise OrnsteinError(
                    f"sampling diverged: the state is not finite after step {index + 1} of {self.num_steps} (t = {now.t} → {then.t});"
                    " lower the guidance, take more steps or check the model"
                )
            yield Step(index, now.t, then.t, x, x_0)

    def sample(self, denoiser: Denoiser, x: Tensor, condition: Any = None, noise: KeyedNoise | None = None) -> Tensor:
        """The data at the end of `iterate`."""
        for step in self.iterate(denoiser, x, condition, noise):
            x = step.x
        return x

    def predict(self, denoiser: Denoiser, x: Tensor, at: Level, condition: Any) -> tuple[Tensor, Tensor]:
        """x̂_0 and ε̂ at a level; with clipping, ε̂ is the one that leads from the clipped x̂_0 to x."""
        t = torch.full((len(x),), at.t, dtype=torch.int64, device=x.device)
        predicted = denoiser(x, t, condition)
        if predicted.shape != x.shape:
            raise DataError(f"the denoiser must return the state's shape {tuple(x.shape)}, got {tuple(predicted.shape)}")
        alpha, sigma = x.new_tensor(at.alpha), x.new_tensor(at.sigma)
        x_0, eps = to_pair(predicted.to(x.dtype), self.prediction, x, alpha, sigma)
        if self.clip is not None:
            x_0 = x_0.clamp(-self.clip, self.clip)
            eps = (x - at.alpha * x_0) / at.sigma
        return x_0, eps

    def _start(self, denoiser: Denoiser, condition: Any) -> None:
        """Forget the last trajectory; samplers that evaluate more than once a step keep the denoiser here."""


class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020, algorithm 2), over skipped steps too.

    variance: "small" is the posterior's, right for data that are a point; "large" is β, right for x_0 ~ N(0, I).
    """

    stochastic = True

    def __init__(
        self, schedule: NoiseSchedule, num_steps: int, *, variance: Literal["small", "large"] = "small", **settings: Any
    ) -> None:
        super().__init__(schedule, num_steps, **settings)
        if variance not in ("small", "large"):
            raise DataError(f"DDPM's variance is 'small' or 'large', got {variance!r}")
        self.variance = variance

    def step(self, index: int, x: Tensor, x_0: Tensor, eps: Tensor, now: Level, then: Level, noise: Tensor | None) -> Tensor:
        of_x_0, of_x, posterior_variance = self.schedule.jump_posterior(now.t, then.t)
        mean = of_x_0 * x_0 + of_x * x
        if noise is None:  # the last step returns the mean, as in the paper
            return mean
        added = 1 - (now.alpha / then.alpha) ** 2
        return mean + math.sqrt(posterior_variance if self.variance == "small" else added) * noise


class DDIM(Sampler):
    """η = 0: deterministic. η = 1: as random as DDPM with the small variance. The marginals are the same for all."""

    def __init__(self, schedule: NoiseSchedule, num_steps: int, *, eta: float = 0.0, **settings: Any) -> None:
        super().__init__(schedule, num_steps, **settings)
        if not 0.0 <= eta <= 1.0:
            raise DataError(f"eta must lie between 0 (deterministic) and 1, got {eta}")
        self.eta = eta
        self.stochastic = eta > 0

    def step(self, index: int, x: Tensor, x_0: Tensor, eps: Tensor, now: Level, then: Level, noise: Tensor | None) -> Tensor:
        if noise is None:
            return torch.add(then.alpha * x_0, eps, alpha=then.sigma)
        fresh = self.eta * math.sqrt(self.schedule.jump_posterior(now.t, then.t)[2])
        return then.alpha * x_0 + math.sqrt(max(then.sigma**2 - fresh**2, 0.0)) * eps + fresh * noise


class _FlowSampler(Sampler):
    """Samplers of the probability-flow ODE in y = x/α and the noise-to-signal ratio r = σ/α: dy/dr = ε̂."""

    def __init__(self, schedule: NoiseSchedule, num_steps: int, **settings: Any) -> None:
        super().__init__(schedule, num_steps, **settings)
        if self.pairs[0][0].alpha == 0.0:
            raise DataError(
                "this ODE sampler divides by alpha, and no signal is left at the first step: use DDIM with v-prediction"
            )

    def _start(self, denoiser: Denoiser, condition: Any) -> None:
        self._denoiser, self._condition = denoiser, condition


class Euler(_FlowSampler):
    """One slope a step. The same map as DDIM with η = 0 (Song et al. 2021, §4.3), written as what it is."""

    def step(self, index: int, x: Tensor, x_0: Tensor, eps: Tensor, now: Level, then: Level, noise: Tensor | None) -> Tensor:
        change = then.sigma / then.alpha - now.sigma / now.alpha
        return then.alpha * (x / now.alpha + change * eps)


class Heun(_FlowSampler):
    """Two slopes a step, their mean; one at the last step, where ε̂ at t = 0 does not exist."""

    def step(self, index: int, x: Tensor, x_0: Tensor, eps: Tensor, now: Level, then: Level, noise: Tensor | None) -> Tensor:
        change = then.sigma / then.alpha - now.sigma / now.alpha
        guess = then.alpha * (x / now.alpha + change * eps)
        if then.t == 0:
            return guess
        _, eps_then = self.predict(self._denoiser, guess, then, self._condition)
        return then.alpha * (x / now.alpha + change * (eps + eps_then) / 2)


class DPMSolverPP2M(_FlowSampler):
    """DPM-Solver++(2M): linear extrapolation of x̂_0 over log-SNR from the last two steps; first order at both ends."""

    def _start(self, denoiser: Denoiser, condition: Any) -> None:
        super()._start(denoiser, condition)
        self._last: tuple[Tensor, float] | None = None

    def step(self, index: int, x: Tensor, x_0: Tensor, eps: Tensor, now: Level, then: Level, noise: Tensor | None) -> Tensor:
        half_log_snr = math.log(now.alpha / now.sigma)
        last, self._last = self._last, (x_0, half_log_snr)
        if then.t == 0:  # log-SNR is infinite at the data: the limit of the formula is x̂_0 itself
            return x_0
        h = math.log(then.alpha / then.sigma) - half_log_snr
        if last is not None:
            ratio = (half_log_snr - last[1]) / h
            x_0 = x_0 + (x_0 - last[0]) / (2 * ratio)
        return (then.sigma / now.sigma) * x - then.alpha * math.expm1(-h) * x_0
