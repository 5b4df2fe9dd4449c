"""Policies and simulation meet: one episode, and a measured success rate with its evidence."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import re
import shutil
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.core.errors import DataError, OrnsteinError, unknown_name
from ornstein.core.progress import track
from ornstein.evaluation.statistics import wilson_interval
from ornstein.evaluation.videos import write_video

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from ornstein.core.types import Policy
    from ornstein.simulation import Scene, TabletopEnv

Control = Literal["none", "blank", "shuffled"]
Split = Literal["test", "validation", "demo"]
# Scene seeds: demonstrations use numbers below the first of these; reported figures, tuning and demos a range each.
TEST_SEED = 1_000_000
VALIDATION_SEED = 2_000_000
DEMO_SEED = 3_000_000
FIRST_SEEDS: dict[Split, int] = {"test": TEST_SEED, "validation": VALIDATION_SEED, "demo": DEMO_SEED}
_MOST_EPISODES = 1_000_000
_VIDEOS_OF_EACH = 4
_SUITES = ("pick",)
_VIDEO_NAME = re.compile(r"(success|failure)-\d+\.mp4")


@dataclass(frozen=True)
class EpisodeResult:
    """One episode.

    instruction: what the policy was told, and `named` the block in it ("" where blank). target: the block that counts. lifted:
    what was up at the end.

    film: the pose of everything `FILM_HZ` times a second, for `Replay`; empty where an evaluation has no use for it any more.
    """

    seed: int
    instruction: str
    named: str
    target: str
    num_blocks: int
    success: bool
    steps: int
    lifted: tuple[str, ...]
    clipped: int
    scene: Scene = field(repr=False)
    film: list[NDArray[np.float32]] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the film: `Scene.from_json` builds the scene again."""
        return {name: value for name, value in vars(self).items() if name != "film"} | {"scene": self.scene.to_json()}


@dataclass(frozen=True)
class EpisodeVideo:
    """A written video."""

    path: Path
    instruction: str
    success: bool


@dataclass(frozen=True)
class EvaluationResult:
    """A success rate with its 95 % Wilson interval and the record behind it."""

    successes: int
    episodes: int
    interval: tuple[float, float]
    record: dict[str, Any]
    videos: tuple[EpisodeVideo, ...]

    @property
    def success_rate(self) -> float:
        """Successes over episodes."""
        return self.successes / self.episodes

    def to_json(self) -> dict[str, Any]:
        """The content of results.json."""
        return self.record


def rollout(policy: Policy, env: TabletopEnv, seed: int, *, control: Control = "none") -> EpisodeResult:
    """Let the policy solve the scene of that seed.

    Args:
        control: what the policy is told: the instruction ("none"), nothing ("blank"), or the sentence with another block's
            name ("shuffled"). Success is always judged on the scene's own target.
    """
    film: list[NDArray[np.float32]] = []
    env.world.film = film
    try:
        observation, info = env.reset(seed=seed)
        scene = env.scene
        if scene is None:
            raise DataError("the environment lost its scene")
        instruction, named = _told(info["instruction"], info["target"], [block.name for block in scene.blocks], seed, control)
        policy.reset()
        steps, over = 0, False
        while not over:
            action = policy.act(
                {"pixels": observation["pixels"], "agent_pos": observation["agent_pos"], "instruction": instruction}
            )
            observation, _, terminated, truncated, info = env.step(action)
            steps, over = steps + 1, terminated or truncated
    finally:
        env.world.film = None
    return EpisodeResult(
        seed=seed,
        instruction=instruction,
        named=named,
        target=info["target"],
        num_blocks=len(scene.blocks),
        success=info["is_success"],
        steps=steps,
        lifted=tuple(info["lifted"]),
        clipped=info["clipped"],
        scene=scene,
        film=film,
    )


