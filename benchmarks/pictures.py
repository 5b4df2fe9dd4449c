"""How good are the shipped picture models? Writes benchmarks/results/pictures.json.

    .venv/bin/python benchmarks/pictures.py [--prompts 1132] [--checkpoint text-to-image]

The judge's accuracy on fresh clean scenes and on their reconstructions (the ceiling that the autoencoder sets), the
autoencoder's PSNR on fresh scenes, how often the judge names the prompt's object in generated single-object pictures (with the
shuffled-caption control), what is right in compositions that training never showed, and seconds a picture.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image
from record import RESULTS, share, write

import ornstein
from ornstein.assets import openmoji
from ornstein.core.progress import track
from ornstein.data.naming import indefinite
from ornstein.data.scenes import BACKGROUNDS, KIND_SHARES, is_held_out, render, sample_scene
from ornstein.evaluation import alignment_rates
from ornstein.hub import find_checkpoint
from ornstein.images import EmojiJudge, TextToImagePipeline, align, psnr, read, to_pixels, to_tensor

# Evaluation streams: training uses scene seed 0 and previews 1,000,001.
SCENE_SEED = 2_000_000
PICTURE_SEED = 2_000_000
_SHUFFLES = 100


def judge_on_clean_scenes(judge: EmojiJudge, n: int) -> dict[str, Any]:
    scenes = [sample_scene(i, seed=SCENE_SEED, kind="single") for i in range(n)]
    verdicts = judge.verdicts(np.stack([render(scene) for scene in scenes]))
    return share(sum(v.ranking[0] == s.objects[0].name for v, s in zip(verdicts, scenes, strict=True)), n)


@torch.inference_mode()
def judge_on_reconstructions(judge: EmojiJudge, pipeline: TextToImagePipeline, n: int) -> dict[str, Any]:
    """The ceiling that the autoencoder sets: what the judge names in real scenes that went through it."""
    scenes = [sample_scene(i, seed=SCENE_SEED, kind="single") for i in range(n)]
    right = 0
    for start in range(0, n, 32):
        part = scenes[start : start + 32]
        latents = pipeline.autoencoder.encode(to_tensor(np.stack([render(scene) for scene in part])))
        verdicts = judge.verdicts(to_pixels(pipeline.autoencoder.decode(latents)))
        right += sum(v.ranking[0] == s.objects[0].name for v, s in zip(verdicts, part, strict=True))
    return share(right, n)


@torch.inference_mode()
def reconstruction(pipeline: TextToImagePipeline, n: int) -> dict[str, Any]:
    pixels = np.stack([render(sample_scene(i, seed=SCENE_SEED)) for i in range(n)])
    again = np.concatenate(
        [to_pixels(pipeline.autoencoder.decode(pipeline.autoencoder.encode(x))) for x in to_tensor(pixels).split(32)]
    )
    values = psnr(pixels, again)
    error = 1.96 * values.std(ddof=1) / n**0.5
    return {"n": n, "psnr_db_mean": values.mean(), "ci95": [values.mean() - error, values.mean() + error]}


def cases(n: int, *, held_out: bool) -> list[tuple[str, str]]:
    """n times a name of the vocabulary, in turn, and a random background: any, or one that it was never shown on in training."""
    rng = np.random.default_rng([PICTURE_SEED, held_out])
    names, chosen = openmoji.names(), []
    for k in range(max(n * 4, 4 * len(names))):
        name = names[k % len(names)]
        colors = [color for color in BACKGROUNDS if is_held_out("single", name, color) or not held_out]
        if colors and len(chosen) < n:
            chosen.append((name, str(rng.choice(colors))))
    return chosen


def alignment(
    pipeline: TextToImagePipeline,
    judge: EmojiJudge,
    wanted: list[tuple[str, str]],
    steps: int,
    guidance: float,
    sheet: Path | None = None,
) -> dict[str, Any]:
    """One picture a prompt, first attempt, read by the judge."""
    n = len(wanted)
    names, colors = zip(*wanted, strict=True)
    prompts = [f"{indefinite(name)} on a {color} background".replace("a orange", "an orange") for name, color in wanted]
    latents = pipeline.denoise(
        prompts,
        list(range(n)),
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=PICTURE_SEED,
        sampler="ddim",
        track=lambda items, total: track(items, total, "drawing"),
    )
    pictures = pipeline.decode(latents)
    if sheet is not None:
        _contact_sheet(pictures, sheet)
    verdicts = judge.verdicts(pictures)
    named = np.array([v.ranking[0] for v in verdicts])
    right = named == np.array(names)
    # What the judge would say of another prompt's object: all prompts shuffled against the pictures, many times over. Neighbours in
    # the vocabulary look alike, so a shift by one would not do.
    rng = np.random.default_rng(PICTURE_SEED)
    control = [named == rng.permutation(names) for _ in range(_SHUFFLES)]
    return {
        "settings": {"steps": steps, "guidance": guidance, "sampler": "ddim", "seed": PICTURE_SEED},
        "object_named_first": share(int(right.sum()), n),
        "object_among_first_five": share(sum(name in v.ranking for v, name in zip(verdicts, names, strict=True)), n),
        "background_right": share(sum(a == b for a, b in zip(judge.backgrounds(pictures), colors, strict=True)), n),
        "control_shuffled_captions": {
            **share(int(control[0].sum()), n),
            "mean_rate_of_shuffles": float(np.mean(control)),
            "shuffles": _SHUFFLES,
        },
        "missed": [[prompt, said] for prompt, said, good in zip(prompts, named.tolist(), right, strict=True) if not good],
    }


def compositions(
    pipeline: TextToImagePipeline, judge: EmojiJudge, n: int, steps: int, guidance: float, sheet: Path | None
) -> dict[str, Any]:
    """What training never combined so, n scenes of each kind: what the reader finds right of drawn pictures, and of the real ones."""
    scenes = [sample_scene(i, seed=SCENE_SEED, split="held-out", kind=kind, jitter=0.0) for kind in KIND_SHARES for i in range(n)]
    latents = pipeline.denoise(
        [scene.caption for scene in scenes],
        list(range(len(scenes))),
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=PICTURE_SEED,
        track=lambda items, total: track(items, total, "drawing compositions"),
    )
    pictures = pipeline.decode(latents)
    if sheet is not None:
        _contact_sheet(pictures, sheet)
    real = np.stack([render(scene) for scene in scenes])
    drawn, ceiling = (
        [align(scene, reading) for scene, reading in zip(scenes, read(judge, shown), strict=True)] for shown in (pictures, real)
    )
    rates = {
        kind: {
            name: {part: rate.to_json() for part, rate in alignment_rates(some[k * n : (k + 1) * n]).items()}
            for name, some in (("drawn", drawn), ("real", ceiling))
        }
        for k, kind in enumerate(KIND_SHARES)
    }
    missed = [scene.caption for scene, one in zip(scenes, drawn, strict=True) if not one.all_right]
    return {**rates, "missed": missed}


def compositions_of(sheet: Path) -> Path:
    """Where their sheet goes: beside the other."""
    return sheet.with_name(f"{sheet.stem}-compositions{sheet.suffix}")


def _contact_sheet(pictures: np.ndarray, path: Path, columns: int = 12, rows: int = 4) -> None:
    """Evenly spread over the prompts, none selected."""
    chosen = np.linspace(0, len(pictures) - 1, columns * rows).round().astype(int)
    grid = pictures[chosen].reshape(rows, columns, *pictures.shape[1:])
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in grid])).save(path, quality=88)


def seconds_a_picture(pipeline: TextToImagePipeline, repeats: int, guidance: float) -> dict[str, Any]:
    prompt = "a red apple on a yellow background"
    pipeline(prompt, num_inference_steps=2)
    times = []
    for k in range(repeats):
        started = time.perf_counter()
        pipeline(prompt, num_inference_steps=50, guidance_scale=guidance, seed=k)
        times.append(time.perf_counter() - started)
    return {
        "median": statistics.median(times),
        "min": min(times),
        "max": max(times),
        "repeats": repeats,
        "threads": torch.get_num_threads(),
    }


def main(
    prompts: int = 1132,
    compositions_each: int = 150,
    scenes: int = 1000,
    steps: int = 50,
    guidance: float = 4.0,
    checkpoint: str = "text-to-image",
    judge_checkpoint: str = "emoji-classifier",
    out: Annotated[Path, tyro.conf.arg(help="results file")] = RESULTS / "pictures.json",
    sheet: Annotated[Path | None, tyro.conf.arg(help="a contact sheet of the pictures")] = RESULTS / "pictures.jpg",
) -> None:
    """Measure the shipped picture models."""
    pipeline = ornstein.load(checkpoint, expect="text-to-image")
    judge = ornstein.load(judge_checkpoint, expect="emoji-classifier")
    measured = {
        "checkpoints": {name: find_checkpoint(name).fingerprint for name in (checkpoint, judge_checkpoint)},
        "vocabulary": len(judge.names),
        "judge_on_clean_scenes": judge_on_clean_scenes(judge, scenes),
        "judge_on_reconstructions": judge_on_reconstructions(judge, pipeline, scenes),
        "autoencoder": reconstruction(pipeline, min(scenes, 500)),
        "alignment": alignment(pipeline, judge, cases(prompts, held_out=False), steps, guidance, sheet),
        "alignment_held_out": alignment(pipeline, judge, cases(prompts // 4, held_out=True), steps, guidance),
        "compositions_held_out": compositions(
            pipeline, judge, compositions_each, steps, guidance, sheet and compositions_of(sheet)
        ),
        "seconds_a_picture_50_steps_guided": seconds_a_picture(pipeline, 7, guidance),
    }
    write(out, measured)


if __name__ == "__main__":
    tyro.cli(main)
