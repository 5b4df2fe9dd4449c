"""Small denoisers and their training: what experiments of minutes are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ornstein.diffusion import GaussianMixture, NoiseSchedule, ddpm_loss
from ornstein.networks.dit import time_embedding
from ornstein.training import Batch, Optimization, initialise, train

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ornstein.diffusion import Weighting


class PointDenoiser(nn.Module):
    """`(x_t, t, condition)` → a prediction, for points (batch, d): an MLP with residual layers, told the time."""

    def __init__(self, dimensions: int, width: int = 192, depth: int = 3) -> None:
        super().__init__()
        self.point_in = nn.Linear(dimensions, width)
        self.time_in = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.out = nn.Linear(width, dimensions)

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        h = self.point_in(x_t) + self.time_in(time_embedding(t, 64).to(x_t.dtype))
        for layer in self.layers:
            h = h + layer(h)
        return self.out(h)


def mixture() -> GaussianMixture:
    """Five modes of unequal weight and shape in the plane, of about unit variance."""
    angles = torch.arange(5) * (2 * torch.pi / 5)
    means = 1.25 * torch.stack([angles.cos(), angles.sin()], dim=1)
    scales = torch.tensor([0.05, 0.02, 0.1, 0.02, 0.05])
    stretched = torch.stack([torch.diag(torch.tensor([1.0, r])) for r in (1.0, 0.3, 1.0, 3.0, 0.5)])
    return GaussianMixture(torch.tensor([0.3, 0.1, 0.25, 0.15, 0.2]), means, scales[:, None, None] * stretched)


def fit(
    build: Any,
    data_of: Any,
    schedule: NoiseSchedule,
    prediction: str,
    out: Path,
    *,
    optimization: Optimization,
    weighting: Weighting = "simple",
    name: str,
) -> nn.Module:
    """Train a denoiser on the DDPM objective and return its moving average, in evaluation mode.

    Args:
        build: () → the network. data_of: sample numbers → x_0, float32, on the CPU; conditions are left out.
        out: the run's folder; whatever was there is replaced. name: shown with the progress.
    """

    def batch_of(indices: NDArray[np.int64]) -> Batch:
        return {"x_0": data_of(indices)}

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        return ddpm_loss(model, batch["x_0"], None, schedule, prediction, rng, weighting=weighting, times="stratified").loss

    model = initialise(build, optimization.seed)
    config = {"prediction": prediction, "weighting": weighting}
    result = train(
        model,
        loss_fn,
        batch_of,
        optimization,
        out,
        recipe=name,
        kind="claim",
        config=config,
        overwrite=True,
        card="An experiment.",
    )
    return result.model.eval()
