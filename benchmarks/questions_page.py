"""Writes what the shipped vision-language model answers into docs/questions.md, from benchmarks/results/questions.json.

.venv/bin/python benchmarks/questions_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from record import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "questions.md"
BEGIN, END = "<!-- figures: written by benchmarks/questions_page.py -->", "<!-- end of figures -->"
_TOGETHER = ("all", "needs the picture", "needs no picture")


def table() -> str:
    """All questions together, then kind by kind, the most often asked first."""
    record = json.loads((RESULTS / "questions.json").read_text(encoding="utf8"))
    rates = record["rates"]
    asked = rates["validation"]
    kinds = [*_TOGETHER, *sorted(set(asked) - set(_TOGETHER), key=lambda kind: (-asked[kind]["n"], kind))]
    rows = [
        f"| {kind} | {_share(asked[kind])} | {_plain(rates['validation, blind'].get(kind))} | {_plain(rates['held-out'].get(kind))} |"
        for kind in kinds
    ]
    return "\n".join(
        [
            f"Answered rightly, of {record['lessons']:,} fresh pictures each (95 % intervals; a place within one of the 64 columns and rows, all else letter by letter; a place is right by chance",
            "once in 455 times). Held out: facts and sums that training never asks for. Commands and seeds: `benchmarks/results/questions.json`.",
            "",
            "| kind | fresh pictures | the same, a grey picture | held out |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _share(entry: dict[str, Any]) -> str:
    low, high = entry["wilson95"]
    return f"{entry['rate']:.1%} ({low:.1%} – {high:.1%}), n = {entry['n']}"


def _plain(entry: dict[str, Any] | None) -> str:
    return "–" if entry is None else f"{entry['rate']:.1%}"


def with_figures(page: str, figures: str) -> str:
    """The page with the figures between their marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{figures}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_figures(PAGE.read_text(encoding="utf8"), table()), encoding="utf8")
