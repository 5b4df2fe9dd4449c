"""Recipe `emoji-classifier`: names the drawing in a single-object scene. `ornstein train emoji-classifier`.

It judges generated pictures, so it never sees one: it trains on clean renders of the grammar's single-object scenes,
half of them slightly blurred or rescaled, because a judge should not mistake softness for another object.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ornstein.assets import openmoji
from ornstein.core.checks import require_seeds, require_shares
from ornstein.core.errors import DataError
from ornstein.networks.classifier import Classifier, ClassifierConfig
from ornstein.training import Optimization

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from ornstein.data.scenes import Scene
    from ornstein.training import Batch, TrainResult

CARD = """Names the drawing in a picture. Trained on clean single-object scenes of OpenMoji drawings (stream seed 0), half of them slightly
blurred; it never saw a generated picture. The drawings are CC BY-SA 4.0 by OpenMoji (https://openmoji.org), and so are these
weights."""


def _optimization() -> Optimization:
    return Optimization(
        steps=3600, batch_size=64, learning_rate=2e-3, warmup_steps=100, weight_decay=0.05, ema_decay=0.995, checkpoint_every=250
    )


@dataclass(frozen=True)
class EmojiClassifierRecipe:
    """Every hyper-parameter of the shipped judge.

    softened_share: of the pictures that are slightly blurred. painted_share: of the drawings that come in other colours.
    """

    network: ClassifierConfig = field(default_factory=lambda: ClassifierConfig(num_classes=len(openmoji.names())))
    optimization: Optimization = field(default_factory=_optimization)
    data_seed: int = 0
    softened_share: float = 0.5
    painted_share: float = 0.6
    label_smoothing: float = 0.05

    def __post_init__(self) -> None:
        require_seeds(data_seed=self.data_seed)
        require_shares(softened_share=self.softened_share, painted_share=self.painted_share)
        require_shares(label_smoothing=self.label_smoothing)
        if self.network.num_classes != len(openmoji.names()):
            raise DataError(f"the judge names {len(openmoji.names())} drawings, got num_classes {self.network.num_classes}")


def train_emoji_classifier(recipe: EmojiClassifierRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Train and export to `out/model`."""
    from torch.nn import functional

    from ornstein.training import RunFolder, initialise, train

    RunFolder(out).check(resume=resume)

    def batch_of(indices: np.ndarray) -> Batch:
        return _labelled(indices, recipe)

    def loss_fn(model: nn.Module, batch: Batch, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        logits = model(batch["pixels"]).float()
        loss = functional.cross_entropy(logits, batch["label"], label_smoothing=recipe.label_smoothing)
        return loss, {"accuracy": (logits.argmax(-1) == batch["label"]).float().mean()}

    return train(
        initialise(lambda: Classifier(recipe.network), recipe.optimization.seed),
        loss_fn,
        batch_of,
        recipe.optimization,
        out,
        recipe="emoji-classifier",
        kind="emoji-classifier",
        config={**asdict(recipe.network), "names": list(openmoji.names())},
        hyper_parameters=asdict(recipe),
        card=CARD,
        resume=resume,
    )


def _repainted(scene: Scene, rng: np.random.Generator, share: float) -> Scene:
    """The same with this share of the drawings that come in other colours painted, in another than the background's."""
    (item,) = scene.objects
    if item.name not in openmoji.paintable_names():
        return scene
    others = [color for color in openmoji.COLORS if color != scene.background]
    color = str(rng.choice(others)) if rng.random() < share else ""
    return replace(scene, objects=(replace(item, color=color),))


def _labelled(indices: np.ndarray, recipe: EmojiClassifierRecipe) -> Batch:
    import torch
    from PIL import Image, ImageFilter

    from ornstein.data.scenes import render, sample_scene
    from ornstein.images.autoencoding import to_tensor

    position = {name: k for k, name in enumerate(openmoji.names())}
    pictures, labels = [], []
    for index in indices.tolist():
        scene = sample_scene(index, seed=recipe.data_seed, kind="single")
        rng = np.random.default_rng([recipe.data_seed, index, 3])
        picture = Image.fromarray(render(_repainted(scene, rng, recipe.painted_share)))
        if rng.random() < recipe.softened_share:
            picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
        pictures.append(np.asarray(picture))
        labels.append(position[scene.objects[0].name])
    return {"pixels": to_tensor(np.stack(pictures)), "label": torch.tensor(labels)}
