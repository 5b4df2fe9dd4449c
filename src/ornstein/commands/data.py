"""`ornstein data …`: make, look at and check robot data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ornstein.commands.parsing import call
from ornstein.core.errors import unknown_name

ACTIONS = {
    "generate": "let the scripted expert record episodes as a LeRobotDataset v3 folder",
    "inspect": "what a data set holds: episodes, frames, tasks, features, contract",
    "validate": "check every file, count and number of a data set",
}


def data(arguments: list[str]) -> int:
    """Dispatch to the sub-command named first."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("\n".join(["usage: ornstein data COMMAND …", "", *(f"  {name:<10}{text}" for name, text in ACTIONS.items())]))
        return 0
    name, rest = arguments[0], arguments[1:]
    match name:
        case "generate":
            return call(_generate, rest, "data generate")
        case "inspect":
            return call(_inspect, rest, "data inspect")
        case "validate":
            return call(_validate, rest, "data validate")
        case _:
            raise unknown_name("data command", name, ACTIONS)


def _generate(
    out: Path = Path("pick-data"),
    episodes: int = 50,
    seed: int = 0,
    noise: float = 0.3,
    workers: int = 2,
) -> int:
    """Record the scripted expert picking up named blocks, as a LeRobotDataset v3 folder.

    Args:
        out: The new data set's folder; an existing one is refused.
        episodes: How many successful episodes; failed ones are left out and counted.
        seed: Of the first scene.
        noise: Chance that a disturbance of two steps begins at a step, so that the data show recoveries; labels stay clean.
        workers: Processes that simulate side by side; the data do not depend on it.
    """
    from ornstein.data.generate import generate_dataset

    generate_dataset(out, episodes=episodes, seed=seed, noise=noise, workers=workers)
    print(out)
    return 0


def _inspect(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    /,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Show what a data set holds.

    Args:
        folder: A LeRobotDataset v3 folder.
        json_output: Print JSON instead of a table.
    """
    import json

    from ornstein.data.lerobot import inspect_dataset

    summary = inspect_dataset(folder)
    if json_output:
        print(json.dumps(summary))
        return 0
    for name, value in summary.items():
        print(f"{name:<14}{value}")
    return 0


def _validate(folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")], /) -> int:
    """Check every file, count and number of a data set; exit code 0 only if all of it holds.

    Args:
        folder: A LeRobotDataset v3 folder.
    """
    from ornstein.data.lerobot import validate_dataset

    validate_dataset(folder)
    print(f"{folder} is whole")
    return 0
