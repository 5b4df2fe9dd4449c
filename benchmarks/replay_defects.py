"""Does the suite see real defects? Injects each of `defects.py` into a copy of the source and runs the tests on it.

    .venv/bin/python benchmarks/replay_defects.py [--only ID …]

Writes benchmarks/results/defects.json and docs/defects.md. A defect that no test sees makes the exit code 1.
"""

from __future__ import annotations

import json
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
#: Where each has occurred, by id: repository, number of the public thread, and how near it is ("" where it is the same mistake).
SEEN: dict[str, tuple[str, int, str]] = {
    "stride": ("huggingface/diffusers", 9261, ""),
    "trailing-rounding": ("huggingface/diffusers", 1835, ""),
    "offset-beyond-T": ("huggingface/diffusers", 10003, ""),
    "zero-snr-division": ("huggingface/diffusers", 3851, ""),
    "repeated-last-sigma": ("huggingface/diffusers", 7517, "a near relative"),
    "lower-order-flag": ("huggingface/diffusers", 6953, "a near relative"),
    "guidance-off-below-one": ("huggingface/diffusers", 13183, ""),
    "alpha-for-alpha-bar": ("Nerogar/OneTrainer", 1118, "a near relative"),
    "beta-tilde-for-beta": ("jhbastek/PhysicsInformedDiffusionModels", 4, ""),
    "noise-at-last-step": ("IDEALLab/EngiOpt", 67, "a near relative"),
    "half-precision-state": ("huggingface/diffusers", 3005, ""),
    "ema-buffers": ("lucidrains/ema-pytorch", 8, ""),
    "t-from-zero": ("lucidrains/imagen-pytorch", 265, "a near relative"),
    "seed-by-batch-position": ("huggingface/diffusers", 6233, "reported"),
    "clip-before-conversion": ("lucidrains/denoising-diffusion-pytorch", 84, "a near relative"),
    "hutchinson-scale": ("bayesflow-org/bayesflow", 772, ""),
    "dequantisation": ("yang-song/score_sde", 24, "reported"),
    "bpd-offset": ("Kim-Dongjun/Soft-Truncation", 2, ""),
    "loss-sum-vs-mean": ("pytorch/pytorch", 10148, ""),
    "min-snr-v": ("huggingface/diffusers", 5654, ""),
    "cosine-schedule": ("jannerm/diffuser", 68, "reported"),
    "eta-ignored": ("inbarhub/DDPM_inversion", 12, "reported"),
    "heun-last-step": ("huggingface/diffusers", 1512, ""),
    "rescale-guidance": ("Pur1zumu/RIFT-SVC", 8, ""),
    "null-order": ("Nerogar/OneTrainer", 775, ""),
    "cfg-drop-inverted": ("lucidrains/DALLE2-pytorch", 235, "a near relative"),
    "t-off-by-one-network": ("openai/guided-diffusion", 51, "a near relative"),
    "linspace-misses-T": ("huggingface/diffusers", 2585, ""),
    "noise-reused": ("Kosinkadink/ComfyUI-AnimateDiff-Evolved", 532, "a near relative"),
    "resume-noise": ("ByteDance-Seed/VeOmni", 1189, ""),
    "unet-variance": ("huggingface/diffusers", 3280, ""),
}


def replay(defect: Defect, folder: Path) -> dict[str, Any]:
    """The first test that fails on the defective copy."""
    inject(defect, copy_source(folder))
    return {"what": defect.what, "file": defect.file, "caught_by": first_failure(defect.tests, folder)}


def copy_source(folder: Path) -> Path:
    """A fresh copy of the source."""
    source = folder / "src"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    return source


def first_failure(tests: str, folder: Path) -> str | None:
    """The first of these tests that fails on the copy in `folder`, if any does. The same random examples each time."""
    paths = [str(ROOT / path) for path in tests.split()]
    seeded = "--hypothesis-seed=0"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", seeded, f"--rootdir={ROOT}", *paths],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^(?:FAILED|ERROR) (?:\S*?tests/)?(\S+?)(?:\[.*)?(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or (done.returncode == 1 and found is None):
        raise SystemExit(f"the tests could not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found.group(1) if found else None


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
        f" tests on it: {caught} are caught. Where a public thread about such a mistake was found, it is named: “a",
        "near relative” is the same mistake in another place, “reported” has no maintainer's word that it was one.",
        "",
        "| defect | what is wrong | seen in | first test that fails |",
        "|---|---|---|---|",
    ]
    for name, row in results.items():
        seen = "[{0}#{1}](https://github.com/{0}/issues/{1})".format(*SEEN[name]) if name in SEEN else ""
        how = f", {SEEN[name][2]}" if name in SEEN and SEEN[name][2] else ""
        test = f"`{row['caught_by']}`" if row["caught_by"] else "**none**"
        lines.append(f"| {name} | {row['what']} | {seen}{how} | {test} |")
    return "\n".join(lines) + "\n"


def main(only: tuple[str, ...] = (), page_only: bool = False) -> None:
    """Inject and test.

    Args:
        only: These ids alone, printed and not written down.
        page_only: Write the page anew from the last results.
    """
    if page_only:
        PAGE.write_text(page(json.loads((RESULTS / "defects.json").read_text())["defects"]), encoding="utf8")
        return
    chosen = [defect for defect in DEFECTS if not only or defect.id in only]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        copy_source(Path(folder))
        for tests in track(iter(sorted({defect.tests for defect in chosen})), len({d.tests for d in chosen}), "without a defect"):
            if (failed := first_failure(tests, Path(folder))) is not None:
                raise SystemExit(f"{failed} fails without any defect: nothing would be learnt")
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
