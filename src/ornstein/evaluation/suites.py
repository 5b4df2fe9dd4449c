"""A suite's result: success with its interval, skill by skill, as results.json and videos; and two results side by side."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError, OrnsteinError, unknown_name
from ornstein.core.progress import track
from ornstein.evaluation.notebook import Notebook
from ornstein.evaluation.seeds import FIRST_SEEDS, Split
from ornstein.evaluation.statistics import mcnemar_exact, newcombe_difference, wilson_interval
from ornstein.evaluation.trials import Trial, arm_of, command_line, load_player, trials
from ornstein.evaluation.videos import write_video
from ornstein.simulation.tabletop import FILM_HZ, Replay, suite
from ornstein.simulation.tabletop.arms import ARMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ornstein.evaluation.trials import Control
    from ornstein.simulation.tabletop.environment import ArmName

_MOST_EPISODES = 1_000_000
_SUCCESSES_SHOWN, _FAILURES_SHOWN = 4, 16
_SAME = 0.05
_VIDEO_NAME = re.compile(r"(success|failure)-\d+\.mp4")


@dataclass(frozen=True)
class SuiteResult:
    """record: the content of results.json. videos: files with their trials."""

    record: dict[str, Any]
    videos: tuple[tuple[Path, Trial], ...]

    def table(self) -> str:
        """For people: all, then each skill or length of chain."""
        record = self.record
        rows = [(record["suite"], record), *record["by_task"].items()]
        shown = rows[:1] if len(rows) == 2 else rows
        wide = max(len(name) for name, _ in shown)
        return "\n".join(
            f"{name:<{wide}}  {row['successes']:>4} of {row['episodes']:<4} = {row['success_rate']:6.1%}, 95 % interval"
            f" {row['wilson95'][0]:.1%} to {row['wilson95'][1]:.1%}"
            for name, row in shown
        )


def evaluate_suite(
    source: str,
    suite_name: str = "all",
    *,
    episodes: int,
    out: Path,
    seed: int = 0,
    split: Split = "test",
    arm: ArmName = "arm7",
    workers: int = 1,
    ray: str | None = None,
    control: Control = "none",
    think: bool = False,
    shield: bool = True,
    overwrite: bool = False,
) -> SuiteResult:
    """Run scenes `FIRST_SEEDS[split] + seed`, …, one an episode, and write results.json and videos into `out`.

    Neither workers, nor machines that die, nor an interruption change the result: the same call goes on where it was stopped. Tune on
    "validation"; "test" is for what is reported, once a checkpoint.

    Args:
        source: a shipped policy's name, a checkpoint's folder, or "expert".
        ray: address of a Ray cluster that runs the scenes instead, see `ornstein.core.workers.open_workers`. think: see `load_player`. shield: see `trials`.

    Raises:
        DataError: a number out of range, a policy that cannot think, or `out` holds trials of other settings and `overwrite` is off. UnknownNameError: no such
            suite, split or policy. ContractError: the policy was made for another body. OrnsteinError: `out` cannot be written.
    """
    suite(suite_name)
    seeds = _seeds(split, seed, episodes, workers)
    player = load_player(source, arm, think=think)
    policy = getattr(player, "policy", None)
    settings = {
        "suite": suite_name,
        "split": split,
        "instruction_control": control,
        "first_seed": seeds.start,
        "checkpoint": getattr(policy, "fingerprint", source),
        "contract": player.contract.fingerprint,
        "arm": arm_of(player.contract),
        "think": think,
        "shield": shield,
    }
    out = Path(out)
    prepare_output(out)
    try:
        notebook = Notebook(out, settings, overwrite=overwrite)
        started = time.perf_counter()
        done = {trial.seed for trial in notebook.trials} & set(seeds)
        running = trials(
            player,
            source,
            suite(suite_name),
            seeds,
            control=control,
            think=think,
            shield=shield,
            workers=workers,
            ray=ray,
            done=done,
        )
        for trial in track(running, episodes - len(done), "robot episodes"):
            notebook.write(trial)
        record = _record(settings, player, [t for t in notebook.trials if t.seed in set(seeds)], time.perf_counter() - started)
        videos = _show(out, notebook, set(seeds), arm)
        _write_whole(out / "results.json", json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise OrnsteinError(
            f"cannot write into {out}: {(error.strerror or str(error)).lower()}; choose another folder"
        ) from error
    return SuiteResult(record, videos)


def _seeds(split: Split, seed: int, episodes: int, workers: int) -> range:
    """Of the scenes, after a check of all that is a number."""
    if split not in FIRST_SEEDS:
        raise unknown_name("split", split, FIRST_SEEDS)
    if episodes < 1 or workers < 1 or seed < 0 or seed + episodes > _MOST_EPISODES:
        raise DataError(
            f"episodes and workers must be at least 1, seed at least 0 and seed + episodes at most {_MOST_EPISODES:,},"
            f" got {episodes} episodes, {workers} workers and seed {seed}"
        )
    first = FIRST_SEEDS[split] + seed
    return range(first, first + episodes)


def prepare_output(out: Path) -> None:
    """Before minutes of simulation: can the results be kept, and would anything else be lost?

    Raises:
        DataError: `out/videos`, which is replaced, holds files of another origin. OrnsteinError: it cannot be written.
    """
    strangers = [path.name for path in (out / "videos").glob("*") if not _VIDEO_NAME.fullmatch(path.name)]
    if strangers:
        raise DataError(f"{out / 'videos'} holds files that are not of an evaluation ({strangers[0]}): choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for stale in (*out.glob(".videos.tmp-*"), *out.glob(".results.json.tmp-*")):  # of an evaluation that was killed
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        probe = out / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OrnsteinError(
            f"cannot write into {out}: {(error.strerror or str(error)).lower()}; choose another folder"
        ) from error


def _shown(ordered: Sequence[Trial]) -> list[Trial]:
    """The first few of each kind by scene, whichever ended first."""
    successes, failures = ([trial for trial in ordered if trial.success is kind] for kind in (True, False))
    return successes[:_SUCCESSES_SHOWN] + failures[:_FAILURES_SHOWN]


def _figures(part: Sequence[Trial]) -> dict[str, Any]:
    successes = sum(trial.success for trial in part)
    return {
        "success_rate": successes / len(part),
        "successes": successes,
        "episodes": len(part),
        "wilson95": list(wilson_interval(successes, len(part))),
    }


def _record(settings: dict[str, Any], player: Any, done: Sequence[Trial], seconds: float) -> dict[str, Any]:
    ordered = sorted(done, key=lambda trial: trial.seed)
    kinds: dict[str, list[Trial]] = {}
    for trial in ordered:
        kinds.setdefault(trial.tasks[0] if len(trial.tasks) == 1 else f"{len(trial.tasks)} in turn", []).append(trial)
    origin = getattr(getattr(player, "policy", None), "provenance", {})
    return {
        **settings,
        **_figures(ordered),
        "by_task": {name: _figures(kinds[name]) for name in sorted(kinds)},
        "tasks_done": sum(trial.done for trial in ordered) / sum(len(trial.tasks) for trial in ordered),
        "spoiled": sum(trial.spoiled for trial in ordered),
        "shielded": dict(sum((Counter(trial.shielded) for trial in ordered), Counter())),
        "median_steps": float(np.median([trial.steps for trial in ordered])),
        "checkpoint_commit": origin.get("commit", "unknown"),
        "training_data": origin.get("hyper_parameters", {}).get("data_fingerprint", "unknown"),
        "command": command_line(),
        "seconds": round(seconds, 2),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        "per_episode": [trial.to_json() for trial in ordered],
    }


def _show(out: Path, notebook: Notebook, seeds: set[int], arm: ArmName) -> tuple[tuple[Path, Trial], ...]:
    """A video of the first successes and failures; the folder appears whole."""
    ordered = sorted((trial for trial in notebook.trials if trial.seed in seeds), key=lambda trial: trial.seed)
    filmed = [(trial, film) for trial in _shown(ordered) if (film := notebook.film(trial))]
    notebook.keep_films({trial.seed for trial, _ in filmed})
    folder, temporary = out / "videos", out / f".videos.tmp-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    videos = []
    replay = Replay(arm=ARMS[arm])
    try:
        for trial, film in track(iter(filmed), len(filmed), "videos"):
            name = f"{'success' if trial.success else 'failure'}-{trial.seed}.mp4"
            pictures = replay.pictures(trial.scene, film)
            write_video(temporary / name, pictures, trial.caption, FILM_HZ)
            videos.append((folder / name, trial))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        replay.close()
        shutil.rmtree(temporary, ignore_errors=True)
    return tuple(videos)


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    partial.write_text(text, encoding="utf8")
    partial.replace(path)


@dataclass(frozen=True)
class SuiteComparison:
    """Two policies on the same scenes. only_a, only_b: scenes that one solved and the other did not. p_value: McNemar's, exact."""

    names: tuple[str, str]
    rates: tuple[tuple[int, int], tuple[int, int]]
    only_a: int
    only_b: int
    p_value: float
    difference: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "verdict": self.verdict()}

    def verdict(self) -> str:
        """Which is better, if that can be told."""
        if self.p_value >= _SAME:
            return "not distinguishable"
        (wins_a, n_a), (wins_b, n_b) = self.rates
        return f"{self.names[0] if wins_a / n_a > wins_b / n_b else self.names[1]} is better"

    def table(self) -> str:
        """For people."""
        lines = [
            f"{name}: {wins} of {n} = {wins / n:.1%}, 95 % interval {wilson_interval(wins, n)[0]:.1%} to {wilson_interval(wins, n)[1]:.1%}"
            for name, (wins, n) in zip(self.names, self.rates, strict=True)
        ]
        low, high = self.difference
        lines.append(f"difference as of independent groups: {low:+.1%} to {high:+.1%} (95 %, Newcombe)")
        lines.append(f"solved by one alone: {self.only_a} and {self.only_b}; McNemar's exact p = {self.p_value:.3g}")
        return "\n".join([*lines, self.verdict()])


