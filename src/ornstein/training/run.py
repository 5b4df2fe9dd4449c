"""A training run's folder: checkpoints that can be resumed, a log, previews, the finished model.

checkpoints/step-0001000/    raw float32 weights; training_state/ holds the moving average, AdamW's moments, the step
log.jsonl                    one JSON object a line
loss.png                     the losses in it, drawn
previews/step-0001000.png    whatever the recipe draws; data.png, what it trains on
model/                       the finished model
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.core.checkpoint import Checkpoint, read_checkpoint
from ornstein.core.errors import CheckpointError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_STEP = "step-"
_SHOWN_DIFFERENCES = 8
# How often something is written changes nothing in the weights.
_FREE_TO_CHANGE = {f"optimization.{name}" for name in ("log_every", "checkpoint_every", "preview_every", "keep_checkpoints")}


class RunFolder:
    """The folder of one run."""

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        self.checkpoints = self.out / "checkpoints"
        self.model = self.out / "model"
        self.log_file = self.out / "log.jsonl"
        self._lock: int | None = None

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(self._steps())

    def check(self, *, resume: bool, overwrite: bool = False) -> None:
        """Refuse what `open` would refuse, touching nothing: before minutes of preparation.

        Raises:
            TrainingError: the folder cannot be written, holds a run and neither `resume` nor `overwrite` was asked for, or there
                is nothing to resume.
        """
        if resume and not self._steps():
            raise TrainingError(f"cannot resume in {self.out}: it holds no checkpoint; start it without --resume")
        # A log alone is what a run leaves that ended before its first checkpoint: nothing to go on with or to lose.
        if (self._steps() or self.model.exists()) and not resume and not overwrite:
            raise TrainingError(f"{self.out} already holds a training run: go on with --resume, or choose another output folder")
        above = self.out.absolute()
        try:
            while not above.exists():
                above = above.parent
            usable = above.is_dir() and os.access(above, os.W_OK)
        except OSError as error:
            raise self._unusable((error.strerror or str(error)).lower()) from error
        if not usable:
            raise self._unusable(f"{above} is not a folder that one may write to")

    def _unusable(self, reason: str) -> TrainingError:
        return TrainingError(f"cannot train into {self.out}: {reason}; choose another output folder")

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Create or take over the folder, for one process at a time.

        Raises:
            TrainingError: as for `check`, or another training uses the folder.
        """
        self.check(resume=resume, overwrite=overwrite)
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.previews.mkdir(exist_ok=True)
            self._lock = os.open(self.out / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise self._unusable((error.strerror or str(error)).lower()) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system releases it however this process ends
        except OSError as error:
            self.close()
            raise TrainingError(f"cannot train into {self.out}: another training is running in it") from error
        if not resume:
            for folder in (self.checkpoints, self.model):
                shutil.rmtree(folder, ignore_errors=True)
            for drawn in (self.log_file, *self.previews.glob(f"{_STEP}*")):  # what a recipe has drawn of its data stays
                drawn.unlink(missing_ok=True)
            self.checkpoints.mkdir()
        for stale in (*self.checkpoints.glob(".*"), *self.previews.glob(".*")):  # what a killed process was writing or deleting
            shutil.rmtree(stale, ignore_errors=True)

    def close(self) -> None:
        """Let another training use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def previews(self) -> Path:
        return self.out / "previews"

    def checkpoint_at(self, step: int) -> Path:
        return self.checkpoints / f"{_STEP}{step:07d}"

    @contextmanager
    def drawing_preview(self, step: int) -> Iterator[Path]:
        """Where to write the preview of a step; it appears among the others, under the name that it was given, once whole."""
        temporary = self.previews / f".{_STEP}{step:07d}"
        try:
            temporary.mkdir(exist_ok=True)
            yield temporary / f"{_STEP}{step:07d}.png"
            for drawn in temporary.iterdir():
                drawn.replace(self.previews / drawn.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def newest(self) -> Path | None:
        """The newest checkpoint, unchecked."""
        steps = self._steps()
        return self.checkpoint_at(steps[-1]) if steps else None

    def newest_valid(self, warn: Callable[[str], None]) -> Checkpoint:
        """The newest checkpoint that is whole; `warn` hears of each damaged one that was passed over.

        Raises:
            TrainingError: none is whole.
        """
        for step in reversed(self._steps()):
            try:
                return read_checkpoint(self.checkpoint_at(step))
            except CheckpointError as error:
                warn(f"passing over a damaged checkpoint: {error}")
        raise TrainingError(f"cannot resume in {self.out}: none of its checkpoints is whole; start it again in another folder")

    def prune(self, keep: int) -> None:
        """Delete all but the newest `keep` checkpoints."""
        for step in self._steps()[:-keep]:
            # Renamed first: one that is half deleted when the process dies must not look like a checkpoint.
            doomed = self.checkpoints / f".{_STEP}{step:07d}.old-{os.getpid()}"
            os.rename(self.checkpoint_at(step), doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a line to the log; a number that is not finite becomes null, as JSON has no word for it."""
        clean = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        try:
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(clean) + "\n")
        except OSError as error:
            raise TrainingError(f"cannot write {self.log_file}: {(error.strerror or str(error)).lower()}") from error

    def rewind_log(self, step: int) -> None:
        """Drop the lines after `step`: the resumed run writes them again."""
        if not self.log_file.exists():
            return
        kept = []
        for line in self.log_file.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a killed process may be cut short
        temporary = self.log_file.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(self.log_file)

    def _steps(self) -> list[int]:
        names = (folder.name for folder in self.checkpoints.glob(f"{_STEP}*"))
        return sorted(int(name.removeprefix(_STEP)) for name in names if name.removeprefix(_STEP).isdigit())


def require_same_recipe(now: Mapping[str, Any], then: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume under other hyper-parameters: the result would be neither training.

    Raises:
        TrainingError: lists the fields that differ.
    """
    mine, theirs = _flat(now), _flat(then)
    absent = "absent"
    different = [
        f"{key} is {mine.get(key, absent)!r}, was {theirs.get(key, absent)!r}"
        for key in sorted({*mine, *theirs} - _FREE_TO_CHANGE)
        if mine.get(key, absent) != theirs.get(key, absent)
    ]
    if different:
        more = f"; and {len(different) - _SHOWN_DIFFERENCES} more" if len(different) > _SHOWN_DIFFERENCES else ""
        raise TrainingError(
            f"cannot resume {path} with another recipe: {'; '.join(different[:_SHOWN_DIFFERENCES])}{more}; "
            "give the values that it was started with, or start anew in another folder"
        )


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict) or not data:
        return {prefix.removesuffix("."): data}
    return {key: value for name, part in data.items() for key, value in _flat(part, f"{prefix}{name}.").items()}


def begun_stages(stages: Sequence[Path], *, resume: bool) -> dict[Path, bool]:
    """Of a training in stages, each in a folder of its own: which go on from a checkpoint. All are checked first, see `RunFolder.check`.

    Raises:
        TrainingError: as there; to resume, the first stage must have begun.
    """
    if resume:
        RunFolder(stages[0]).check(resume=True)
    goes_on = {stage: resume and RunFolder(stage).begun for stage in stages}
    for stage, begun in goes_on.items():
        RunFolder(stage).check(resume=begun)
    return goes_on
