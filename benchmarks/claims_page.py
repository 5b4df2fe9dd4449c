"""Writes docs/claims.md and its pictures from what `ornstein claims … --out benchmarks/results/claims` left.

The pictures are kept once, in docs/claims: large ones as JPEG. Those of a claim that was not run anew stay as they are.

.venv/bin/python benchmarks/claims_page.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from record import RESULTS

from ornstein.assets import openmoji
from ornstein.claims import LEDGER, Claim, Measure

DOCS = Path(__file__).resolve().parents[1] / "docs"
CLAIMS = RESULTS / "claims"
LARGEST_PNG = 120_000


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
        name = kept(CLAIMS / claim.id / picture["file"], claim.id)
        lines += [f"![{picture['title']}](claims/{name})", "", f"*{picture['title']}*", ""]
    return lines


def kept(drawn: Path, claim: str) -> str:
    """The file's name in docs/claims, where it is put if the run's folder still has it."""
    plain, small = (DOCS / "claims" / f"{claim}-{drawn.stem}{suffix}" for suffix in (".png", ".jpg"))
    if drawn.exists():
        for old in (plain, small):
            old.unlink(missing_ok=True)
        if drawn.stat().st_size <= LARGEST_PNG:
            shutil.copyfile(drawn, plain)
        else:
            Image.open(drawn).convert("RGB").save(small, quality=88)
    if not plain.exists() and not small.exists():
        raise SystemExit(f"neither {drawn} nor {plain} exists: run the claim again")
    return (plain if plain.exists() else small).name


def page() -> str:
    """The whole page; puts the pictures beside it."""
    (DOCS / "claims").mkdir(exist_ok=True)
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
        verdict = f"**{record['verdict']}**" if record else "not run yet" if claim.experiment else "not built yet"
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