def compare_results(a: Path, b: Path) -> SuiteComparison:
    """Two results of the same suite, on the scenes that both have.

    Raises:
        DataError: a file is missing or damaged, the two are of different suites, arms or controls, or share no scene.
    """
    read = [_read(path) for path in (a, b)]
    for key in ("suite", "arm"):
        if read[0][key] != read[1][key]:
            raise DataError(f"{a} is of {key} {read[0][key]}, {b} of {read[1][key]}: only like can be compared with like")
    outcomes = [{row["seed"]: bool(row["success"]) for row in record["per_episode"]} for record in read]
    shared = sorted(outcomes[0].keys() & outcomes[1].keys())
    if not shared:
        raise DataError(f"{a} and {b} share no scene: evaluate both with the same --split and --seed")
    first, second = (np.array([outcome[seed] for seed in shared]) for outcome in outcomes)
    rate_a, rate_b = ((int(part.sum()), len(part)) for part in (first, second))
    return SuiteComparison(
        names=(_name(a, read[0]), _name(b, read[1])),
        rates=(rate_a, rate_b),
        only_a=int((first & ~second).sum()),
        only_b=int((second & ~first).sum()),
        p_value=mcnemar_exact(first, second),
        difference=newcombe_difference(rate_a, rate_b),
    )


def _name(path: Path, record: dict[str, Any]) -> str:
    control = record["instruction_control"]
    return str(path) + ("" if control == "none" else f" ({control})")


def _read(path: Path) -> dict[str, Any]:
    file = path / "results.json" if path.is_dir() else path
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf8"))
        for key in ("suite", "arm", "instruction_control", "per_episode"):
            record[key]
    except FileNotFoundError:
        raise DataError(f"there is no {file}: `ornstein evaluate … --out {path}` writes one") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file} is no result of `ornstein evaluate`: {error}") from error
    return record
