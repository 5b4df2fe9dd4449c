"""How fast does training run, beside the loop of diffusers' own script? Writes benchmarks/results/training_speed.json.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/training_speed.py [--rounds 7]

The same network (the unconditional script's, a quarter as wide), the same PNG files, the same objective. Theirs is the loop of
examples/unconditional_image_generation/train_unconditional.py with the settings of its README: pictures are opened, scaled, cropped and
mirrored for every batch, float32, AdamW, clipping, cosine rate, EMA. Ours is `ornstein.training.train` as every recipe calls it: pictures
are read once and kept as bytes, bfloat16 where the processor multiplies it, fused AdamW, a batch prepared while the one before is learnt.
Blocks of steps alternate, so that both see the same machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image, ImageOps
from record import RESULTS, write
from torch import Tensor, nn
from torch.nn import functional

from ornstein.data.scenes import render, sample_scene
from ornstein.diffusion import NoiseSchedule, ddpm_loss
from ornstein.images import to_tensor
from ornstein.training import Batch, Optimization, epoch_rows, initialise, train

SIDE, BATCH, PICTURES = 64, 16, 512
RATE, SEED = 1e-4, 0


def network() -> UNet2DModel:
    """The script's architecture, its widths divided by four."""
    down = ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D")
    up = ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4
    return UNet2DModel(
        sample_size=SIDE, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(32, 32, 64, 64, 128, 128),
        down_block_types=down, up_block_types=up,
    )  # fmt: skip


class Pictures(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A folder read as the script reads it: scaled bilinearly, cut to its middle, mirrored every other time, in [−1, 1]."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        picture = Image.open(self.files[k]).convert("RGB")
        picture = ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture)
        if torch.rand(()) < 0.5:
            pixels = pixels[:, ::-1]
        return {"input": torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 127.5 - 1}


class Theirs:
    """The script's loop, which keeps its state from block to block."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(SEED)
        self.accelerator, self.noise = Accelerator(cpu=True, mixed_precision="no"), DDPMScheduler(num_train_timesteps=1000)
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
        loader = torch.utils.data.DataLoader(Pictures(folder), batch_size=BATCH, shuffle=True, num_workers=0)
        rate = get_scheduler("cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=10_000)
        self.model, self.optimizer, self.loader, self.rate = self.accelerator.prepare(model, optimizer, loader, rate)
        self.average = EMAModel(self.model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
        self.batches = iter(())

    def steps(self, count: int) -> float:
        """Seconds a step."""
        began = time.perf_counter()
        for _ in range(count):
            clean = self._next()["input"]
            noise = torch.randn(clean.shape)
            t = torch.randint(0, 1000, (len(clean),)).long()
            with self.accelerator.accumulate(self.model):
                loss = functional.mse_loss(self.model(self.noise.add_noise(clean, noise, t), t).sample, noise)
                self.accelerator.backward(loss)
                self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.rate.step()
                self.optimizer.zero_grad()
            self.average.step(self.model.parameters())
            loss.detach().item()
        return (time.perf_counter() - began) / count

    def _next(self) -> dict[str, Tensor]:
        try:
            return next(self.batches)  # type: ignore[no-any-return]
        except StopIteration:
            self.batches = iter(self.loader)
            return next(self.batches)  # type: ignore[no-any-return]


class Denoiser(nn.Module):
    """The same network as a denoiser `(x_t, t, condition)`; its steps are numbered from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = network()

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.unet(x_t, t - 1).sample


class Ours:
    """`train`, a run of some steps at a time."""

    def __init__(self, folder: Path, precision: str) -> None:
        self.pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))])
        self.precision, self.schedule = precision, NoiseSchedule.linear()

    def batch(self, indices: np.ndarray) -> Batch:
        rows = epoch_rows(indices, len(self.pixels), SEED, 0)
        mirrored = [np.random.default_rng([SEED, i]).random() < 0.5 for i in indices.tolist()]
        return {
            "pixels": to_tensor(
                np.stack([self.pixels[r][:, ::-1] if m else self.pixels[r] for r, m in zip(rows, mirrored, strict=True)])
            )
        }

    def loss(self, model: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        return ddpm_loss(model, batch["pixels"], None, self.schedule, "epsilon", rng, weighting="simple").loss

    def steps(self, count: int) -> float:
        """Seconds a step."""
        settings = Optimization(
            steps=count, batch_size=BATCH, learning_rate=RATE, warmup_steps=0, log_every=1, checkpoint_every=count,
            preview_every=count, ema_decay=0.9999, betas=(0.95, 0.999), weight_decay=1e-6, precision=self.precision,  # type: ignore[arg-type]
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            result = train(
                initialise(Denoiser, SEED), self.loss, self.batch, settings, Path(folder), recipe="speed", kind="claim", config={}
            )
        return result.seconds / count


def main(
    rounds: int = 7,
    steps: int = 12,
    out: Annotated[Path, tyro.conf.arg(help="results file")] = RESULTS / "training_speed.json",
) -> None:
    """Measure blocks of steps in turns."""
    with tempfile.TemporaryDirectory() as place:
        for k in range(PICTURES):
            Image.fromarray(render(sample_scene(k), SIDE)).save(Path(place) / f"{k:04d}.png")
        ways = {
            "diffusers": Theirs(Path(place)),
            "ornstein": Ours(Path(place), "auto"),
            "ornstein, float32": Ours(Path(place), "fp32"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, way in ways.items():
                found = way.steps(steps)
                if turn:  # the first warms up
                    seconds[name].append(found)
    ratios = {
        name: [theirs / mine for theirs, mine in zip(seconds["diffusers"], seconds[name], strict=True)]
        for name in ways
        if name != "diffusers"
    }
    write(
        out,
        {
            "settings": {"side": SIDE, "batch": BATCH, "pictures": PICTURES, "steps_a_block": steps, "rounds": rounds},
            "parameters": sum(p.numel() for p in network().parameters()),
            "threads": torch.get_num_threads(),
            "seconds_a_step": {name: _spread(values) for name, values in seconds.items()},
            "times_faster": {name: _spread(values) for name, values in ratios.items()},
        },
    )


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    tyro.cli(main)
