"""Does the suite see real defects? Injects each of `defects.py` into a copy of the source and runs the tests on it.

    .venv/bin/python benchmarks/replay_defects.py [--only ID …]

Writes benchmarks/results/defects.json and docs/defects.md. A defect that no test sees makes the exit code 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro
from defects import DEFECTS, Defect
from record import RESULTS, write

from ornstein.core.progress import track

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "defects.md"
#: Where each has really occurred, by id: threads of public repositories.
SEEN: dict[str, str] = {}


def replay(defect: Defect, folder: Path) -> dict[str, Any]:
    """The first test that fails on the defective copy, and how many seconds that took."""
    source = folder / "src"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    inject(defect, source)
    paths = [str(ROOT / path) for path in defect.tests.split()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *paths],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^(?:FAILED|ERROR) (?:\S*?tests/)?(\S+?)(?:\[.*)?(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or (done.returncode == 1 and found is None):
        raise SystemExit(f"the tests could not run on {defect.id}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return {"what": defect.what, "file": defect.file, "caught_by": found.group(1) if found else None}


def inject(defect: Defect, source: Path) -> None:
    """Make the change in a copy of the source.

    Raises:
        SystemExit: the text is not there exactly once, so that this defect says nothing any more.
    """
    path = source / "ornstein" / defect.file
    text = path.read_text(encoding="utf8")
    if text.count(defect.old) != 1:
        raise SystemExit(
            f"{defect.id}: its text stands {text.count(defect.old)} times in {defect.file}, once is needed: mend defects.py"
        )
    path.write_text(text.replace(defect.old, defect.new), encoding="utf8")


def page(results: dict[str, dict[str, Any]]) -> str:
    caught = sum(row["caught_by"] is not None for row in results.values())
    lines = [
        "# Replay of known defects",
        "",
        f"`benchmarks/replay_defects.py` injects each of these {len(results)} defects into a copy of the source, one at a time, and runs the"
        f" tests on it: {caught} are caught. Each is of a kind that has stood in published diffusion code; where a public thread about",
        "one was found, it is named.",
        "",
        "| defect | what is wrong | seen in | first test that fails |",
        "|---|---|---|---|",
    ]
    for name, row in results.items():
        test = f"`{row['caught_by']}`" if row["caught_by"] else "**none**"
        lines.append(f"| {name} | {row['what']} | {SEEN.get(name, '')} | {test} |")
    return "\n".join(lines) + "\n"


def main(only: tuple[str, ...] = ()) -> None:
    """Inject and test.

    Args:
        only: These ids alone, printed and not written down.
    """
    chosen = [defect for defect in DEFECTS if not only or defect.id in only]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for defect in track(iter(chosen), len(chosen), "defects"):
            results[defect.id] = replay(defect, Path(folder))
            if results[defect.id]["caught_by"] is None or only:
                print(f"{defect.id}: {results[defect.id]['caught_by'] or 'NOT CAUGHT'}")
    if not only:
        write(RESULTS / "defects.json", {"defects": results})
        PAGE.write_text(page(results), encoding="utf8")
    sys.exit(int(any(row["caught_by"] is None for row in results.values())))


if __name__ == "__main__":
    tyro.cli(main)
