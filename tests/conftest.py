"""Threads for the whole suite."""

from __future__ import annotations

import os

# Workers of the suite and OpenMP threads must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")
