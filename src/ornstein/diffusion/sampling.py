r"""From noise to data: the loop that all samplers share.

A sampler walks down times T ≥ t_1 > t_2 > … > t_n > 0 and ends at `end`, by default 0, the data. The base class owns the pairs
(t, s) with s < t. At each it asks the denoiser once for x̂_0 = E[x_0 | x_t], and a subclass's `step` says how x_s follows:

    x_s = f(x_t, x̂_0, noise),    with coefficients that are computed once, when the sampler is made.

ε̂ need not be carried along: it is (x_t − α_t x̂_0)/σ_t, so whatever is written with ε̂ can be written with x_t and x̂_0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from ornstein.core.errors import DataError, DivergenceError
from ornstein.diffusion.predictions import check_prediction, coefficients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaxtyping import Float, Shaped
    from torch import Tensor

    from ornstein.diffusion.noise import NoiseSource
    from ornstein.diffusion.schedule import Level, NoiseSchedule, Time

    Denoiser = Callable[[Tensor, Tensor, Any], Tensor]

Spacing = Literal["trailing", "leading", "linspace", "log_snr"]


@dataclass(slots=True)  # not frozen: that costs more than the arithmetic of a small step
class Step:
    """One step that was made: its index (from 0), from t to t_prev, the state x at t_prev, and x̂_0 as seen from t."""

    index: int
    t: Time
    t_prev: Time
    x: Tensor
    x_0_hat: Tensor


def time_steps(num_train: int, num_steps: int, spacing: str) -> list[int]:
    """n distinct time steps, descending, for any 1 ≤ n ≤ T, whether or not n divides T.

    "trailing" starts at T and takes T/n from it each time (Lin et al. 2024, table 2), "leading" ends at 1, "linspace" does
    both (n ≥ 2). Gaps differ by at most one.

    Raises:
        DataError: n is out of range, or there is no such spacing.
    """
    if not 1 <= num_steps <= num_train:
        raise DataError(f"the number of sampling steps must be between 1 and {num_train}, got {num_steps}")
    match spacing:
        case "trailing":
            return [round(num_train - k * num_train / num_steps) for k in range(num_steps)]
        case "leading":
            return [1 + (k * num_train) // num_steps for k in reversed(range(num_steps))]
        case "linspace":
            last = num_train - 1
            return [1 + round(last - k * last / max(num_steps - 1, 1)) for k in range(num_steps)]
        case _:
            raise DataError(f"the spacing must be one of {', '.join(get_args(Spacing))} or a list of times, got {spacing!r}")


@dataclass(eq=False)
class Sampler(ABC):
    """The loop. Subclasses define `step`, and compute what it needs in `__post_init__`.

    A sampler keeps no state between or during trajectories: one object may serve many at a time.

    Args:
        schedule: the one that the denoiser was trained with.
        num_steps: how many steps.
        prediction: what the denoiser predicts, one of `PREDICTIONS`.
        spacing: how `time_steps` places them; "log_snr" for equal steps of log-SNR between T and 1 (or `end`), which is where
            exponential solvers are at home (Lu et al. 2022, §3.3); or the times themselves, descending, within (0, T], `num_steps`
            of them. Times between two whole steps are given to the denoiser in floating point.
        end: the time to stop at. Above 0, the result is x at that noise level.
        clip: bound x̂_0 to [−clip, clip] (Ho et al. 2020 clip pictures at 1). Not for latents, which have no bounds.

    Raises:
        DataError: a number is out of range, or the steps are not descending. UnknownNameError: no such prediction.
    """

    schedule: NoiseSchedule
    num_steps: int
    _: KW_ONLY
    prediction: str
    spacing: Spacing | Sequence[Time] = "trailing"
    end: Time = 0
    clip: float | None = None
    #: The n + 1 levels that a trajectory visits, from the first time down to `end`.
    levels: tuple[Level, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_prediction(self.prediction)
        if self.clip is not None and not self.clip > 0:
            raise DataError(f"clip must be positive, got {self.clip}")
        self.levels = tuple(self.schedule.level(t) for t in [*self._times(), self.end])
        noisy = (level for level in self.levels if level.t > 0)
        self._to_x_0 = [coefficients(self.prediction, "sample", level.alpha, level.sigma) for level in noisy]

    @property
    def stochastic(self) -> bool:
        """Whether `step` adds noise, so that a noise source is needed."""
        return False

    @abstractmethod
    def step(self, index: int, x: Tensor, x_0: Tensor, run: Trajectory) -> Tensor:
        """x at `levels[index + 1]`, from x and x̂_0 at `levels[index]`. Returns a new tensor."""

    def iterate(
        self,
        denoiser: Denoiser,
        noise: Float[Tensor, "batch ..."],
        condition: Any = None,
        noise_source: NoiseSource | None = None,
    ) -> Iterator[Step]:
        """The steps one by one, for progress, previews and trajectories.

        Args:
            denoiser: `(x_t, t, condition)` → a prediction of x_t's shape; t has shape (batch,) and is int64, or float64 between steps.
            noise: x at the first time step, shape (batch, …); for T, standard normal. Half precision is widened to float32.
            condition: passed on as it is.
            noise_source: where fresh noise comes from, for example `KeyedNoise`; needed by stochastic samplers only.

        Raises:
            DataError: noise is missing or of another shape, or the denoiser returns another shape.
            DivergenceError: the state is no longer finite; names the step and the samples.
        """
        if not noise.is_floating_point() or noise.ndim == 0:
            raise DataError(
                f"sampling starts from noise of shape (batch, …) in floating point, got {noise.dtype} {tuple(noise.shape)}"
            )
        if self.stochastic and noise_source is None:
            raise DataError(
                f"{type(self).__name__} adds noise at each step: pass a noise source, for example KeyedNoise(seed, indices)"
            )
        start = noise.to(torch.promote_types(noise.dtype, torch.float32))
        return self._walk(Trajectory(self, denoiser, condition, noise_source), start)

    def sample(
        self,
        denoiser: Denoiser,
        noise: Float[Tensor, "batch ..."],
        condition: Any = None,
        noise_source: NoiseSource | None = None,
    ) -> Float[Tensor, "batch ..."]:
        """The data at the end of `iterate`; the same arguments."""
        x = noise
        for step in self.iterate(denoiser, noise, condition, noise_source):
            x = step.x
        return x

    def _walk(self, run: Trajectory, x: Tensor) -> Iterator[Step]:
        for index, (now, then) in enumerate(pairwise(self.levels)):
            x_0 = run.estimate(index, x)
            x = self.step(index, x, x_0, run)
            run.past_x_0 = (x_0, *run.past_x_0[:1])
            # One sum sees every NaN and infinity, several times as fast as a test of each number.
            if not math.isfinite(x.sum().item()):
                _check_finite(x, f"the state is not finite after step {index + 1} of {self.num_steps} (t = {now.t} → {then.t})")
            yield Step(index, now.t, then.t, x, x_0)

    def _times(self) -> list[Time]:
        if not 0 <= self.end < self.schedule.num_steps:  # true for NaN as well
            raise DataError(f"sampling ends at a time 0 ≤ end < {self.schedule.num_steps}, got {self.end}")
        times: list[Time]
        if self.spacing == "log_snr":
            times = self._times_in_log_snr()
        elif isinstance(self.spacing, str):
            times = list(time_steps(self.schedule.num_steps, self.num_steps, self.spacing))
        else:
            times = [int(t) if math.isfinite(t) and t == int(t) else float(t) for t in self.spacing]
        descending = all(a > b for a, b in pairwise([*times, self.end]))
        if not times or not descending or not times[0] <= self.schedule.num_steps or len(times) != self.num_steps:
            raise DataError(
                f"the times must be {self.num_steps} descending numbers within {self.end} (excluded) … {self.schedule.num_steps}, got"
                f" {times[:5]}{'…' if len(times) > 5 else ''}"
            )
        return times

    def _times_in_log_snr(self) -> list[Time]:
        schedule = self.schedule
        if self.num_steps < 1:
            raise DataError(f"the number of sampling steps must be at least 1, got {self.num_steps}")
        if float(schedule.alphas[-1]) == 0.0:
            raise DataError(
                "log-SNR is infinite where no signal is left (zero terminal SNR): choose another spacing than 'log_snr'"
            )
        last = schedule.level(self.end if self.end > 0 else 1)
        low, high = float(schedule.log_snrs[-1]), 2 * math.log(last.alpha / last.sigma)
        # With `end` above 0 the n-th step leads there; else the last of the n times is 1, and the jump from it ends at the data.
        gaps = self.num_steps if self.end > 0 else self.num_steps - 1
        between = [schedule.time_at_log_snr(low + (high - low) * k / gaps) for k in range(1, self.num_steps)]
        if self.end == 0:
            between[-1:] = [1] * (self.num_steps > 1)  # not 0.999…: the denoiser was trained there
        return [schedule.num_steps, *between]


def time_of_each(x: Tensor, time: Time) -> Shaped[Tensor, " batch"]:
    """The same time for each sample of x, as denoisers are told it: int64 at a whole step, else floating point."""
    kind = torch.int64 if isinstance(time, int) else torch.float32 if x.device.type == "mps" else torch.float64
    return torch.full((len(x),), time, dtype=kind, device=x.device)


class Trajectory:
    """One run of a sampler: what `step` may ask for beyond the state.

    Attributes:
        past_x_0: x̂_0 of the step before and of the one before that, as far as there are any.
    """

    def __init__(self, sampler: Sampler, denoiser: Denoiser, condition: Any, noise_source: NoiseSource | None) -> None:
        self.past_x_0: tuple[Tensor, ...] = ()
        self._sampler, self._denoiser, self._condition, self._noise_source = sampler, denoiser, condition, noise_source

    def estimate(self, index: int, x: Tensor) -> Tensor:
        """x̂_0 at x on `levels[index]`, one evaluation of the denoiser; clipped where the sampler says so."""
        sampler = self._sampler
        time = sampler.levels[index].t
        predicted = self._denoiser(x, time_of_each(x, time), self._condition)
        if predicted.shape != x.shape:
            raise DataError(f"the denoiser must return the state's shape {tuple(x.shape)}, got {tuple(predicted.shape)}")
        if predicted.dtype != x.dtype:
            predicted = predicted.to(x.dtype)
        of_x, of_prediction = sampler._to_x_0[index]
        x_0 = predicted if sampler.prediction == "sample" else torch.add(x * of_x, predicted, alpha=of_prediction)
        if sampler.clip is None:
            return x_0
        if not math.isfinite(x_0.sum().item()):  # clipping would turn an infinity into an innocent number
            _check_finite(x_0, f"the denoiser's prediction is not finite at t = {sampler.levels[index].t}")
        return x_0.clamp(-sampler.clip, sampler.clip)

    def fresh_noise(self, index: int, x: Tensor) -> Tensor:
        """Standard normal noise of x's shape for step `index`."""
        if self._noise_source is None:
            raise DataError("this step adds noise, and no noise source was given")
        noise = self._noise_source.at(index, x.shape[1:])
        if noise.shape != x.shape:
            raise DataError(f"the noise source must return the state's shape {tuple(x.shape)}, got {tuple(noise.shape)}")
        return noise if noise.dtype == x.dtype and noise.device == x.device else noise.to(x.device, x.dtype)


def _check_finite(x: Tensor, what: str) -> None:
    finite = torch.isfinite(x).flatten(1).all(dim=1) if x.ndim > 1 else torch.isfinite(x)
    if bool(finite.all()):  # large but finite numbers, whose sum is not
        return
    rows = (~finite).nonzero().flatten().tolist()
    listed = ", ".join(map(str, rows[:8])) + ("…" if len(rows) > 8 else "")
    raise DivergenceError(
        f"sampling diverged: {what}, in sample {listed} of the batch of {len(x)};"
        " lower the guidance, take more steps or check the model"
    )
