"""Trials of an experiment on the tabletop, on all processors; what an interrupted one has finished is not run again."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.progress import track
from ornstein.evaluation.notebook import Notebook
from ornstein.evaluation.trials import load_player, trials
from ornstein.simulation.tabletop import Suite

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.evaluation.trials import Control
    from ornstein.simulation.tabletop import Variation

#: Processes take seconds to start.
_FEW = 20


def solved(
    title: str, source: str, variation: Variation, seeds: range, folder: Path, control: Control = "none", think: bool = False
) -> NDArray[np.bool_]:
    """Which of the scenes with these seeds a player solved.

    Args:
        title: who and where, for progress and for the name of the folder in `folder`. source, control, think: see `ornstein.evaluation.trials.trials`.
    """
    player = load_player(source, think=think)
    settings = {
        "checkpoint": fingerprint(source),
        "title": title,
        "variation": str(variation),
        "control": control,
        "think": think,
        "first_seed": seeds.start,
    }
    kept = folder / re.sub("[^a-z0-9]+", "-", f"{title} {control}".lower())
    kept.mkdir(parents=True, exist_ok=True)
    notebook = Notebook(kept, settings)
    done = {trial.seed for trial in notebook.trials}
    workers = os.cpu_count() or 1 if len(set(seeds) - done) > _FEW else 1
    running = trials(player, source, Suite("", variation), seeds, control=control, think=think, workers=workers, done=done)
    for trial in track(running, len(set(seeds) - done), title if control == "none" else f"{title}, {control} instruction"):
        notebook.write(trial)
    notebook.keep_films(set())
    won = {trial.seed: trial.success for trial in notebook.trials}
    return np.array([won[seed] for seed in seeds])


def fingerprint(source: str) -> str:
    """Of the checkpoint, or the source itself where there is none, as for the expert."""
    return str(getattr(getattr(load_player(source), "policy", None), "fingerprint", source))
