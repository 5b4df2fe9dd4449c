"""Weights from a checkpoint into a network, every one of them or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from ornstein.core.errors import CheckpointError, DataError
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig

if TYPE_CHECKING:
    from ornstein.core.checkpoint import Checkpoint

Network = TypeVar("Network", bound=nn.Module)


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


def load_autoencoder(checkpoint: Checkpoint) -> Autoencoder:
    """The first stage, ready for use.

    Raises:
        CheckpointError: configuration or weights do not fit.
    """
    try:
        network = Autoencoder(AutoencoderConfig(**checkpoint.config))
    except (TypeError, DataError) as error:
        raise CheckpointError(f"the configuration of {checkpoint.path} does not fit an autoencoder: {error}") from error
    return load_strictly(network, checkpoint).eval()
