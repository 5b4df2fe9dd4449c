"""`ornstein demo`: both halves on shipped weights, and one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def demo(
    out: Path = Path("demo"),
    episodes: int = 30,
    seed: int = 0,
    open_report: Annotated[bool, tyro.conf.arg(name="open"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Draw pictures from text, let the robot follow instructions, measure it, and write one self-contained HTML report.

    Args:
        out: The folder for report.html and the evaluation's results.json and videos. Running again replaces them.
        episodes: Robot episodes to measure.
        seed: For the pictures' noise and the robot's scenes.
        open_report: Open the report in a browser at the end.
    """
    from ornstein.recipes.demo import run_demo

    report = run_demo(out, episodes=episodes, seed=seed)
    if open_report:
        import webbrowser

        webbrowser.open(report.absolute().as_uri())
    print(f"report: {report.absolute()}")
    return 0
