"""What a process of our own does better than by default: with memory that it frees and needs again, and with threads that wait for one another."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_AT_ONCE = 1 << 28
#: How often a thread of GNU's OpenMP looks before it sleeps.
_LOOKS = "20000"


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed instead of giving it back to the kernel, for the rest of this process.

    A training step on a processor frees and asks for hundreds of megabytes, which the kernel otherwise maps and clears anew each time: that was half of
    the time of a step of `vlm-emoji` (docs/lab-notes.md). Does nothing where the C library is not glibc.

    Returns:
        Whether it could.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _AT_ONCE))
    return all(bool(mallopt(name, value)) for name, value in settings)


def wait_asleep() -> None:
    """Let threads that wait for one another sleep soon, in place of looking all the time, unless the environment says how they should; before torch is imported.

    So many looks are as fast as the default's on an idle machine. Where other work has the cores too, two threads that look for each other take turns at not
    getting any: then they are three times as fast and more (docs/lab-notes.md).
    """
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = _LOOKS
