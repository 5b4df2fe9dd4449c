r"""Classifier-free guidance (Ho & Salimans 2022).

    ε̃ = ε(x_t, ∅) + w · (ε(x_t, c) − ε(x_t, ∅))

w = 0 is the unconditional model, w = 1 the conditional one, w > 1 exaggerates the condition. At fixed x_t all predictions
are affine in one another with coefficients that do not depend on c, and the weights 1 − w and w sum to one: so the formula
means the same for ε, x_0, v and score.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable


class ClassifierFreeGuidance:
    """A denoiser made of one: `(x_t, t, condition)` → the guided prediction, from both branches in one batch.

    Where w is 0 or 1, and outside the interval, only one branch is evaluated.
    """

    def __init__(
        self,
        denoiser: Callable[[Tensor, Tensor, Any], Tensor],
        scale: float,
        null_condition: Any,
        *,
        interval: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            scale: w. null_condition: ∅ for a batch, of the same structure as the conditions: a tensor, or a dict, tuple,
                named tuple or dataclass of tensors with the batch first.
            interval: guide only where interval[0] ≤ t ≤ interval[1] (Kynkäänniemi et al. 2024), plain conditional elsewhere.
        """
        if not torch.isfinite(torch.tensor(scale)):
            raise DataError(f"the guidance scale must be finite, got {scale}")
        if interval is not None and interval[0] > interval[1]:
            raise DataError(f"the guidance interval must be (low, high) in time steps, got {interval}")
        self.denoiser, self.scale, self.null_condition, self.interval = denoiser, scale, null_condition, interval

    def __call__(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        scale = self._scale_at(t)
        if scale == 1.0:
            return self.denoiser(x_t, t, condition)
        if scale == 0.0:
            return self.denoiser(x_t, t, self.null_condition)
        both = self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), stack(self.null_condition, condition))
        without, given = both.chunk(2)
        return without + scale * (given - without)

    def _scale_at(self, t: Tensor) -> float:
        if self.interval is None:
            return self.scale
        low, high = self.interval
        inside = (t >= low) & (t <= high)
        if bool(inside.all()):
            return self.scale
        if bool(inside.any()):
            raise DataError("a guidance interval needs one time step for the whole batch")
        return 1.0


def stack(first: Any, second: Any) -> Any:
    """Two conditions of the same structure as one batch: every tensor leaf concatenated along its first dimension.

    Raises:
        DataError: the structures differ, or a leaf is not a tensor.
    """
    if type(first) is not type(second):
        raise DataError(f"cannot stack a condition of type {type(first).__name__} with one of {type(second).__name__}")
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    if first is None:
        return None
    if isinstance(first, dict):
        if set(first) != set(second):
            raise DataError(f"cannot stack conditions with keys {sorted(first)} and {sorted(second)}")
        return {key: stack(first[key], second[key]) for key in first}
    if isinstance(first, tuple):
        parts = [stack(a, b) for a, b in zip(first, second, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if is_dataclass(first) and not isinstance(first, type):
        return replace(first, **{f.name: stack(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)})
    raise DataError(f"a condition is made of tensors, dicts, tuples and dataclasses; got {type(first).__name__}")
