"""What every folder of the suite shares: threads, and a disk that is full."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

# Workers of the suite and OpenMP threads must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """Within it, writing a file beyond so many bytes fails as on a full disk: the system itself refuses.

    The limit holds for the whole process, the runner's own report among it, so keep the block short.
    """

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
