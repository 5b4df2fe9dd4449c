"""`ornstein evaluate`: a policy's success rate with its interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ornstein.core.errors import unknown_name

SUITES = {"pick": "pick up the named block among three to five"}


def evaluate(
    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")],
    /,
    suite: Annotated[str, tyro.conf.arg(metavar="pick")] = "pick",
    episodes: int = 100,
    seed: int = 0,
    split: Literal["test", "validation", "demo"] = "test",
    out: Path = Path("results"),
    workers: int = 1,
    control: Literal["none", "blank", "shuffled"] = "none",
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Measure a robot policy on fresh scenes: success with its 95 % Wilson interval, results.json and videos.

    Args:
        checkpoint: A shipped policy's name (rt1-tabletop) or a folder written by `ornstein train`.
        suite: Which task.
        episodes: How many scenes, fixed before looking.
        seed: The first of the split's scenes; no split overlaps another or the training data.
        split: "validation" is for tuning; "test" for figures to report, once a checkpoint; "demo" is what `ornstein demo` shows.
        out: Where results.json and the videos of the first successes and failures go.
        workers: Processes that simulate side by side; the result does not depend on it.
        control: "blank" hides the instruction: success should fall to chance. "shuffled" names another block, which a policy that
            listens will lift: success should fall to nothing.
        overwrite: Replace the results that are already in --out.
        json_output: Print results.json instead of words.
    """
    import ornstein
    from ornstein.evaluation import evaluate_policy

    if suite not in SUITES:
        raise unknown_name("suite", suite, SUITES)
    policy = ornstein.load(checkpoint, expect="rt1")
    result = evaluate_policy(
        policy,
        suite,
        episodes=episodes,
        seed=seed,
        split=split,
        out=out,
        workers=workers,
        instruction_control=control,
        overwrite=overwrite,
    )
    if json_output:
        print(json.dumps(result.to_json()))
    else:
        low, high = result.interval
        print(f"{suite}: {result.successes}/{result.episodes} = {result.success_rate:.1%}, 95 % interval {low:.1%} to {high:.1%}")
        print(out / "results.json")
    return 0
