"""`ornstein claims`: the ledger of statements, and their experiments."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from ornstein.core.errors import DataError


def claims(
    ids: tyro.conf.Positional[tuple[str, ...]] = (),
    out: Path = Path("claims"),
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """List the statements of the field, or run some of them as experiments: estimate, interval, seeds and verdict.

    A verdict is "supported", "refuted" or "cannot tell"; each is a result. Figures, pictures and one page land in --out.

    Args:
        ids: Which to run, for example D1 D4. None: list them all.
        out: Folder for results.
        quick: A smoke run in seconds, without a verdict.
        json_output: Print the list or the results as JSON.
    """
    from ornstein.claims import LEDGER, find_claims

    if not ids:
        _list(list(LEDGER), json_output)
        return 0
    from ornstein.claims.runner import run_claim, write_page

    chosen = find_claims(ids)
    for claim in chosen:
        claim.load()  # all must be there before the first hour is spent
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file: choose a folder")
    command = shlex.join(["ornstein", "claims", *ids, *(["--quick"] if quick else [])])
    runs = []
    for claim in chosen:
        if not json_output:
            about = "seconds" if quick else f"about {claim.minutes:g} min on two cores"
            print(f"{claim.id}  {claim.statement}\n    ({about})", flush=True)
        outcome, record = run_claim(claim, out, quick=quick, command=command)
        runs.append((claim, outcome, record))
        if not json_output:
            for measure in outcome.measures:
                print(f"    {measure.name}: {measure}")
            print(f"    → {record['verdict']}: {record['because']}\n", flush=True)
    page = write_page(runs, out / "report.html")
    if json_output:
        print(json.dumps([record for *_, record in runs], ensure_ascii=False, indent=1))
    else:
        print(page.resolve())
    return 0


def _list(ledger: list[Any], json_output: bool) -> None:
    if json_output:
        rows = [{"id": c.id, "statement": c.statement, "built": bool(c.experiment), "minutes": c.minutes} for c in ledger]
        json.dump(rows, sys.stdout, ensure_ascii=False, indent=1)
        print()
        return
    for claim in ledger:
        state = f"{claim.minutes:>4g} min" if claim.experiment else "not yet "
        print(f"{claim.id}  {state}  {claim.statement}")
    built = " ".join(claim.id for claim in ledger if claim.experiment)
    print(f"\nornstein claims {built}   runs what is built; minutes are of two cores.")
