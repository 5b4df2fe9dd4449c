"""The oldest check of a training: can it learn one batch by heart?

A loss that does not fall there will not fall on data: something is wrong with the targets, the shapes, a sign, a learning rate.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_on: ContextVar[bool] = ContextVar("overfitting_one_batch", default=False)


@contextmanager
def overfitting_one_batch() -> Iterator[None]:
    """Within it, every `train` draws its first batch again and again. Noise and dropout are still drawn anew, so the loss of a diffusion falls
    to what its noise leaves. Checkpoints say that they come from it, and cannot be resumed without it."""
    token = _on.set(True)
    try:
        yield
    finally:
        _on.reset(token)


def is_overfitting_one_batch() -> bool:
    """Whether this is within `overfitting_one_batch`."""
    return _on.get()
