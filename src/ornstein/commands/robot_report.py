"""The page of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ornstein.assets import openmoji
from ornstein.recipes.robot_section import robot_section
from ornstein.report import Report, write_report
from ornstein.simulation.tabletop import SUITES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ornstein.evaluation import SuiteResult
    from ornstein.evaluation.trials import Trial


def write_robot_report(result: SuiteResult, source: str, out: Path) -> Path:
    """`out/report.html`: the rates skill by skill and the videos, failures first."""
    record = result.record
    robot = robot_section(
        result,
        f"Suite {record['suite']}: {SUITES[record['suite']].about}. Scenes from seed {record['first_seed']:,} on"
        f" ({record['split']}); instruction control: {record['instruction_control']}. Success is judged from physics.",
        list(_failures_first(result.videos)),
        ending=_ending,
    )
    facts = (
        ("policy", f"{source} ({record['checkpoint']})"),
        ("command", record["command"]),
        ("median length", f"{record['median_steps']:.0f} steps of 0.1 s"),
        ("tasks done, of all asked for", f"{record['tasks_done']:.1%}"),
        ("spoiled for good", str(record["spoiled"])),
    )
    return write_report(
        Report(f"{source} in suite {record['suite']}", "", (), (robot,), facts, (openmoji.ATTRIBUTION,)), out / "report.html"
    )


def _ending(trial: Trial) -> str:
    if trial.success:
        return "done"
    return (
        "spoiled" if trial.spoiled else f"{trial.done} of {len(trial.tasks)} done" if len(trial.tasks) > 1 else "not done in time"
    )


def _failures_first(videos: Sequence[tuple[Path, Trial]]) -> Iterator[tuple[Path, Trial]]:
    yield from sorted(videos, key=lambda item: item[1].success)
