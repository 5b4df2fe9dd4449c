"""Writing a LeRobotDataset v3: episode by episode, complete or not there.

    with LeRobotWriter(out, spec) as writer:
        writer.add(episode)          # safe on disk when this returns
        ...
        writer.finish()              # now, and not before, `out` exists

Leaving without `finish` keeps the episodes in `<out>.incomplete`; the same lines again go on from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import av

from ornstein.core.errors import DataError
from ornstein.data.lerobot_assembly import Assembly
from ornstein.data.lerobot_format import MANIFEST
from ornstein.data.lerobot_staging import Staging, cannot_write, read_staged, write_failed, write_staged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from ornstein.data.lerobot_episode import DatasetSpec, Layout, RobotEpisode
    from ornstein.data.lerobot_staging import StagedEpisode


class DatasetJoin:
    """Owns `<out>.incomplete` until it is closed, and makes a data set of the episodes that lie there.

    Attributes:
        folder: that folder; the functions of `lerobot_staging` fill it, from other processes too.
    """

    def __init__(
        self, out: Path, layout: Layout, *, spec: Mapping[str, Any] | None = None, job: Mapping[str, Any] | None = None
    ) -> None:
        """
        Args:
            out: the data set's folder to be.
            spec, job: JSON, see `Staging`; the layout's own unless given, and nothing.

        Raises:
            DataError: `out` exists, cannot be written, another process is at it, or another job was interrupted there.
        """
        self._staging = Staging(Path(out), layout.to_json() if spec is None else spec, job or {})
        self.folder, self._out, self._layout = self._staging.folder, Path(out), layout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let others have the folder; what was added stays."""
        self._staging.close()

    def staged(self) -> dict[int, bool]:
        """Key → whether it is kept, of all episodes on disk, by rising key."""
        return {episode.key: episode.kept for episode in self._staging.episodes()}

    def staged_episodes(self) -> list[StagedEpisode]:
        """All episodes on disk, by rising key."""
        return list(self._staging.episodes())

    def finish(self, keys: Sequence[int] | None = None, *, provenance: Mapping[str, Any] | None = None) -> Path:
        """Join the episodes and let the data set appear.

        Args:
            keys: which episodes in which order; all that are kept by rising key unless given.
            provenance: JSON, kept in meta/ornstein_provenance.json.

        Raises:
            DataError: no episodes, one is missing or damaged, or the disk is full. The episodes stay.
        """
        chosen = list(keys) if keys is not None else [key for key, kept in self.staged().items() if kept]
        whole = self.folder / "dataset"
        shutil.rmtree(whole, ignore_errors=True)
        try:
            self._assemble(whole, chosen, provenance or {})
            _write_manifest(whole)
            _sync_all(whole)
            os.rename(whole, self._out)
            _sync(self._out.parent)
        except OSError as error:  # av's errors of the system are OSErrors too
            shutil.rmtree(whole, ignore_errors=True)
            raise cannot_write(self._out, error) from error
        except BaseException:
            shutil.rmtree(whole, ignore_errors=True)
            raise
        self._staging.remove()
        return self._out

    def _assemble(self, whole: Path, keys: Sequence[int], provenance: Mapping[str, Any]) -> None:
        if not keys:
            raise DataError(f"{self._out} would have no episodes; a data set needs at least one")
        assembly = Assembly(whole, self._layout)
        try:
            for key in keys:
                episode = read_staged(self.folder / "episodes" / f"{key:08d}")
                if episode is None or not episode.kept:
                    raise DataError(f"episode {key} of {self.folder} is missing or damaged: record it again")
                assembly.append(episode)
            assembly.finish(provenance)
        finally:
            with suppress(OSError, av.FFmpegError):  # what went wrong first is what counts
                assembly.close()


class LeRobotWriter(DatasetJoin):
    """Adds episodes one by one."""

    def __init__(self, out: Path, spec: DatasetSpec, *, job: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            out: the data set's folder to be.
            job: JSON, see `Staging`.

        Raises:
            DataError: `out` exists, cannot be written, another process is at it, or another job was interrupted there.
        """
        super().__init__(out, spec.layout, spec=spec.to_json(), job=job)
        self._spec = spec

    def add(self, episode: RobotEpisode, key: int | None = None) -> int:
        """Put an episode on disk; returns its key, which sorts it. A key that is taken is left as it is.

        Raises:
            DataError: it does not fit the data set, or it cannot be written.
        """
        if key is None:
            key = max(self.staged(), default=-1) + 1
        write_staged(self.folder, key, self._spec, episode)
        return key

    def leave_out(self, key: int, length: int) -> None:
        """Note that the demonstration of that key, of so many steps, failed."""
        write_failed(self.folder, key, length)


def _write_manifest(folder: Path) -> None:
    """Size and SHA-256 of every file: what `ornstein data validate` checks first."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {}
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        manifest[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _sync_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
