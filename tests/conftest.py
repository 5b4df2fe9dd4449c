"""Threads for the whole suite, and shapes: jaxtyping's annotations are checked by beartype while the tests run."""

from __future__ import annotations

import os

# Workers of the suite and OpenMP threads must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")
