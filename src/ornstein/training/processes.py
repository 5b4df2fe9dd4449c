"""What several processes of one training must not do at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def main_process_first() -> Iterator[None]:
    """The block runs in the main process alone, then in the others: to prepare data that these then find ready."""
    from accelerate import PartialState

    with PartialState(cpu=not torch.accelerator.is_available()).main_process_first():
        yield
