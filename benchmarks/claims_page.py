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
BEGIN, END = "<!-- D9: written by benchmarks/claims_page.py -->", "<!-- end of D9 -->"


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


def few_steps(record: dict[str, Any]) -> str:
    """D9's second part as the table of docs/distillation.md."""
    measures = {row["name"]: row for row in record["measures"]}
    lines = [
        "| | evaluations | right (95 %) | short of the teacher (95 %) | kernel distance beyond the teacher's (95 %) | Vendi score | ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (key.removeprefix("everything right, ") for key in measures if key.startswith("everything right, ")):
        right, short, far = (
            measures.get(f"{part}, {name}")
            for part in (
                "everything right",
                "right of the teacher's beyond it",
                "farther from real pictures, Gaussian kernel distance × 1000",
            )
        )
        steps = int(next(word for word in name.split() if word.isdigit()))
        twice = name.startswith("teacher,")  # guided: with the caption and without
        lines.append(
            f"| {name} | {steps * (1 + twice)} | {_span(right, 100, '.1f')} % | {_span(short, 100, '.1f')}{' %' if short else ''}"
            f" | {_span(far, 1, '.2f')} | {measures[f'Vendi score, {name}']['value']:.2f}"
            f" | {measures[f'time a picture, {name}']['value']:.0f} |"
        )
    slowest = measures["time a picture, teacher, 1,000 steps of DDPM, one picture"]["value"]
    faster = ", ".join(
        f"{measures[f'times faster than 1,000 steps of DDPM, student, {steps}']['value']:.0f} times in {steps}"
        for steps in ("4 steps", "2 steps", "1 step")
    )
    return "\n".join(
        [
            *lines,
            "",
            f"The teacher takes {slowest:.1f} s for 1,000 guided steps of DDPM (one picture timed); the student is faster {faster}.",
        ]
    )


def _span(row: dict[str, Any] | None, scale: float, form: str) -> str:
    if row is None:
        return ""
    low, high = row["interval"]
    return f"{scale * row['value']:{form}} ({scale * low:{form}} to {scale * high:{form}})"


def write_few_steps(record: dict[str, Any]) -> None:
    """Between the marks of docs/distillation.md."""
    page = DOCS / "distillation.md"
    before, rest = page.read_text(encoding="utf8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{few_steps(record)}\n{END}{after}", encoding="utf8")


if __name__ == "__main__":
    d9 = record_of(next(claim for claim in LEDGER if claim.id == "D9"))
    if d9 is not None:
        write_few_steps(d9)
    (DOCS / "claims.md").write_text(page(), encoding="utf8")
    print(DOCS / "claims.md")
