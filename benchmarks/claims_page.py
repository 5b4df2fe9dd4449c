"""Writes docs/claims.md and its pictures from what `ornstein claims … --out benchmarks/results/claims` left.

.venv/bin/python benchmarks/claims_page.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from record import RESULTS

from ornstein.assets import openmoji
from ornstein.claims import LEDGER, Claim, Measure

DOCS = Path(__file__).resolve().parents[1] / "docs"
CLAIMS = RESULTS / "claims"


def record_of(claim: Claim) -> dict[str, Any] | None:
    """What a claim's last run wrote down."""
    path = CLAIMS / claim.id / "outcome.json"
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else None


def section(claim: Claim, record: dict[str, Any]) -> list[str]:
    lines = [f"## {claim.id}: {record['verdict']}", "", f"“{claim.statement}”", "", f"{_capital(record['because'])}.", ""]
    lines += ["| | |", "|---|---|"]
    for row in record["measures"]:
        interval = None if row["interval"] is None else tuple(row["interval"])
        lines.append(f"| {_cell(row['name'])} | {Measure(row['name'], row['value'], interval, row['n'], row['unit'])} |")
    seeds = ", ".join(map(str, record["seeds"]))
    lines += ["", f"`{record['command']}`, seeds {seeds}, {record['wall_seconds']:.0f} s on {record['hardware']['machine']}.", ""]
    for picture in record["pictures"]:
        name = f"{claim.id}-{picture['file']}"
        shutil.copyfile(CLAIMS / claim.id / picture["file"], DOCS / "claims" / name)
        lines += [f"![{picture['title']}](claims/{name})", "", f"*{picture['title']}*", ""]
    return lines


def page() -> str:
    """The whole page; copies the pictures beside it."""
    shutil.rmtree(DOCS / "claims", ignore_errors=True)
    (DOCS / "claims").mkdir()
    records = {claim: record_of(claim) for claim in LEDGER}
    lines = [
        "# The ledger",
        "",
        "Statements of the field as experiments: `ornstein claims` lists them, `ornstein claims D1` reruns one. Each verdict is of the run",
        "below it, from `benchmarks/results/claims`; intervals are of 95 %. “Refuted” and “cannot tell” are results like any other.",
        "",
        "| id | statement | verdict |",
        "|---|---|---|",
    ]
    for claim, record in records.items():
        verdict = f"**{record['verdict']}**" if record else "not built yet"
        lines.append(f"| {claim.id} | {_cell(claim.statement)} | {verdict} |")
    for claim, record in records.items():
        if record:
            lines += ["", *section(claim, record)]
    lines += ["", f"Pictures with drawings: {openmoji.ATTRIBUTION}"]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    (DOCS / "claims.md").write_text(page(), encoding="utf8")
    print(DOCS / "claims.md")
