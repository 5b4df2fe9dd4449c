"""The main job of `make demo`: what the shipped models can do, measured now, on one page."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.assets import openmoji
from ornstein.core.errors import DataError
from ornstein.recipes.robot_section import robot_section
from ornstein.report import Filmstrip, Gallery, Picture, Report, RobotSection, write_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ornstein.evaluation import SuiteResult
    from ornstein.evaluation.trials import Trial
    from ornstein.images import EmojiJudge, TextToImagePipeline

POLICY = "modular-tabletop"
THINKER, THINKERS_SUITE, THINKERS_EPISODES = "rt2-tabletop", "categories", 12
GUIDANCE = 4.0
STEPS = 50
# (prompt, object that the judge should name first). The judge knows pictures of one object.
GRID: tuple[tuple[str, str | None], ...] = (
    ("a red apple on a yellow background", "red apple"),
    ("a rocket on a black background", "rocket"),
    ("a panda on a pink background", "panda"),
    ("a large pizza on a green background", "pizza"),
    ("a small crab in the top left corner on a sky blue background", "crab"),
    ("a blue fox on an orange background", "fox"),
    ("a cactus on the right on a white background", "cactus"),
    ("a crown on a purple background", "crown"),
    ("three strawberries on a white background", None),
    ("a key, a guitar, a banana and a tent on a sky blue background", None),
    ("a rocket above a house on a sky blue background", None),
    ("a pink car to the left of a green t-shirt on a grey background", None),
)
FILM_PROMPT = "a fox on a green background"
GUIDANCE_PROMPT = "a butterfly on a yellow background"
GUIDANCE_SCALES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0)
_FILM_FRAMES = 10


@dataclass
class _Clock:
    """Wall time of each stage, for the report's last table."""

    stages: list[tuple[str, float]]
    started: float

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages.append((stage, now - self.started))
        self.started = now


def run_demo(out: Path, *, episodes: int = 30, seed: int = 0) -> Path:
    """Run everything and write `out/report.html`; returns its path.

    Raises:
        DataError: fewer than 4 episodes (four videos are shown).
        OrnsteinError: the folder cannot be written to, a checkpoint is damaged, or no headless GL is there.
    """
    if episodes < 4:
        raise DataError(f"the demo shows four robot videos: it needs at least 4 episodes, got {episodes}")
    import ornstein
    from ornstein.evaluation.suites import prepare_output
    from ornstein.simulation.tabletop import TabletopEnv

    evaluations = out / "evaluation", out / "evaluation-thinking"
    for folder in evaluations:
        prepare_output(folder)  # before a minute of drawing: will the rest work?
    TabletopEnv(cameras={"front": 16}).close()
    clock = _Clock([], time.perf_counter())
    pipeline = ornstein.load("text-to-image", expect="text-to-image")
    judge = ornstein.load("emoji-classifier", expect="emoji-classifier")
    clock.lap("loading two models")
    galleries = (_grid(pipeline, judge, seed), _film(pipeline, seed), _guidance(pipeline, judge, seed))
    clock.lap(f"drawing {len(GRID) + 1 + len(GUIDANCE_SCALES)} pictures")
    robots = _robot(evaluations[0], episodes, seed), _thinking(evaluations[1], seed)
    clock.lap(f"{episodes + THINKERS_EPISODES} robot episodes")
    report = Report(
        title="From noise to images and actions",
        summary="Three shipped models ran on this machine just now: one draws what a sentence says, two move a robot arm by what they see and"
        " are told.",
        galleries=galleries,
        robots=robots,
        facts=_facts(clock, seed, episodes),
        credits=(openmoji.ATTRIBUTION, "The pictures drawn here come from a model trained on these drawings: CC BY-SA 4.0."),
    )
    return write_report(report, out / "report.html")


def _grid(pipeline: TextToImagePipeline, judge: EmojiJudge, seed: int) -> Gallery:
    prompts = [prompt for prompt, _ in GRID]
    pictures = np.stack([np.asarray(p) for p in _draw(pipeline, prompts, seed=seed, label="drawing a dozen prompts")])
    shown = []
    for (prompt, wanted), pixels, verdict in zip(GRID, pictures, judge.verdicts(pictures), strict=True):
        if wanted is None:
            shown.append(Picture(pixels, prompt))
        else:
            right = verdict.ranking[0] == wanted
            note = "the judge sees: " + verdict.ranking[0]
            shown.append(Picture(pixels, prompt, note, right))
    return Gallery(
        "Pictures from text",
        f"{STEPS} deterministic (DDIM) steps from noise, guidance {GUIDANCE:g}, seed {seed}, first attempt each. Under"
        f" single-object pictures stands what a frozen classifier names among all {len(judge.names)} objects; it never saw a"
        " generated picture.",
        tuple(shown),
    )


