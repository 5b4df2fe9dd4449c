"""Refusing numbers that make no sense, by their names: what configurations and recipes check when they are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST_SEED = 2**63 - 1


def require_at_least(lowest: float, **numbers: float) -> None:
    """Each number is finite and at least `lowest`.

    Raises:
        DataError: names the first that is not.
    """
    for name, number in numbers.items():
        if not (math.isfinite(number) and number >= lowest):
            raise DataError(f"{name} must be at least {lowest:g}, got {number}")


def require_shares(**numbers: float) -> None:
    """Each number is within 0 … 1. Errors as above."""
    for name, number in numbers.items():
        if not 0.0 <= number <= 1.0:
            raise DataError(f"{name} is a share between 0 and 1, got {number}")


def require_seeds(**numbers: int) -> None:
    """Each number is within 0 … 2⁶³ − 1. Errors as above."""
    for name, number in numbers.items():
        if not 0 <= number <= _LARGEST_SEED:
            raise DataError(f"{name} is a seed between 0 and 2^63 - 1, got {number}")


def require_multiples(divisor: int, why: str, numbers: Mapping[str, int]) -> None:
    """Each number is a positive multiple of `divisor`. Errors as above."""
    for name, number in numbers.items():
        if number < divisor or number % divisor:
            raise DataError(f"{name} must be a multiple of {divisor} ({why}), got {number}")
