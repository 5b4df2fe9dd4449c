"""Runs experiments and writes down what they found."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

from ornstein.assets import openmoji
from ornstein.core.errors import OrnsteinError
from ornstein.report import Figures, Picture, Report, write_report
from ornstein.training import origin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ornstein.claims.ledger import Claim
    from ornstein.claims.outcome import Outcome


def run_claim(claim: Claim, out: Path, *, quick: bool, command: str) -> tuple[Outcome, dict[str, Any]]:
    """Run one experiment and write `out/<id>/outcome.json` and its pictures; returns the outcome and what was written.

    Args:
        quick: a smoke run of seconds: the verdict is then "not run here", whatever it found. command: goes into the record.

    Raises:
        OrnsteinError: it is not built yet, or the folder cannot be written to.
    """
    from PIL import Image

    experiment = claim.load()
    folder = out / claim.id
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OrnsteinError(f"cannot write to {folder}: {error.strerror or error}") from error
    started = time.perf_counter()
    outcome = experiment(folder / "runs", quick)
    record = {"id": claim.id, "statement": claim.statement, **outcome.to_json(), **origin(command)}
    record["wall_seconds"] = round(time.perf_counter() - started, 1)
    if quick:
        record["verdict"], record["because"] = "not run here", "a quick run: too little of everything to judge by"
    names = []
    for k, (title, pixels) in enumerate(outcome.pictures.items(), 1):
        name = f"{k}-{re.sub(r'[^a-z0-9]+', '-', title.lower())[:50].strip('-')}.png"
        Image.fromarray(pixels).save(folder / name, optimize=True)
        names.append({"file": name, "title": title})
    record["pictures"] = names
    temporary = folder / f".outcome.json.tmp-{os.getpid()}"
    temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(folder / "outcome.json")
    return outcome, record


def write_page(runs: Sequence[tuple[Claim, Outcome, dict[str, Any]]], path: Path) -> Path:
    """One page for all that was run: verdict, figures and pictures of each."""
    galleries, facts = [], []
    for claim, outcome, record in runs:
        pictures = tuple(Picture(pixels, title) for title, pixels in outcome.pictures.items())
        rows = tuple((measure.name, str(measure)) for measure in outcome.measures)
        because = f"“{claim.statement}” — {record['because']}."
        galleries.append(Figures(f"{claim.id}: {record['verdict']}", because, pictures, rows))
        facts.append(
            (
                claim.id,
                f"{record['wall_seconds']:.0f} s, seeds {', '.join(map(str, record['seeds']))}, commit {record['commit'][:12]}",
            )
        )
    facts.append(("command", runs[0][2]["command"]))
    summary = "; ".join(f"{claim.id} {record['verdict']}" for claim, _, record in runs)
    report = Report("Statements as experiments", f"{summary}.", tuple(galleries), (), tuple(facts), (openmoji.ATTRIBUTION,))
    return write_report(report, path)
