"""Model and loss as one module, and the means of what it reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ornstein.core.errors import TrainingError
from ornstein.training.batches import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator

# A scalar, or a scalar and numbers to log beside it.
Loss = Tensor | tuple[Tensor, Mapping[str, Any]]
LossFn = Callable[[Any, Batch, torch.Generator], Loss]


class Objective(nn.Module):
    """(batch, rng) → loss. Data parallelism hooks into `forward`; a loss function calls what it likes of the model."""

    def __init__(self, model: nn.Module, loss_fn: LossFn, *, bf16: bool) -> None:
        super().__init__()
        self.model, self._loss_fn, self._bf16 = model, loss_fn, bf16

    def forward(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        # Not through accelerate: its precision is one for the whole process, ours one for each training.
        with torch.autocast(rng.device.type, torch.bfloat16, enabled=self._bf16):
            result = self._loss_fn(self.model, batch, rng)
        loss, parts = result if isinstance(result, tuple) else (result, {})
        if loss.ndim != 0 or not loss.requires_grad:
            raise TrainingError(
                "the loss function must return a scalar that depends on the weights, "
                f"got a tensor of shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}"
            )
        numbers = {name: torch.as_tensor(value, device=loss.device) for name, value in parts.items()}
        return loss.float(), {name: value.detach().float() for name, value in numbers.items()}


class Window:
    """Means over the steps since the last line of the log."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._clear()

    def _clear(self) -> None:
        self._count, self._loss, self._norm, self._started = 0, 0.0, 0.0, time.perf_counter()
        self._parts: dict[str, Tensor] = {}

    def add(self, loss: float, norm: float, parts: Mapping[str, Tensor]) -> None:
        """One step. `parts` stay on their device until the window closes."""
        self._count, self._loss, self._norm = self._count + 1, self._loss + loss, self._norm + norm
        for name, value in parts.items():
            self._parts[name] = self._parts[name] + value if name in self._parts else value

    def to_json(self) -> dict[str, Any]:
        """What was added since the last line, for a checkpoint between two lines."""
        parts = {name: float(value) for name, value in self._parts.items()}
        return {"count": self._count, "loss": self._loss, "norm": self._norm, "parts": parts, "seconds": self._seconds()}

    def restore(self, data: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `to_json` gave."""
        self._count, self._loss, self._norm = data["count"], data["loss"], data["norm"]
        self._parts = {name: torch.tensor(value, device=device) for name, value in data["parts"].items()}
        self._started = time.perf_counter() - data["seconds"]

    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def close(self, accelerator: Accelerator) -> dict[str, float]:
        """The means, over all processes; starts a new window."""
        n, seconds = self._count, self._seconds()
        parts = accelerator.reduce(self._parts, "mean") if accelerator.num_processes > 1 else self._parts
        row = {
            "loss": self._loss / n,
            "gradient_norm": self._norm / n,
            "samples_per_second": n * self._batch_size / seconds,
            **{name: float(value) / n for name, value in parts.items()},
        }
        self._clear()
        return row
