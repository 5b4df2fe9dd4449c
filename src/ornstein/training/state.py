"""What a training is between two steps, to a checkpoint and back, bit for bit."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ornstein.core.checkpoint import WEIGHTS, Checkpoint, write_checkpoint
from ornstein.core.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from ornstein.core.contract import EmbodimentContract
    from ornstein.training.ema import ExponentialMovingAverage

_EMA = "training_state/ema.safetensors"
_OPTIMIZER = "training_state/optimizer.safetensors"
_PROGRESS = "training_state/progress.json"


@dataclass
class TrainingState:
    """step: updates done. seconds: spent on them, over all sessions. loss: mean over the last logged steps; window: sums since.

    Everything else of a step is a function of its number.
    """

    model: nn.Module
    ema: ExponentialMovingAverage
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    window: Mapping[str, Any] = field(default_factory=dict)

    def save(
        self,
        folder: Path,
        *,
        kind: str,
        config: Mapping[str, Any],
        provenance: Mapping[str, Any],
        card: str,
        contract: EmbodimentContract | None,
        extra_files: Mapping[str, bytes | Mapping[str, Any]],
    ) -> None:
        """Write it all; see `write_checkpoint` for what can go wrong."""
        loss = self.loss if math.isfinite(self.loss) else None
        progress = {"step": self.step, "seconds": self.seconds, "loss": loss, "window": self.window}
        write_checkpoint(
            folder,
            kind=kind,
            config=config,
            tensors=self.model.state_dict(),
            provenance=provenance,
            card=card,
            contract=contract,
            extra_files={
                **extra_files,
                _EMA: self.ema.model.state_dict(),
                _OPTIMIZER: self._moments(),
                _PROGRESS: json.dumps(progress, allow_nan=False).encode(),
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what `save` wrote.

        Raises:
            TrainingError: the checkpoint is an exported model, or of a network with other tensors.
        """
        if _PROGRESS not in checkpoint.files:
            raise TrainingError(f"cannot resume from {checkpoint.path}: it is a finished model without a training state")
        try:
            self.model.load_state_dict(_tensors(checkpoint, WEIGHTS), strict=True)
            self.ema.model.load_state_dict(_tensors(checkpoint, _EMA), strict=True)
            self._restore_moments(_tensors(checkpoint, _OPTIMIZER))
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise TrainingError(f"cannot resume from {checkpoint.path}: it does not fit the network: {reason}") from error
        progress = json.loads(checkpoint.read_bytes(_PROGRESS))
        self.step, self.seconds = progress["step"], progress["seconds"]
        self.loss = math.nan if progress["loss"] is None else progress["loss"]
        self.window = progress["window"]

    def _moments(self) -> dict[str, torch.Tensor]:
        return {
            f"{name}/{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def _restore_moments(self, tensors: Mapping[str, torch.Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for key, tensor in tensors.items():
            name, slot = key.rsplit("/", 1)
            parameter = parameters[name]
            # A moment has its parameter's device and memory layout, AdamW's step count neither.
            own = torch.empty_like(parameter) if tensor.shape == parameter.shape and slot != "step" else None
            device = parameter.device if self.optimizer.defaults.get("fused") else "cpu"
            self.optimizer.state[parameter][slot] = tensor.to(device) if own is None else own.detach().copy_(tensor)


def _tensors(checkpoint: Checkpoint, file: str) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(array) for name, array in checkpoint.tensors(file).items()}
