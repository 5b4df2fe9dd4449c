"""How good are the shipped picture models? Writes benchmarks/results/pictures.json.

    .venv/bin/python benchmarks/pictures.py [--prompts 310] [--checkpoint text-to-image]

The judge's accuracy on fresh clean scenes and on their reconstructions (the ceiling that the autoencoder sets), the
autoencoder's PSNR on fresh scenes, how often the judge names the prompt's object in generated single-object pictures (with the
shuffled-caption control), and seconds a picture.
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
from ornstein.data.scenes import BACKGROUNDS, is_held_out, render, sample_scene
from ornstein.hub import find_checkpoint
from ornstein.images import EmojiJudge, TextToImagePipeline, names_in_place, psnr, to_pixels, to_tensor

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


def relations(pipeline: TextToImagePipeline, judge: EmojiJudge, n: int, steps: int, guidance: float) -> dict[str, Any]:
    """Two objects and how they lie, in ways that training never showed. The judge reads each place by itself."""
    scenes = [sample_scene(i, seed=SCENE_SEED, split="held-out", kind="pair", jitter=0.0) for i in range(n)]
    latents = pipeline.denoise(
        [scene.caption for scene in scenes],
        list(range(n)),
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=PICTURE_SEED,
        track=lambda items, total: track(items, total, "drawing pairs"),
    )
    wanted = np.array([[item.name for item in scene.objects] for scene in scenes])
    drawn = np.array(names_in_place(judge, pipeline.decode(latents), scenes))
    real = np.array(names_in_place(judge, np.stack([render(scene) for scene in scenes]), scenes))
    right = drawn == wanted
    return {
        "both_in_place": share(int(right.all(1).sum()), n),
        "exchanged": share(int((drawn == wanted[:, ::-1]).all(1).sum()), n),
        "places_right": share(int(right.sum()), 2 * n),
        "judge_on_real_pairs": share(int((real == wanted).all(1).sum()), n),
    }


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
    prompts: int = 310,
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
        "alignment_held_out": alignment(pipeline, judge, cases(prompts // 2, held_out=True), steps, guidance),
        "relations_held_out": relations(pipeline, judge, prompts // 2, steps, guidance),
        "seconds_a_picture_50_steps_guided": seconds_a_picture(pipeline, 7, guidance),
    }
    write(out, measured)


if __name__ == "__main__":
    tyro.cli(main)