def evaluate_policy(
    policy: Any,
    suite: str = "pick",
    *,
    episodes: int,
    seed: int = 0,
    split: Split = "test",
    out: Path,
    workers: int = 1,
    instruction_control: Control = "none",
    overwrite: bool = False,
) -> EvaluationResult:
    """Run scenes `FIRST_SEEDS[split] + seed`, …, one an episode, and write results.json and videos into `out`.

    The scenes, and so the result, do not depend on the number of workers. Tune on "validation"; "test" is for what is reported,
    once a checkpoint.

    Raises:
        DataError: a number out of range, or `out` holds results and `overwrite` is off. UnknownNameError: no such suite.
        ContractError: the policy was made for another body. OrnsteinError: `out` cannot be written.
    """
    from ornstein.simulation import TabletopEnv, contract

    if suite not in _SUITES:
        raise unknown_name("suite", suite, _SUITES)
    if split not in FIRST_SEEDS:
        raise unknown_name("split", split, FIRST_SEEDS)
    if episodes < 1 or workers < 1 or seed < 0 or seed + episodes > _MOST_EPISODES:
        raise DataError(
            f"episodes and workers must be at least 1, seed at least 0 and seed + episodes at most {_MOST_EPISODES:,},"
            f" got {episodes} episodes, {workers} workers and seed {seed}"
        )
    if workers > 1 and policy.checkpoint_path is None:
        raise DataError("several workers load the policy themselves: give one that comes from a checkpoint, or workers=1")
    image_size = policy.contract.cameras[0].height
    policy.contract.require_match(contract(image_size), "the policy", "the tabletop")
    out = Path(out)
    env = TabletopEnv(image_size=image_size)
    try:
        prepare_output(out, overwrite)
        started = time.perf_counter()
        seeds = range(FIRST_SEEDS[split] + seed, FIRST_SEEDS[split] + seed + episodes)
        running = _run(policy, env, seeds, instruction_control, workers)
        results = list(track(_without_spare_films(running), episodes, "robot episodes"))
    finally:
        env.close()
    seconds = time.perf_counter() - started
    successes = sum(result.success for result in results)
    record = _record(policy, suite, split, instruction_control, results, seconds)
    try:
        videos = _write(out, results, record)
    except OSError as error:
        raise OrnsteinError(f"cannot write the results into {out}: {(error.strerror or str(error)).lower()}") from error
    return EvaluationResult(successes, episodes, wilson_interval(successes, episodes), record, videos)


def _without_spare_films(results: Iterator[EpisodeResult]) -> Iterator[EpisodeResult]:
    """Only the first few of each kind become videos."""
    room = {True: _VIDEOS_OF_EACH, False: _VIDEOS_OF_EACH}
    for result in results:
        room[result.success] -= 1
        yield result if room[result.success] >= 0 else replace(result, film=[])


def _run(policy: Any, env: TabletopEnv, seeds: range, control: Control, workers: int) -> Iterator[EpisodeResult]:
    if workers == 1:
        for seed in seeds:
            yield rollout(policy, env, seed, control=control)
        return
    context = multiprocessing.get_context("spawn")  # neither GL nor torch's threads survive a fork
    pool = ProcessPoolExecutor(workers, context, _start_worker, (str(policy.checkpoint_path), workers))
    try:
        yield from pool.map(_worker_rollout, seeds, [control] * len(seeds))
    except BrokenProcessPool as error:
        raise OrnsteinError("a process that ran episodes died (out of memory?): run the same again with fewer workers") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[Any, Any] | None = None


def _start_worker(checkpoint: str, workers: int) -> None:
    global _worker  # noqa: PLW0603  one policy and one world a process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    import torch

    from ornstein.hub import load
    from ornstein.simulation import TabletopEnv

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    policy = load(Path(checkpoint), expect="rt1")
    _worker = policy, TabletopEnv(image_size=policy.contract.cameras[0].height)


def _worker_rollout(seed: int, control: Control) -> EpisodeResult:
    if _worker is None:
        raise DataError("the worker has no policy")
    return rollout(*_worker, seed, control=control)


