"""Finished trials on disk: what is stopped goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError, OrnsteinError
from ornstein.evaluation.trials import Trial

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class Notebook:
    """Finished trials on disk, a line each, under the settings that they were run with."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        """
        Raises:
            DataError: the folder holds trials of other settings and `overwrite` is off.
        """
        self._lines, self._films = folder / "trials.jsonl", folder / ".films"
        header = json.dumps(settings, sort_keys=True)
        self.trials: list[Trial] = []
        if overwrite:  # a film of another policy must not pose as this one's
            self._lines.unlink(missing_ok=True)
            shutil.rmtree(self._films, ignore_errors=True)
        if self._lines.exists():
            first, *rest = self._lines.read_text(encoding="utf8").split("\n")
            if first != header:
                raise DataError(
                    f"{folder} holds trials with other settings ({_differences(first, header)}): choose another folder, or --overwrite"
                )
            # A line that a kill cut short is run again.
            whole = [line for line in rest[:-1] if line]
            self.trials = [self._read(line, number) for number, line in enumerate(whole, 2)]
        else:
            whole = []
        partial = self._lines.with_suffix(f".tmp-{os.getpid()}")
        partial.write_text("\n".join([header, *whole]) + "\n", encoding="utf8")
        partial.replace(self._lines)

    def _read(self, line: str, number: int) -> Trial:
        try:
            return Trial.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, OrnsteinError) as error:
            raise DataError(
                f"{self._lines}, line {number}, is damaged ({error}): delete that line to run its scene again, or --overwrite"
            ) from error

    def write(self, trial: Trial) -> None:
        """Keep it, whatever happens next; the film first, so that no trial is without its own."""
        if trial.film:
            self._films.mkdir(exist_ok=True)
            np.save(self._films / f"{trial.seed}.npy", np.stack(trial.film))
        with self._lines.open("a", encoding="utf8") as file:
            file.write(json.dumps(trial.to_json()) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.trials.append(replace(trial, film=[]))

    def keep_films(self, seeds: set[int]) -> None:
        """Delete all others."""
        for path in self._films.glob("*.npy"):
            if int(path.stem) not in seeds:
                path.unlink()

    def film(self, trial: Trial) -> list[NDArray[np.float32]]:
        """Its poses; empty where they were not kept."""
        path = self._films / f"{trial.seed}.npy"
        return list(np.load(path, allow_pickle=False)) if path.exists() else []


def _differences(before: str, now: str) -> str:
    try:
        old, new = json.loads(before), json.loads(now)
    except json.JSONDecodeError:
        return "its first line does not read"
    return (
        "; ".join(f"{key}: {old.get(key)} before, {new.get(key)} now" for key in new if old.get(key) != new.get(key))
        or "unknown keys"
    )
