"""What do few steps cost? A student in 1, 2 and 4 steps beside its teacher in 50. Writes benchmarks/results/few_steps.json.

    .venv/bin/python benchmarks/few_steps.py --student runs/fast [--pictures 400] [--seed 3000000]

Everybody draws the same captions of fresh scenes from the same noise, the student at guidance 4, the teacher also at 1, where it has one
branch to evaluate and the flow is the least bent. Of the pictures: what the reader finds right, distances to real ones, how different
those of one prompt are. And seconds a picture, drawn alone, with text and decoding.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image
from record import RESULTS, write

import ornstein
from ornstein.core.progress import track
from ornstein.data.scenes import KIND_SHARES, Scene, render, sample_scene
from ornstein.evaluation import alignment_rates, quality_report
from ornstein.hub import find_checkpoint
from ornstein.images import Extractor, Features, TextToImagePipeline, align, diversity, kernel_distance_change, read
from ornstein.images.settings import SamplerName

REFERENCE = "teacher, 50 steps"
PROMPTS, OF_EACH = 16, 8  # for the diversity within a prompt
PROMPT = "a red apple on a yellow background"


@dataclass(frozen=True)
class Contender:
    """A model, and how it draws."""

    pipeline: TextToImagePipeline
    steps: int
    guidance: float = 4.0
    sampler: SamplerName = "ddim"

    def pictures(self, captions: list[str], indices: list[int], seed: int, name: str) -> NDArray[np.uint8]:
        latents = self.pipeline.denoise(
            captions,
            indices,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            seed=seed,
            sampler=self.sampler,
            batch_size=16,
            track=lambda items, total: track(items, total, name),
        )
        return self.pipeline.decode(latents, 16)

    def seconds(self, repeats: int) -> dict[str, Any]:
        """Of the wall and of the processor, drawn one by one."""
        self.pipeline(PROMPT, num_inference_steps=1)
        wall, cpu = [], []
        for k in range(repeats):
            started = time.perf_counter(), time.process_time()
            self.pipeline(PROMPT, num_inference_steps=self.steps, guidance_scale=self.guidance, sampler=self.sampler, seed=k)
            wall.append(time.perf_counter() - started[0])
            cpu.append(time.process_time() - started[1])
        return {"wall_median": statistics.median(wall), "processor_median": statistics.median(cpu), "repeats": repeats}


def rates_of(scenes: list[Scene], pictures: NDArray[np.uint8], judge: Any) -> dict[str, Any]:
    """What is right, all kinds of scenes together and each by itself."""
    found = [align(scene, reading) for scene, reading in zip(scenes, read(judge, pictures), strict=True)]
    parts = {kind: [one for one, scene in zip(found, scenes, strict=True) if scene.kind == kind] for kind in KIND_SHARES}
    return {
        name: {part: rate.to_json() for part, rate in alignment_rates(some).items()}
        for name, some in ({"all": found} | parts).items()
        if some
    }


def _steps(n: int) -> str:
    return f"{n} step{'s' * (n > 1)}"


def change(real: Features, before: Features, after: Features) -> dict[str, Any]:
    """Of the kernel distance, with the noise in common."""
    found = kernel_distance_change(real, before, after)
    return {"value": found.value, "standard_error": found.error, "ci95": list(found.interval)}


def main(
    student: str,
    teacher: str = "text-to-image",
    pictures: int = 400,
    seed: int = 3_000_000,
    repeats: int = 7,
    ddpm: bool = True,
    out: Annotated[Path, tyro.conf.arg(help="results file")] = RESULTS / "few_steps.json",
    sheet: Annotated[Path | None, tyro.conf.arg(help="the same twelve captions, a row a contender")] = None,
) -> None:
    """Measure a student against its teacher."""
    guided, fast = (ornstein.load(name, expect="text-to-image") for name in (teacher, student))
    judge = ornstein.load("emoji-classifier", expect="emoji-classifier")
    extractor = Extractor.of_judge(judge)
    contenders = {
        REFERENCE: Contender(guided, 50),
        **{f"teacher, {_steps(n)}": Contender(guided, n) for n in (1, 2, 4)},
        **{f"teacher without guidance, {_steps(n)}": Contender(guided, n, guidance=1.0) for n in (1, 2, 4, 50)},
        **{f"student, {_steps(n)}": Contender(fast, n) for n in (1, 2, 4)},
    }
    scenes = [sample_scene(i, seed=seed) for i in range(pictures)]
    real, again = (extractor.extract(np.stack([render(sample_scene(i, seed=seed + k)) for i in range(pictures)])) for k in (1, 2))
    prompts = [sample_scene(i, seed=seed + 3).caption for i in range(PROMPTS) for _ in range(OF_EACH)]
    drawn, rows, strips = {}, {}, []
    for name, one in contenders.items():
        found = one.pictures([scene.caption for scene in scenes], list(range(pictures)), seed, name)
        strips.append(found[:12])
        drawn[name] = extractor.extract(found)
        of_prompts = extractor.extract(one.pictures(prompts, list(range(OF_EACH)) * PROMPTS, seed + 3, f"{name}, by prompts"))
        rows[name] = {
            "right": rates_of(scenes, found, judge),
            "diversity_within_a_prompt": diversity(of_prompts, prompts),
            "kernel_distance_change": change(real, drawn[REFERENCE], drawn[name]),
            "seconds_a_picture": one.seconds(repeats),
        }
    if ddpm:
        rows["teacher, 1,000 steps of DDPM"] = {"seconds_a_picture": Contender(guided, 1000, sampler="ddpm").seconds(1)}
    if sheet is not None:
        Image.fromarray(np.concatenate([np.concatenate(list(strip), axis=1) for strip in strips])).save(sheet, quality=88)
    write(
        out,
        {
            "checkpoints": {
                name: find_checkpoint(where).fingerprint
                for name, where in (("teacher", teacher), ("student", student), ("judge", "emoji-classifier"))
            },
            "settings": {"guidance": 4.0, "pictures": pictures, "seed": seed, "prompts": PROMPTS, "of_each": OF_EACH},
            "threads": torch.get_num_threads(),
            "contenders": rows,
            "quality": quality_report(real, drawn, again=again).to_json(),
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