def _told(instruction: str, target: str, names: list[str], seed: int, control: Control) -> tuple[str, str]:
    """The sentence that the policy hears, and the block that it names."""
    import numpy as np

    if control == "none":
        return instruction, target
    if control == "blank":
        return "", ""
    if target not in instruction:
        raise DataError(f"the control 'shuffled' swaps the target's name, but {instruction!r} does not say {target!r}")
    others = [name for name in names if name != target]
    named = others[int(np.random.default_rng([seed, 17]).integers(len(others)))]
    return instruction.replace(target, named), named


def prepare_output(out: Path, overwrite: bool = False) -> None:
    """Before minutes of simulation: can the results be kept, and would anything else be lost?

    Raises:
        DataError: `out` holds results and `overwrite` is off, or files of another origin. OrnsteinError: it cannot be written.
    """
    if (out / "results.json").exists() and not overwrite:
        raise DataError(f"{out} already holds results: choose another folder, or --overwrite")
    strangers = [path.name for path in (out / "videos").glob("*") if not _VIDEO_NAME.fullmatch(path.name)]
    if strangers:
        raise DataError(f"{out / 'videos'} holds files that are not of an evaluation ({strangers[0]}): choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for stale in (*out.glob(".videos.tmp-*"), *out.glob(".results.tmp-*")):  # of an evaluation that was killed
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        probe = out / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OrnsteinError(
            f"cannot write into {out}: {(error.strerror or str(error)).lower()}; choose another folder"
        ) from error


def _record(
    policy: Any, suite: str, split: Split, control: Control, results: list[EpisodeResult], seconds: float
) -> dict[str, Any]:
    import torch

    successes, n = sum(result.success for result in results), len(results)
    followed = sum(result.named in result.lifted for result in results)
    origin = getattr(policy, "provenance", {})
    return {
        "suite": suite,
        "split": split,
        "instruction_control": control,
        "success_rate": successes / n,
        "successes": successes,
        "episodes": n,
        "wilson95": list(wilson_interval(successes, n)),
        # Lifting any one block, whatever was said, would succeed so often.
        "chance": sum(1 / result.num_blocks for result in results) / n,
        "lifted_the_named_block": followed,
        "lifted_another_block": sum(bool(set(result.lifted) - {result.target}) for result in results),
        "first_seed": results[0].seed,
        "checkpoint": getattr(policy, "fingerprint", "unknown"),
        "checkpoint_commit": origin.get("commit", "unknown"),
        "training_data": origin.get("hyper_parameters", {}).get("data_fingerprint", "unknown"),
        "contract": policy.contract.fingerprint,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seconds": round(seconds, 2),
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "per_episode": [result.to_json() for result in results],
    }


def _write(out: Path, results: list[EpisodeResult], record: dict[str, Any]) -> tuple[EpisodeVideo, ...]:
    from ornstein.simulation import FILM_HZ, Replay

    folder = out / "videos"
    temporary = out / f".videos.tmp-{os.getpid()}"
    partial = out / f".results.tmp-{os.getpid()}"
    videos = []
    chosen = [r for r in results if r.success][:_VIDEOS_OF_EACH] + [r for r in results if not r.success][:_VIDEOS_OF_EACH]
    replay = Replay()
    try:
        temporary.mkdir()
        for result in chosen:
            name = f"{'success' if result.success else 'failure'}-{result.seed}.mp4"
            pictures = replay.pictures(result.scene, result.film)
            write_video(temporary / name, pictures, result.instruction or "(no instruction)", FILM_HZ)
            videos.append(EpisodeVideo(folder / name, result.instruction, result.success))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
        partial.replace(out / "results.json")
    finally:
        replay.close()
        shutil.rmtree(temporary, ignore_errors=True)
        partial.unlink(missing_ok=True)
    return tuple(videos)
