"""`ornstein lint-schedule`: what is wrong with a noise schedule and the way it is sampled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from ornstein.core.errors import DataError


def lint_schedule(
    file: tyro.conf.Positional[Path],
    steps: int = 50,
    guidance: float | None = None,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Read a scheduler's file and say what is wrong with it, how bad that is and what to do.

    Exit code 0: nothing worse than a note. 1: an error or a warning. 2: the file cannot be read or is no scheduler's.

    Args:
        file: A diffusers scheduler_config.json (or a folder that holds one), or a config.json of ornstein's.
        steps: How many sampling steps you will take.
        guidance: The guidance scale that you will use.
        json_output: Print the findings as JSON.
    """
    from ornstein.interop import lint

    if steps < 1:
        raise DataError(f"--steps must be at least 1, got {steps}")
    findings = lint(_parsed(file), steps=steps, guidance=guidance)
    if json_output:
        print(json.dumps([finding.to_json() for finding in findings], ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            print(f"{finding.severity}: {finding.rule}: {finding.message}\n  → {finding.remedy}")
        bad = sum(finding.severity != "note" for finding in findings)
        print(f"{file}: " + (f"{bad} to mend" if bad else "nothing to mend") + f" at {steps} steps")
    return int(any(finding.severity != "note" for finding in findings))


def _parsed(file: Path) -> object:
    if file.is_dir():
        places = [file / "scheduler_config.json", file / "scheduler" / "scheduler_config.json", file / "config.json"]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise DataError(f"there is no scheduler_config.json in {file}")
        file = found
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {file}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error
