"""Numbers as sines and cosines: what lets a small network tell values apart that lie close together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def waves(values: Float[Tensor, "... numbers"], octaves: int) -> Float[Tensor, "... more"]:
    """Numbers of about −1 … 1, and sines and cosines of them from half a period over that range upwards: what lets a small network tell
    places a few millimetres apart."""
    found = [values]
    for k in range(octaves):
        angle = values * (math.pi * 2**k)
        found += [angle.sin(), angle.cos()]
    return torch.cat(found, dim=-1)


def waves_of(numbers: int, octaves: int) -> int:
    """How many numbers `waves` makes of so many."""
    return numbers * (1 + 2 * octaves)
