r"""The forward process: how fast data turn into noise.

    q(x_t | x_{t-1}) = N(√(1 − β_t) x_{t-1}, β_t I),    t = 1 … T                        (Ho et al. 2020, eq. 2)
    q(x_t | x_0)     = N(α_t x_0, σ_t² I),              α_t = √α̅_t, σ_t = √(1 − α̅_t)     (ibid., eq. 4)
    α̅_t = ∏_{s ≤ t} (1 − β_s)

Time steps run 1 … T, and α̅_0 = 1: step 0 is the data. α without a bar is the factor of the signal here, √α̅, not 1 − β as in
Ho et al. Everything is float64; only what is multiplied into a tensor is cast to that tensor's type, last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int64

_KEYS = {"kind", "betas"}


#: A time within 0 … T: a whole step, or between two.
Time = int | float


class Level(NamedTuple):
    """A time (a whole step, or between two) with its α = √α̅_t and σ = √(1 − α̅_t), as plain numbers."""

    t: Time
    alpha: float
    sigma: float


@dataclass(frozen=True, init=False, eq=False, repr=False)
class NoiseSchedule:
    """A variance-preserving schedule of T steps. It does not change once made: do not write into its tables.

    Index t of every table is time step t; entry 0 is the data (β_0 = 0, α̅_0 = 1).

    Attributes:
        num_steps: T.
        betas, alpha_bars, alphas, sigmas, log_snrs: float64, shape (T + 1,), on the CPU.
    """

    num_steps: int
    betas: Tensor
    alpha_bars: Tensor
    alphas: Tensor
    sigmas: Tensor
    log_snrs: Tensor
    _log_kept: Tensor
    _angles: Tensor
    _cast: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = field(default_factory=dict)

    @torch.inference_mode(False)  # else tables made under inference mode could not take part in training later
    def __init__(self, betas: Float[Tensor, " T"] | Sequence[float]) -> None:
        """From β_1 … β_T, each within (0, 1); β_T alone may be 1, which leaves no signal at T (Lin et al. 2024).

        Raises:
            DataError: no step, a β that is not a finite number within its bounds, or betas so large that the signal underflows before T.
        """
        try:
            given = torch.as_tensor(betas, dtype=torch.float64, device="cpu").clone()
        except OverflowError as error:
            raise DataError("every beta must lie between 0 and 1, but one has hundreds of digits") from error
        if given.ndim != 1 or len(given) == 0:
            raise DataError(f"a noise schedule takes a list of at least one beta, got shape {tuple(given.shape)}")
        wrong = ~((given > 0) & (given < 1))  # true for NaN as well
        wrong[-1] &= bool(given[-1] != 1)
        if wrong.any():
            t = int(wrong.nonzero()[0]) + 1
            raise DataError(f"every beta must lie between 0 and 1 (the last one may be 1), but beta_{t} is {float(given[t - 1])}")
        with_data = torch.cat([torch.zeros(1, dtype=torch.float64), given])
        alpha_bars = torch.cumprod(1 - with_data, dim=0)
        gone = int((alpha_bars[:-1] == 0).sum())
        if gone:
            raise DataError(
                f"the signal is gone (below the smallest number) at t = {len(given) - gone} of {len(given)} already, and only the last"
                " step may leave none: take fewer steps or smaller betas"
            )
        # 1 − α̅ loses its digits where α̅ is near 1, −expm1(Σ log(1 − β)) does not.
        log_kept = torch.log1p(-with_data)
        log_alpha_bars = torch.cumsum(log_kept, dim=0)
        variances = -torch.expm1(log_alpha_bars)
        tables = {
            "num_steps": len(given),
            "betas": with_data,
            "alpha_bars": alpha_bars,
            "alphas": alpha_bars.sqrt(),
            "sigmas": variances.sqrt(),
            "log_snrs": log_alpha_bars - variances.log(),
            "_log_kept": log_kept,
            "_angles": torch.atan2(variances.sqrt(), alpha_bars.sqrt()),
            "_cast": {},
        }
        for name, value in tables.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_betas(cls, betas: Float[Tensor, " T"] | Sequence[float]) -> NoiseSchedule:
        """The schedule with exactly these β_1 … β_T; the same as calling the class."""
        return cls(betas)

    @classmethod
    def linear(cls, *, beta_start: float = 1e-4, beta_end: float = 0.02, num_steps: int = 1000) -> NoiseSchedule:
        """β from `beta_start` to `beta_end` in equal steps (Ho et al. 2020, §4)."""
        return cls(torch.linspace(beta_start, beta_end, _at_least_one(num_steps), dtype=torch.float64))

    @classmethod
    def cosine(cls, *, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
        """α̅_t = f(t)/f(0), f(t) = cos²(π/2 · (t/T + s)/(1 + s)), s = `offset`, β capped (Nichol & Dhariwal 2021, eq. 17)."""
        time = torch.arange(_at_least_one(num_steps) + 1, dtype=torch.float64) / num_steps
        f = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls((1 - f[1:] / f[:-1]).clamp(max=max_beta))

    @classmethod
    def scaled_linear(cls, *, beta_start: float = 8.5e-4, beta_end: float = 0.012, num_steps: int = 1000) -> NoiseSchedule:
        """√β from √`beta_start` to √`beta_end` in equal steps: latent diffusion's (Rombach et al. 2022, their released code)."""
        if not (beta_start >= 0 and beta_end >= 0):  # true for NaN as well
            raise DataError(f"betas have no root where they are negative, got {beta_start} and {beta_end}")
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, _at_least_one(num_steps), dtype=torch.float64)
        return cls(roots**2)

    def with_zero_terminal_snr(self) -> NoiseSchedule:
        """The same, shifted and stretched so that no signal is left at T (Lin et al. 2024, algorithm 1).

        √α̅ becomes linear in itself: √α̅_1 stays, √α̅_T becomes 0. A denoiser that predicts ε says nothing there: train one that
        predicts "v_prediction" or "sample". Needs two steps at least.
        """
        if self.num_steps < 2:
            raise DataError("a schedule of one step has no shape to keep: zero-terminal-SNR rescaling needs two steps at least")
        roots = self.alphas[1:]
        rescaled = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
        # 1 − α̅_t/α̅_{t−1} from the roots' difference: exact where they are nearly the same.
        before = torch.cat([torch.ones(1, dtype=torch.float64), rescaled[:-1]])
        return type(self)(torch.cat([self.betas[1:2], ((before - rescaled) * (before + rescaled) / before**2)[1:]]))

    def to_json(self) -> dict[str, Any]:
        """The schedule as plain data, exact."""
        return {"kind": "betas", "betas": self.betas[1:].tolist()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NoiseSchedule:
        """The inverse of `to_json`, bit for bit.

        Raises:
            DataError: a key is missing or unknown, or `betas` is not a list of numbers within their bounds.
        """
        if not isinstance(data, dict) or set(data) != _KEYS or data["kind"] != "betas":
            got = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise DataError(f"a stored noise schedule has the keys {sorted(_KEYS)} with kind 'betas', got {got}")
        betas = data["betas"]
        if not isinstance(betas, list) or any(isinstance(b, bool) or not isinstance(b, int | float) for b in betas):
            raise DataError("the betas of a stored noise schedule must be a list of numbers")
        return cls(betas)

    def beta(self, t: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """β_t, the variance that step t adds; float64, t from 0."""
        return self._at(self.betas, t)

    def alpha_bar(self, t: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """α̅_t, the share of the signal's variance that is left; float64, t from 0."""
        return self._at(self.alpha_bars, t)

    def alpha(self, t: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """α_t = √α̅_t, the factor of the signal; float64, t from 0."""
        return self._at(self.alphas, t)

    def sigma(self, t: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """σ_t = √(1 − α̅_t), the standard deviation of the noise; float64, t from 0."""
        return self._at(self.sigmas, t)

    def log_snr(self, t: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """λ_t = log(α̅_t / (1 − α̅_t)); +∞ at t = 0, −∞ where no signal is left; float64."""
        return self._at(self.log_snrs, t)

    def level(self, t: Time) -> Level:
        """Time t with its α and σ as plain numbers, 0 ≤ t ≤ T; between two steps as in `angle`."""
        if not 0 <= t <= self.num_steps:  # true for NaN as well
            raise DataError(f"time runs 0 … {self.num_steps}, got {t}")
        if t == int(t):  # to the last bit
            return Level(int(t), float(self.alphas[int(t)]), float(self.sigmas[int(t)]))
        angle = float(self.angle(torch.tensor(t, dtype=torch.float64)))
        return Level(t, math.cos(angle), math.sin(angle))

    def alpha_sigma(self, t: Int64[Tensor, " batch"], like: Float[Tensor, "batch ..."]) -> tuple[Tensor, Tensor]:
        """α_t and σ_t, shaped (batch, 1, …) to multiply `like`, in its type and on its device; t from 0."""
        self._check(t, lowest=0, batch=len(like))
        key = (like.device, like.dtype)
        if key not in self._cast:
            with torch.inference_mode(False):  # cast before the move: some devices have no float64
                self._cast[key] = (self.alphas.to(like.dtype).to(like.device), self.sigmas.to(like.dtype).to(like.device))
        alphas, sigmas = self._cast[key]
        shape = (-1, *[1] * (like.ndim - 1))
        return alphas[t].reshape(shape), sigmas[t].reshape(shape)

    def angle(self, time: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """φ = atan2(σ, α) at any time 0 ≤ `time` ≤ T, float64, on the CPU: the continuous view of the schedule, α = cos φ and σ = sin φ.

        It runs straight between two steps: it is finite at both ends, t = 0 and zero terminal signal, where log-SNR is not, and
        preserves the variance exactly.
        """
        time = time.cpu().double()  # moved first: some devices have no float64
        if not bool(((time >= 0) & (time <= self.num_steps)).all()):  # true for NaN as well
            raise DataError(f"time runs 0 … {self.num_steps}, got {time.flatten()[:4].tolist()}")
        below = time.long().clamp(max=self.num_steps - 1)
        start, end = self._angles[below], self._angles[below + 1]
        return start + (time - below) * (end - start)

    def time_at_angle(self, angle: float) -> float:
        """The time at which `angle` is that: the inverse of the continuous schedule.

        Raises:
            DataError: the schedule ends before it gets there, or it is not a number.
        """
        last = float(self._angles[-1])
        if not 0 <= angle <= last + 1e-9:  # rounding at T itself is forgiven; true for NaN as well
            raise DataError(f"the angle of this schedule runs 0 … {last:.6g}, got {angle}")
        above = min(max(int(torch.searchsorted(self._angles, angle)), 1), self.num_steps)
        start, end = float(self._angles[above - 1]), float(self._angles[above])
        return above - 1 + min(max((angle - start) / (end - start), 0.0), 1.0)

    def time_at_log_snr(self, log_snr: float) -> float:
        """The time at which `level` reaches that log(α²/σ²).

        Raises:
            DataError: the schedule ends before it gets there, or it is not a number.
        """
        lowest = float(self.log_snrs[-1])
        if not log_snr >= lowest - 1e-9:
            raise DataError(f"log-SNR falls from infinity to {lowest:.4g} at t = {self.num_steps}, and never to {log_snr}")
        return self.time_at_angle(math.atan(math.exp(-log_snr / 2)) if log_snr > -1400 else math.pi / 2)

    def terminal_kl(self, second_moment: float = 1.0) -> float:
        """KL(q(x_T | x_0) ‖ N(0, I)) in bits a dimension: what the data still tell about x_T.

            ½ (α̅_T x_0² + σ_T² − 1 − ln σ_T²) / ln 2                                    (Ho et al. 2020, L_T of eq. 5)

        Args:
            second_moment: the mean of x_0² over dimensions and data; 1 for data of mean 0 and unit variance.
        """
        if not 0 <= second_moment < math.inf:
            raise DataError(f"a second moment is finite and not negative, got {second_moment}")
        signal = float(self.alpha_bars[-1])
        return 0.5 * (signal * second_moment - signal - math.log1p(-signal)) / math.log(2)

    def forward_step(
        self, x_previous: Float[Tensor, "batch ..."], t: Int64[Tensor, " batch"], eps: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch ..."]:
        """One kernel: x_t from x_{t-1} and ε ~ N(0, I) (Ho et al. 2020, eq. 2). t runs 1 … T."""
        self._check(t, lowest=1, batch=len(x_previous))
        _check_pair("forward_step", x_previous, eps)
        beta = self.betas[t.cpu()].reshape(-1, *[1] * (x_previous.ndim - 1))
        kept, added = (part.sqrt().to(x_previous.dtype).to(x_previous.device) for part in (1 - beta, beta))
        return kept * x_previous + added * eps

    def add_noise(
        self, x_0: Float[Tensor, "batch ..."], t: Int64[Tensor, " batch"], eps: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch ..."]:
        """x_t in one jump: α_t x_0 + σ_t ε (Ho et al. 2020, eq. 4). t runs 0 … T."""
        _check_pair("add_noise", x_0, eps)
        alpha, sigma = self.alpha_sigma(t, x_0)
        return alpha * x_0 + sigma * eps

    def posterior(self, t: int) -> tuple[float, float, float]:
        """q(x_{t-1} | x_t, x_0) = N(a x_0 + b x_t, v I): a, b and v (Ho et al. 2020, eq. 7)."""
        return self.jump_posterior(t, t - 1)

    def jump_posterior(self, t: Time, s: Time) -> tuple[float, float, float]:
        """q(x_s | x_t, x_0) for any times 0 ≤ s < t ≤ T: coefficients of x_0 and x_t, and the variance.

        The same formula as for one step, with β replaced by `jump_variance`, the noise added between s and t.
        """
        added = self.jump_variance(t, s)
        now, then = self.level(t), self.level(s)
        share = (then.sigma / now.sigma) ** 2
        return then.alpha * added / now.sigma**2, now.alpha / then.alpha * share, added * share

    def jump_variance(self, t: Time, s: Time) -> float:
        """The variance of q(x_t | x_s), 1 − α̅_t/α̅_s, for times 0 ≤ s < t ≤ T: β_t where s = t − 1."""
        if not 0 <= s < t <= self.num_steps:
            raise DataError(f"a jump runs between 0 ≤ s < t ≤ {self.num_steps}, got s = {s}, t = {t}")
        if s == int(s) and t == int(t):
            # Summed anew: a difference of α̅'s logarithms would lose a small β behind a large one.
            return -math.expm1(float(self._log_kept[int(s) + 1 : int(t) + 1].sum()))
        start, end = self.angle(torch.tensor([s, t], dtype=torch.float64)).tolist()
        # cos² start − cos² end, as a product: nothing cancels.
        return math.sin(end - start) * math.sin(end + start) / math.cos(start) ** 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoiseSchedule) and torch.equal(self.betas, other.betas)

    def __hash__(self) -> int:
        return hash(tuple(self.betas.tolist()))

    def __repr__(self) -> str:
        return f"NoiseSchedule({self.num_steps} steps, alpha_bar_T = {float(self.alpha_bars[-1]):.3g})"

    def _at(self, table: Tensor, t: Tensor) -> Tensor:
        self._check(t, lowest=0)
        return table.to(t.device)[t]

    def _check(self, t: Tensor, lowest: int, batch: int | None = None) -> None:
        if t.is_floating_point() or t.dtype == torch.bool:
            raise DataError(f"time steps are integers {lowest} … {self.num_steps}, got {t.dtype}")
        if batch is not None and t.shape != (batch,):
            raise DataError(f"one time step a sample is needed, shape ({batch},), got shape {tuple(t.shape)}")
        if t.numel() and (int(t.min()) < lowest or int(t.max()) > self.num_steps):
            raise DataError(f"time steps run {lowest} … {self.num_steps}, got {int(t.min())} … {int(t.max())}")


def _at_least_one(num_steps: int) -> int:
    if num_steps < 1:
        raise DataError(f"a noise schedule needs at least one step, got {num_steps}")
    return num_steps


def _check_pair(operation: str, x: Tensor, eps: Tensor) -> None:
    if not (x.is_floating_point() and eps.is_floating_point()):  # α and σ would be cast to whole numbers: all zeros
        raise DataError(f"{operation} takes floating point numbers, got {x.dtype} and {eps.dtype}")
    if x.shape != eps.shape:
        raise DataError(f"{operation} needs noise of the data's shape {tuple(x.shape)}, got {tuple(eps.shape)}")
    for name, part in (("data", x), ("noise", eps)):
        if not bool(torch.isfinite(part).all()):
            raise DataError(f"{operation} needs finite {name}, but some of it is NaN or infinite")
