"""Recipe `autoencoder`: 128 px emoji scenes ↔ 16×16×4 latents. `ornstein train autoencoder`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.checks import require_at_least, require_seeds, require_shares
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig
from ornstein.training import Optimization

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.training import Batch, TrainResult

CARD = """128 × 128 pictures to 16 × 16 × 4 latents and back. Trained on scenes of OpenMoji drawings rendered on the fly (stream seed 0),
three quarters of them crowded, so that little is plain background. The drawings are CC BY-SA 4.0 by OpenMoji
(https://openmoji.org), and so are these weights."""


def _optimization() -> Optimization:
    return Optimization(
        steps=3600,
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
    from ornstein.data.scenes import render, sample_scene

    def fresh() -> NDArray[np.uint8]:
        return np.stack([render(sample_scene(i, seed=1_000_001)) for i in range(16)])

    return _train(
        recipe,
        out,
        lambda: Autoencoder(recipe.network),
        lambda indices: _pictures(indices, recipe),
        preview=lambda model, step, path: _show(model, fresh(), path),
        hyper_parameters=asdict(recipe),
        card=CARD,
        resume=resume,
    )


def fine_tune_autoencoder(
    start: Checkpoint,
    optimization: Optimization,
    out: Path,
    *,
    pixels: NDArray[np.uint8],
    shown: NDArray[np.uint8],
    data_fingerprint: str,
    card: str,
    resume: bool = False,
) -> TrainResult:
    """Go on from the weights of `start` with pictures of one's own, each mirrored every other time; all else as in the recipe.

    Args:
        pixels: uint8 (n, side, side, 3), read as needed. shown: others of them, for the previews.
    """
    from ornstein.images import load_autoencoder, to_tensor
    from ornstein.training import epoch_rows

    recipe = AutoencoderRecipe(network=AutoencoderConfig(**start.config), optimization=optimization)

    def pictures(indices: np.ndarray) -> Tensor:
        rows = epoch_rows(indices, len(pixels), recipe.data_seed, 6)
        mirrored = [np.random.default_rng([recipe.data_seed, i, 7]).random() < 0.5 for i in indices.tolist()]
        return to_tensor(np.stack([pixels[row][:, ::-1] if m else pixels[row] for row, m in zip(rows, mirrored, strict=True)]))

    kept = {name: value for name, value in asdict(recipe).items() if name != "clutter_share"}  # of scenes alone
    return _train(
        recipe,
        out,
        lambda: load_autoencoder(start),
        pictures,
        preview=lambda model, step, path: _show(model, shown, path),
        hyper_parameters={**kept, "init": start.fingerprint, "data_fingerprint": data_fingerprint},
        card=card,
        resume=resume,
    )


def _train(
    recipe: AutoencoderRecipe,
    out: Path,
    build: Callable[[], Autoencoder],
    pictures: Callable[[np.ndarray], Tensor],
    *,
    preview: Callable[[nn.Module, int, Path], None],
    hyper_parameters: dict[str, Any],
    card: str,
    resume: bool,
) -> TrainResult:
    from ornstein.images.autoencoding import autoencoder_loss
    from ornstein.training import RunFolder, initialise, train

    RunFolder(out).check(resume=resume)

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
        initialise(build, recipe.optimization.seed),
        loss_fn,
        lambda indices: {"pixels": pictures(indices)},
        recipe.optimization,
        out,
        recipe="autoencoder",
        kind="autoencoder",
        config=asdict(recipe.network),
        hyper_parameters=hyper_parameters,
        preview=preview,
        card=card,
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


def _show(model: nn.Module, pixels: NDArray[np.uint8], path: Path) -> None:
    """Up to sixteen pictures, each row of eight above its reconstructions."""
    import torch

    from ornstein.data.pictures import contact_sheet
    from ornstein.images.autoencoding import to_pixels, to_tensor

    pixels = np.ascontiguousarray(pixels[: min(16, len(pixels) // 8 * 8 or len(pixels))])
    device = next(model.parameters()).device
    with torch.inference_mode():
        again = to_pixels(model.decode(model.encode(to_tensor(pixels).to(device))))  # type: ignore[operator]
    rows = [part for k in range(0, len(pixels), 8) for part in (pixels[k : k + 8], again[k : k + 8])]
    contact_sheet(np.concatenate(rows), columns=len(rows[0])).save(path)
