"""How well are pictures read whose content is known? Writes benchmarks/results/reader.json: the ceiling of every alignment figure.

    .venv/bin/python benchmarks/reader.py [--scenes 300]

Fresh scenes of each kind, as they are and through the shipped autoencoder, which softens them as it does drawn pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from record import RESULTS, write

import ornstein
from ornstein.core.progress import track
from ornstein.data.scenes import KIND_SHARES, render, sample_scene
from ornstein.evaluation import alignment_rates
from ornstein.hub import find_checkpoint
from ornstein.images import align, read, to_pixels, to_tensor

# The reader's thresholds were chosen on seed 78; training uses 0.
SCENE_SEED = 5_000_000


def main(scenes: int = 300, out: Annotated[Path, tyro.conf.arg(help="results file")] = RESULTS / "reader.json") -> None:
    """Measure the reader of pictures on scenes whose content is known."""
    judge = ornstein.load("emoji-classifier", expect="emoji-classifier")
    autoencoder = ornstein.load("autoencoder", expect="autoencoder")
    measured: dict[str, Any] = {
        "checkpoints": {name: find_checkpoint(name).fingerprint for name in ("emoji-classifier", "autoencoder")},
        "scene_seed": SCENE_SEED,
    }
    for kind in KIND_SHARES:
        asked = [sample_scene(i, seed=SCENE_SEED, kind=kind) for i in range(scenes)]
        clean = np.stack([render(scene) for scene in asked])
        parts = to_tensor(clean).split(32)
        with torch.inference_mode():
            soft = np.concatenate(
                [to_pixels(autoencoder.decode(autoencoder.encode(x))) for x in track(parts, len(parts), f"softening {kind}")]
            )
        measured[kind] = {
            name: {
                part: rate.to_json()
                for part, rate in alignment_rates(
                    [align(*pair) for pair in zip(asked, read(judge, pictures), strict=True)]
                ).items()
            }
            for name, pictures in (("as_they_are", clean), ("through_the_autoencoder", soft))
        }
    write(out, measured)


if __name__ == "__main__":
    tyro.cli(main)
