"""`ornstein evaluate`: a policy's success rate with its interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro


def evaluate(
    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")],
    /,
    suite: Annotated[str, tyro.conf.arg(metavar="SUITE")] = "all",
    episodes: int = 100,
    seed: int = 0,
    split: Literal["test", "validation", "demo"] = "test",
    out: Path = Path("results"),
    workers: int = 1,
    ray: str | None = None,
    control: Literal["none", "blank", "shuffled"] = "none",
    think: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    shield: bool = True,
    arm: Literal["arm7", "arm6"] = "arm7",
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Measure a robot policy on fresh scenes: success with its 95 % Wilson interval, results.json, videos and report.html.

    Suites: pick, move-near, push, place-in-bowl, place-on-mat, stack, open-drawer, close-drawer, all of them mixed (all), and all of
    them with more around or otherwise than in training: distractors, backgrounds, lights, camera, sizes, unseen-phrasing,
    unseen-objects, held-out-objects, held-out-pairs, chains, long-chains; and with what no robot data teach: symbols, sums, categories,
    reasons, described-chains. What is stopped goes on with the same command.
    Two results on the same scenes are compared by `ornstein compare A B`.

    Args:
        checkpoint: A shipped policy (modular-tabletop, rt1-tabletop), a folder written by `ornstein train`, or "expert", which knows where everything is.
        suite: Which scenes.
        episodes: How many scenes, fixed before looking.
        seed: The first of the split's scenes; no split overlaps another or the training data.
        split: "validation" is for tuning; "test" for figures to report, once a checkpoint; "demo" is what `ornstein demo` shows.
        out: Where results.json, the report and the videos of the first successes and failures go.
        workers: Processes that simulate side by side; the result does not depend on it.
        ray: Address of a Ray cluster whose processes simulate instead: HOST:PORT, auto (this machine's), or local (one of its own). The
            policy's files are sent there; every machine needs the same ornstein, and a headless GL.
        control: "blank" hides the instruction: success should fall to chance. "shuffled" names other things, which a policy that
            listens will turn to: success should fall to nothing.
        think: Let an RT-2 first say what the instruction means in plain words, and follow those.
        shield: Whether actions go through the safety shield: within the arm's bounds, the tool within the workspace; how often it interfered is in results.json.
        arm: Which body.
        overwrite: Replace the results that are already in --out.
        json_output: Print results.json instead of words.
    """
    from ornstein.commands.robot_report import write_robot_report
    from ornstein.evaluation import evaluate_suite

    result = evaluate_suite(
        checkpoint,
        suite,
        episodes=episodes,
        seed=seed,
        split=split,
        out=out,
        workers=workers,
        ray=ray,
        control=control,
        think=think,
        shield=shield,
        arm=arm,
        overwrite=overwrite,
    )
    page = write_robot_report(result, checkpoint, out)
    print(json.dumps(result.record) if json_output else f"{result.table()}\n{page}")
    return 0
