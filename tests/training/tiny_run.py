"""A training that takes milliseconds, with everything in it that could break resuming: convolution, batch norm's buffers,
dropout, noise from the generator, a parameter in two places. Imported by the tests, and run by those that need a process:

    python tiny_run.py OUT [STEPS] [--resume]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core import Checkpoint, read_checkpoint
from ornstein.training import Batch, Optimization, TrainResult, initialise, train

STATE_FILES = ("model.safetensors", "training_state/ema.safetensors", "training_state/optimizer.safetensors")


class TinyNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, padding=1, bias=False)  # before a norm, a bias has gradient 0 + rounding
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.2)
        self.mixing = nn.Linear(6, 6)
        self.tied = self.mixing
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = functional.silu(self.norm(self.convolution(x)))
        features = self.dropout(features).mean((2, 3))
        return self.head(self.tied(self.mixing(features)))


def network() -> TinyNetwork:
    return initialise(TinyNetwork, 0)


def batch_of(indices: np.ndarray) -> Batch:
    pictures = [np.random.default_rng([5, int(index)]).normal(size=(3, 4, 4)) for index in indices]
    return {"x": torch.from_numpy(np.stack(pictures).astype(np.float32))}


def noisy_loss(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
    x = batch["x"]
    noise = torch.randn(x.shape, generator=rng, device=x.device)
    error = model(x + 0.1 * noise) - x.mean((2, 3))
    loss = error.float().square().mean()
    return loss, {"noise": noise.mean(), "one": 1.0}


def deterministic_loss(model: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
    return (model(batch["x"]) - batch["x"].mean((2, 3))).square().mean()


def settings(**changes: Any) -> Optimization:
    defaults: dict[str, Any] = {
        "steps": 12,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "warmup_steps": 3,
        "log_every": 2,
        "checkpoint_every": 5,
        "preview_every": 4,
        "precision": "fp32",
        "ema_decay": 0.9,
    }
    return Optimization(**{**defaults, **changes})


def run(out: Path, optimization: Optimization | None = None, **changes: Any) -> TrainResult:
    arguments: dict[str, Any] = {"recipe": "tiny", "kind": "tiny", "config": {"width": 6}}
    model = changes.pop("model", None) or network()
    loss_fn, batches = changes.pop("loss_fn", noisy_loss), changes.pop("batch_of", batch_of)
    return train(model, loss_fn, batches, optimization or settings(), out, **{**arguments, **changes})


def final_state(out: Path, step: int = 12) -> dict[str, np.ndarray]:
    """Weights, moving average and moments of a checkpoint, by file and name."""
    checkpoint: Checkpoint = read_checkpoint(out / "checkpoints" / f"step-{step:07d}")
    return {f"{file}:{name}": array for file in STATE_FILES for name, array in checkpoint.tensors(file).items()}


def assert_same_bits(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert set(left) == set(right)
    different = [name for name in left if left[name].tobytes() != right[name].tobytes()]
    assert not different, f"bits differ in {different}"


def slow_loss(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
    time.sleep(0.02)
    return noisy_loss(model, batch, rng)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:] if word.isdigit()]
    run(
        Path(sys.argv[1]),
        settings(steps=numbers[0] if numbers else 12, checkpoint_every=2, log_every=1),
        loss_fn=slow_loss,
        resume="--resume" in sys.argv,
    )
