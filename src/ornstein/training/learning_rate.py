"""The learning rate as a pure function of the step, so that resuming has nothing to restore.

    warm-up   lr(k) = lr · (k + 1) / W                          for k < W
    decay     lr(k) = lr · (f + (1 − f) · s(p)),  p = (k − W) / (K − W)  for W ≤ k < K

with s(p) = 1 (constant), 1 − p (linear) or (1 + cos πp) / 2 (cosine; Loshchilov & Hutter 2017), K steps in all and f
the final fraction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ornstein.training.optimization import Optimization


def learning_rate_at(step: int, optimization: Optimization) -> float:
    """The rate of update number `step`, counted from 0."""
    peak, warmup = optimization.learning_rate, optimization.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min((step - warmup) / max(optimization.steps - warmup, 1), 1.0)
    match optimization.decay:
        case "constant":
            return peak
        case "linear":
            shape = 1 - progress
        case "cosine":
            shape = (1 + math.cos(math.pi * progress)) / 2
    final = optimization.final_learning_rate_fraction
    return peak * (final + (1 - final) * shape)
