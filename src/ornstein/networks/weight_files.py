"""Weights into a network: from a checkpoint, every one of them or none; from files that others wrote; and a name for weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from ornstein.core.errors import CheckpointError

if TYPE_CHECKING:
    from ornstein.core.checkpoint import Checkpoint

Network = TypeVar("Network", bound=nn.Module)

_TORCH = (".pt", ".pth", ".bin")


def weights_of(*parts: nn.Module) -> str:
    """12 hexadecimal digits of their weights."""
    digest = hashlib.sha256()
    for part in parts:
        for tensor in part.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file that holds a state dict and nothing that would run.

    Raises:
        CheckpointError: there is no such file, it is neither, it is damaged, or holds more than tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: give a .safetensors file or a torch state dict ({', '.join(_TORCH)})")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix not in _TORCH:
            raise CheckpointError(f"{path} is neither a .safetensors file nor a torch state dict ({', '.join(_TORCH)})")
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # each format has a family of errors of its own
        if type(error).__name__ == "UnpicklingError":
            raise CheckpointError(
                f"{path} holds more than tensors, and what would run is not read: save its state_dict()"
            ) from error
        raise CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    ):
        raise CheckpointError(f"{path} does not hold a state dict, name → tensor: save the network's state_dict()")
    return weights


def load_strictly(network: Network, checkpoint: Checkpoint) -> Network:
    """Fill `network` from the checkpoint's tensors (fp16 is widened to the network's own type).

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape; the first few are named.
    """
    tensors = {name: torch.as_tensor(value) for name, value in checkpoint.tensors().items()}
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise CheckpointError(f"the weights in {checkpoint.path} do not fit their configuration: {shown}")
    network.load_state_dict(tensors, strict=True)
    return network
