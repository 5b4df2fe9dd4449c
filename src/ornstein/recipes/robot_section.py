"""The result of a suite as a report shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ornstein.report import RobotSection, Video

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ornstein.evaluation import SuiteResult
    from ornstein.evaluation.trials import Trial


def robot_section(
    result: SuiteResult,
    explanation: str,
    videos: Sequence[tuple[Path, Trial]],
    *,
    ending: Callable[[Trial], str] | None = None,
    title: str = RobotSection.title,
) -> RobotSection:
    """The rate with its interval, all together and skill by skill, and these videos.

    Args:
        ending: how a trial ended, in words; "done" or "failed" by default.
    """
    record = result.record
    low, high = record["wilson95"]
    return RobotSection(
        headline=f"{record['successes']} of {record['episodes']} fresh scenes solved: {record['success_rate']:.0%}"
        f" (95 % interval {low:.0%} to {high:.0%})",
        explanation=explanation,
        rows=tuple(
            (
                name.replace("_", " "),
                f"{row['successes']} / {row['episodes']}",
                f"{row['wilson95'][0]:.1%} – {row['wilson95'][1]:.1%}",
            )
            for name, row in record["by_task"].items()
        ),
        videos=tuple(
            Video(path.read_bytes(), trial.caption, (ending or _plainly)(trial), trial.success) for path, trial in videos
        ),
        title=title,
    )


def _plainly(trial: Trial) -> str:
    return "done" if trial.success else "failed"
