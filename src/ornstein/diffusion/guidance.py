r"""Classifier-free guidance (Ho & Salimans 2022).

    ε̃ = ε(x_t, ∅) + w · (ε(x_t, c) − ε(x_t, ∅))

w = 0 is the unconditional model, w = 1 the conditional one, w > 1 exaggerates the condition (Ho & Salimans write 1 + w for it).
At fixed x_t each kind of prediction is an affine function of each other, y = a x_t + b ε, with coefficients that do not depend
on c, and the weights 1 − w and w sum to one: so ỹ = a x_t + b ε̃, and the formula means the same for ε, x_0, v and score.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int64


class ClassifierFreeGuidance:
    """A denoiser made of one: `(x_t, t, condition)` → the guided prediction, from both branches in one batch.

    Where w is 0 or 1, and outside the interval, only one branch is evaluated, on the batch as it came.
    """

    def __init__(
        self,
        denoiser: Callable[[Tensor, Tensor, Any], Tensor],
        scale: float,
        null_condition: Any,
        *,
        interval: tuple[int, int] | None = None,
        rescale: float = 0.0,
    ) -> None:
        """
        Args:
            scale: w. null_condition: ∅, or a negative condition to lead away from, with the structure of the conditions: a tensor, or a dict, list, tuple, named tuple or
                dataclass of tensors with the batch first; with a batch of one it serves for any.
            interval: guide only where interval[0] ≤ t ≤ interval[1] (Kynkäänniemi et al. 2024), plain conditional elsewhere.
            rescale: φ within [0, 1], how far to pull each sample's guided prediction back to the standard deviation of its
                conditional one (Lin et al. 2024, eq. 14–16; they advise 0.7 with v). Not linear: unlike w it depends on what is
                predicted.

        Raises:
            DataError: a number is not finite or out of range.
        """
        if not math.isfinite(scale):
            raise DataError(f"the guidance scale must be finite, got {scale}")
        if interval is not None and interval[0] > interval[1]:
            raise DataError(f"the guidance interval must be (low, high) in time steps, got {interval}")
        if not 0.0 <= rescale <= 1.0:
            raise DataError(f"the guidance rescaling must lie between 0 (none) and 1, got {rescale}")
        self.denoiser, self.scale, self.null_condition = denoiser, float(scale), null_condition
        self.interval, self.rescale = interval, float(rescale)

    def __call__(
        self, x_t: Float[Tensor, "batch ..."], t: Int64[Tensor, " batch"], condition: Any = None
    ) -> Float[Tensor, "batch ..."]:
        """The guided prediction, of the kind that the denoiser makes.

        Raises:
            DataError: the condition and the null condition differ in structure, or a leaf has another batch than x_t.
        """
        scale = self._scale_at(t)
        if scale == 1.0:
            return self.denoiser(x_t, t, condition)
        if scale == 0.0:
            return self.denoiser(x_t, t, map_tensors(lambda leaf: _for_batch(leaf, len(x_t)), self.null_condition))
        without, given = both_branches(self.denoiser, x_t, t, condition, self.null_condition)
        guided = without + scale * (given - without)
        return guided if self.rescale == 0.0 else self._rescaled(guided, given)

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

    def _rescaled(self, guided: Tensor, given: Tensor) -> Tensor:
        wanted, found = (part.flatten(1).std(dim=1, correction=0) for part in (given, guided))
        # A constant sample has no spread to change.
        factor = torch.where(found > 0, wanted / found, 1.0).reshape(-1, *[1] * (guided.ndim - 1))
        return guided * (self.rescale * factor + (1 - self.rescale))


def both_branches(
    denoiser: Callable[[Tensor, Tensor, Any], Tensor], x_t: Tensor, t: Tensor, condition: Any, null_condition: Any
) -> tuple[Tensor, Tensor]:
    """The predictions without and with the condition, evaluated in one batch; ∅ with a batch of one serves for any."""
    null = map_tensors(lambda leaf: _for_batch(leaf, len(x_t)), null_condition)
    both_conditions = map_tensors(lambda *pair: torch.cat([_for_batch(leaf, len(x_t)) for leaf in pair]), null, condition)
    without, given = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), both_conditions).chunk(2)
    return without, given


class Autoguidance:
    """A denoiser made of a good one and a worse version of it (Karras et al. 2024, "Guiding a diffusion model with a bad version of
    itself", eq. 3): ỹ = y_bad + w · (y − y_bad), both with the same condition.

    The worse one (smaller, or trained for less) errs in the same directions, only further: w > 1 leads away from the errors without
    narrowing what the condition allows. Both predict the same kind; w is 1 for the good one alone, which then is all that runs.
    """

    def __init__(
        self,
        denoiser: Callable[[Tensor, Tensor, Any], Tensor],
        worse: Callable[[Tensor, Tensor, Any], Tensor],
        scale: float,
    ) -> None:
        """
        Args:
            scale: w, ≥ 0.

        Raises:
            DataError: it is negative or not finite.
        """
        if not 0.0 <= scale < math.inf:
            raise DataError(f"the scale of autoguidance must be finite and not negative, got {scale}")
        self.denoiser, self.worse, self.scale = denoiser, worse, float(scale)

    def __call__(
        self, x_t: Float[Tensor, "batch ..."], t: Int64[Tensor, " batch"], condition: Any = None
    ) -> Float[Tensor, "batch ..."]:
        """The guided prediction, of the kind that both make.

        Raises:
            DataError: the two differ in shape.
        """
        if self.scale == 0.0:
            return self.worse(x_t, t, condition)
        good = self.denoiser(x_t, t, condition)
        if self.scale == 1.0:
            return good
        bad = self.worse(x_t, t, condition)
        if good.shape != bad.shape:
            raise DataError(
                f"the two denoisers of autoguidance must agree in shape, got {tuple(good.shape)} and {tuple(bad.shape)}"
            )
        return bad + self.scale * (good - bad)


def map_tensors(function: Callable[..., Tensor], first: Any, *rest: Any) -> Any:
    """Conditions of one structure, with `function` applied to each place's tensors; a None stays None.

    Raises:
        DataError: the structures differ, or a leaf is not a tensor.
    """
    for other in rest:
        if not isinstance(other, Tensor if isinstance(first, Tensor) else type(first)):
            raise DataError(f"a condition of type {type(first).__name__} does not fit one of type {type(other).__name__}")
    if first is None:
        return None
    if isinstance(first, Tensor):
        return function(first, *rest)
    if isinstance(first, dict):
        if any(set(other) != set(first) for other in rest):
            raise DataError(f"conditions must have the same keys, got {[sorted(tree) for tree in (first, *rest)]}")
        return {key: map_tensors(function, first[key], *(other[key] for other in rest)) for key in first}
    if isinstance(first, list | tuple):
        if any(len(other) != len(first) for other in rest):
            raise DataError(f"conditions must have the same number of parts, got {[len(tree) for tree in (first, *rest)]}")
        parts = [map_tensors(function, *places) for places in zip(first, *rest, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in fields(first)]
        return replace(first, **{n: map_tensors(function, *(getattr(tree, n) for tree in (first, *rest))) for n in names})
    raise DataError(f"a condition is made of tensors, dicts, lists, tuples and dataclasses; got {type(first).__name__}")


def _for_batch(leaf: Tensor, batch: int) -> Tensor:
    if leaf.ndim == 0 or len(leaf) not in (1, batch):
        raise DataError(f"each tensor of a condition needs the batch of {batch} first (or 1), got shape {tuple(leaf.shape)}")
    return leaf.expand(batch, *leaf.shape[1:])
