"""Recipe `autoencoder`: 128 px emoji scenes ↔ 16×16×4 latents. `ornstein train autoencoder`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.checks import require_at_least, require_seeds, require_shares
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig
from ornstein.training import Optimization

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from ornstein.training import Batch, TrainResult

CARD = """128 × 128 pictures to 16 × 16 × 4 latents and back. Trained on scenes of OpenMoji drawings rendered on the fly (stream seed 0),
three quarters of them crowded, so that little is plain background. The drawings are CC BY-SA 4.0 by OpenMoji
(https://openmoji.org), and so are these weights."""


def _optimization() -> Optimization:
    return Optimization(
        steps=1900,
        batch_size=32,
        learning_rate=1.5e-3,
        warmup_steps=100,
        ema_decay=0.998,
        checkpoint_every=300,
        preview_every=300,
    )


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Every hyper-parameter of the shipped autoencoder.

    clutter_share: share of training pictures that are crowded with drawings instead of following the grammar.
    latent_noise, prior_weight, edge_weight, equivariance_weight: see `ornstein.images.autoencoder_loss`.
    """

    network: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    optimization: Optimization = field(default_factory=_optimization)
    data_seed: int = 0
    clutter_share: float = 0.75
    latent_noise: float = 0.08
    prior_weight: float = 1e-3
    edge_weight: float = 0.5
    equivariance_weight: float = 0.1

    def __post_init__(self) -> None:
        require_seeds(data_seed=self.data_seed)
        require_shares(clutter_share=self.clutter_share)
        require_at_least(0, latent_noise=self.latent_noise, prior_weight=self.prior_weight)
        require_at_least(0, edge_weight=self.edge_weight, equivariance_weight=self.equivariance_weight)


def train_autoencoder(recipe: AutoencoderRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Train and export to `out/model`; previews of fresh scenes beside their reconstructions land in `out/previews`."""
    from ornstein.images.autoencoding import autoencoder_loss
    from ornstein.training import RunFolder, initialise, train

    RunFolder(out).check(resume=resume)

    def batch_of(indices: np.ndarray) -> Batch:
        return {"pixels": _pictures(indices, recipe)}

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return autoencoder_loss(
            model,  # type: ignore[arg-type]
            batch["pixels"],
            rng,
            latent_noise=recipe.latent_noise,
            prior_weight=recipe.prior_weight,
            edge_weight=recipe.edge_weight,
            equivariance_weight=recipe.equivariance_weight,
        )

    return train(
        initialise(lambda: Autoencoder(recipe.network), recipe.optimization.seed),
        loss_fn,
        batch_of,
        recipe.optimization,
        out,
        recipe="autoencoder",
        kind="autoencoder",
        config=asdict(recipe.network),
        hyper_parameters=asdict(recipe),
        preview=_preview,
        card=CARD,
        resume=resume,
    )


def _pictures(indices: np.ndarray, recipe: AutoencoderRecipe) -> Tensor:
    from ornstein.data.scenes import render, sample_clutter, sample_scene
    from ornstein.images.autoencoding import to_tensor

    scenes = []
    for index in indices.tolist():
        # A low-discrepancy choice: every batch holds the same share of crowded pictures.
        crowded = (index * 0.6180339887498949) % 1.0 < recipe.clutter_share
        scenes.append((sample_clutter if crowded else sample_scene)(index, seed=recipe.data_seed))
    return to_tensor(np.stack([render(scene) for scene in scenes]))


def _preview(model: nn.Module, step: int, path: Path) -> None:
    """Sixteen fresh scenes above their reconstructions."""
    import torch
    from PIL import Image

    from ornstein.data.scenes import render, sample_scene
    from ornstein.images.autoencoding import to_pixels, to_tensor

    pixels = np.stack([render(sample_scene(i, seed=1_000_001)) for i in range(16)])
    device = next(model.parameters()).device
    with torch.inference_mode():
        again = to_pixels(model.decode(model.encode(to_tensor(pixels).to(device))))  # type: ignore[operator]
    rows = [np.concatenate(list(part), axis=1) for k in (0, 8) for part in (pixels[k : k + 8], again[k : k + 8])]
    Image.fromarray(np.concatenate(rows)).save(path)
