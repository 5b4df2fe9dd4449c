r"""The forward process: how fast data turn into noise.

    q(x_t | x_{t-1}) = N(√(1 − β_t) x_{t-1}, β_t I),    t = 1 … T                        (Ho et al. 2020, eq. 2)
    q(x_t | x_0)     = N(√α̅_t x_0, (1 − α̅_t) I),       α̅_t = ∏_{s ≤ t} (1 − β_s)        (ibid., eq. 4)

Time steps run 1 … T, and α̅_0 = 1: step 0 is the data. Everything here is float64; only what is multiplied into a tensor is
cast to that tensor's type, last.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int64

_KEYS = {"kind", "betas"}


class NoiseSchedule:
    """A variance-preserving schedule of T steps.

    Index t of every table is time step t; entry 0 is the data (β_0 = 0, α̅_0 = 1).

    Attributes:
        num_steps: T.
        betas, alpha_bars: float64, shape (T + 1,).
    """

    def __init__(self, betas: Float[Tensor, " T"] | Sequence[float]) -> None:
        """From β_1 … β_T, each in [0, 1).

        Raises:
            DataError: no step, or a β that is not finite or outside [0, 1).
        """
        given = torch.as_tensor(betas, dtype=torch.float64)
        if given.ndim != 1 or len(given) == 0:
            raise DataError(f"a noise schedule takes a list of at least one beta, got shape {tuple(given.shape)}")
        wrong = ~(torch.isfinite(given) & (given >= 0) & (given < 1))
        if wrong.any():
            t = int(wrong.nonzero()[0]) + 1
            raise DataError(f"every beta must lie in [0, 1), but beta_{t} is {float(given[t - 1])}")
        self.betas = torch.cat([torch.zeros(1, dtype=torch.float64), given])
        self.alpha_bars = torch.cumprod(1 - self.betas, dim=0)
        self.num_steps = len(given)

    @classmethod
    def linear(cls, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
        """β from `beta_start` to `beta_end` in equal steps (Ho et al. 2020, §4)."""
        return cls(torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64))

    @classmethod
    def cosine(cls, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
        """α̅_t = f(t)/f(0), f(t) = cos²(π/2 · (t/T + s)/(1 + s)), β capped (Nichol & Dhariwal 2021, eq. 17)."""
        time = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        f = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls((1 - f[1:] / f[:-1]).clamp(max=max_beta))

    def to_json(self) -> dict[str, Any]:
        """The schedule as plain data, exact."""
        return {"kind": "betas", "betas": self.betas[1:].tolist()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NoiseSchedule:
        """The inverse of `to_json`, bit for bit.

        Raises:
            DataError: keys are missing or unknown.
        """
        if set(data) != _KEYS or data["kind"] != "betas":
            raise DataError(f"a stored noise schedule has the keys {sorted(_KEYS)}, got {sorted(data)}")
        return cls(data["betas"])

    def alpha_bar(self, t: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """α̅_t, the share of the signal's variance that is left; float64."""
        self._check(t, lowest=0)
        return self.alpha_bars.to(t.device)[t]

    def alpha_sigma(self, t: Int64[Tensor, " batch"], like: Tensor) -> tuple[Tensor, Tensor]:
        """α_t = √α̅_t and σ_t = √(1 − α̅_t), shaped to multiply `like` (batch first), in its type."""
        alpha_bar = self.alpha_bar(t).reshape(-1, *[1] * (like.ndim - 1))
        return alpha_bar.sqrt().to(like.dtype), (1 - alpha_bar).sqrt().to(like.dtype)

    def log_snr(self, t: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """λ_t = log(α̅_t / (1 − α̅_t)); +∞ at t = 0."""
        alpha_bar = self.alpha_bar(t)
        return torch.log(alpha_bar) - torch.log1p(-alpha_bar)

    def forward_step(self, x_previous: Tensor, t: Int64[Tensor, " batch"], eps: Tensor) -> Tensor:
        """One kernel: x_t from x_{t-1} and ε ~ N(0, I) (Ho et al. 2020, eq. 2). t runs 1 … T."""
        self._check(t, lowest=1)
        _same_shape("forward_step", x_previous, eps)
        beta = self.betas.to(t.device)[t].reshape(-1, *[1] * (x_previous.ndim - 1))
        return (1 - beta).sqrt().to(x_previous.dtype) * x_previous + beta.sqrt().to(x_previous.dtype) * eps

    def add_noise(self, x_0: Tensor, t: Int64[Tensor, " batch"], eps: Tensor) -> Tensor:
        """x_t in one jump: √α̅_t x_0 + √(1 − α̅_t) ε (Ho et al. 2020, eq. 4). t runs 0 … T."""
        _same_shape("add_noise", x_0, eps)
        if len(t) != len(x_0):
            raise DataError(f"add_noise needs one time step a sample: got {len(t)} for {len(x_0)}")
        alpha, sigma = self.alpha_sigma(t, x_0)
        return alpha * x_0 + sigma * eps

    def posterior(self, t: int) -> tuple[float, float, float]:
        """q(x_{t-1} | x_t, x_0) = N(a x_0 + b x_t, v I): a, b and v (Ho et al. 2020, eq. 7)."""
        return self.jump_posterior(t, t - 1)

    def jump_posterior(self, t: int, s: int) -> tuple[float, float, float]:
        """q(x_s | x_t, x_0) for any 0 ≤ s < t ≤ T: coefficients of x_0 and x_t, and the variance.

        The same formula as for one step, with β replaced by 1 − α̅_t/α̅_s, the noise added between s and t.
        """
        if not 0 <= s < t <= self.num_steps:
            raise DataError(f"a posterior needs 0 ≤ s < t ≤ {self.num_steps}, got s = {s}, t = {t}")
        bar_t, bar_s = float(self.alpha_bars[t]), float(self.alpha_bars[s])
        kept = bar_t / bar_s
        added = 1 - kept
        rest = 1 - bar_t
        return math.sqrt(bar_s) * added / rest, math.sqrt(kept) * (1 - bar_s) / rest, added * (1 - bar_s) / rest

    def _check(self, t: Tensor, lowest: int) -> None:
        if t.is_floating_point():
            raise DataError(f"time steps are integers {lowest} … {self.num_steps}, got {t.dtype}")
        if t.numel() and (int(t.min()) < lowest or int(t.max()) > self.num_steps):
            raise DataError(f"time steps run {lowest} … {self.num_steps}, got {int(t.min())} … {int(t.max())}")


def _same_shape(operation: str, x: Tensor, eps: Tensor) -> None:
    if x.shape != eps.shape:
        raise DataError(f"{operation} needs noise of the data's shape {tuple(x.shape)}, got {tuple(eps.shape)}")