def _film(pipeline: TextToImagePipeline, seed: int) -> Filmstrip:
    """The picture decoded from x_t itself along the way, so that the first frame is noise."""
    stepper = pipeline.sampler("ddim", STEPS)
    steps = list(pipeline.trajectory([FILM_PROMPT], [0], stepper, GUIDANCE, seed))
    chosen = np.linspace(0, len(steps) - 1, _FILM_FRAMES).round().astype(int)
    pictures = []
    for k in chosen.tolist():
        pixels = pipeline.decode(steps[k].x)[0]
        pictures.append(Picture(pixels, f"t = {steps[k].t_prev}"))
    return Filmstrip(
        "From noise to picture",
        f"“{FILM_PROMPT}”, decoded at ten of {STEPS} steps as time t runs from 1000 to 0.",
        tuple(pictures),
    )


def _guidance(pipeline: TextToImagePipeline, judge: EmojiJudge, seed: int) -> Filmstrip:
    pictures = []
    for scale in _progress(list(GUIDANCE_SCALES), "guidance 0 … 9"):
        image = pipeline(GUIDANCE_PROMPT, num_inference_steps=STEPS, guidance_scale=scale, seed=seed)[0]
        pixels = np.asarray(image)
        pictures.append(Picture(pixels, f"w = {scale:g}"))
    return Filmstrip(
        "How strongly to listen",
        f"“{GUIDANCE_PROMPT}” from the same noise with guidance w: 0 ignores the sentence, 1 is the conditional model, more"
        " exaggerates what the sentence adds.",
        tuple(pictures),
    )


def _robot(out: Path, episodes: int, seed: int) -> RobotSection:
    from ornstein.evaluation import evaluate_suite

    result = evaluate_suite(POLICY, "all", episodes=episodes, seed=seed, split="demo", out=out, overwrite=True)
    return robot_section(
        result,
        "Each scene is laid out anew; the sentence asks for one of eight skills and names what it is about. The policy"
        f" ({POLICY}: trained eyes, written-down geometry, grammar and motion) sees the camera picture at 128 × 128 pixels, its own"
        " arm's pose and the sentence. Success is judged from physics, and the wrong thing in the right place is a failure.",
        _varied(result),
    )


def _thinking(out: Path, seed: int) -> RobotSection:
    """One network that answers questions and moves the arm, asked for things by what they are."""
    from ornstein.evaluation import evaluate_suite

    result = evaluate_suite(
        THINKER, THINKERS_SUITE, episodes=THINKERS_EPISODES, seed=seed, split="demo", out=out, think=True, overwrite=True
    )
    return robot_section(
        result,
        "No robot data ever showed these things, nor said such sentences: what a thing is, this policy"
        f" ({THINKER}: one vision-language model that answers questions and moves the arm) knows from pictures with questions alone. Behind each arrow stands"
        " what it told itself the instruction means.",
        _varied(result),
        title="A robot that understands what no robot data taught it",
    )


def _varied(result: SuiteResult) -> list[tuple[Path, Trial]]:
    """Four videos, a failure among them where there is one: the report shows both sides."""
    won, lost = ([video for video in result.videos if video[1].success is kind] for kind in (True, False))
    return [*won[: 3 if lost else 4], *lost][:4]


def _draw(pipeline: TextToImagePipeline, prompts: list[str], *, seed: int, label: str) -> list[Any]:
    from ornstein.core.progress import track

    return pipeline(
        prompts,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        seed=seed,
        track=lambda items, total: track(items, total, label),
    )


def _progress(items: list[Any], label: str) -> Iterator[Any]:
    from ornstein.core.progress import track

    return track(iter(items), len(items), label)


def _facts(clock: _Clock, seed: int, episodes: int) -> tuple[tuple[str, str], ...]:
    import torch

    import ornstein

    rows = [(stage, f"{seconds:.1f} s") for stage, seconds in clock.stages]
    rows.append(("in all", f"{sum(seconds for _, seconds in clock.stages):.1f} s"))
    rows.append(
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    )
    rows.append(("software", f"ornstein {ornstein.__version__}, Python {platform.python_version()}, torch {torch.__version__}"))
    rows.append(("command", f"ornstein demo --seed {seed} --episodes {episodes}"))
    return tuple(rows)
