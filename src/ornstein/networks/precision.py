"""Where matrix products run in bfloat16."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies bfloat16: emulated, it is slower than float32.

    On a CPU with AVX-512 BF16 linear layers become about seven times faster.
    """
    match device.type:
        case "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":
            return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        case _:
            return False


def fast_precision(device: torch.device) -> Any:
    """A context: bf16 autocast where `native_bf16`, elsewhere nothing changes."""
    return torch.autocast(device.type, torch.bfloat16) if native_bf16(device) else nullcontext()
