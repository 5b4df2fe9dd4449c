"""A checkpoint is a folder, complete or absent, and checked whenever it is read.

    config.json            format, version, kind, config, provenance; size and sha256 of the other files
    model.safetensors      the weights
    contract.json          the embodiment contract (policies)
    card.md                data, recipe, seed, commit, measured results: prose, free to be edited, so not under a hash
    training_state/…       what resuming needs, where it can be resumed

It is written to a hidden folder beside its place, fsynced and renamed: whoever dies when, the name holds a whole
checkpoint or the one before it. Nothing is ever pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ornstein.core.contract import EmbodimentContract
from ornstein.core.errors import CheckpointError, ContractError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FORMAT = "ornstein-checkpoint"
VERSION = 1
WEIGHTS = "model.safetensors"
_CONFIG, _CONTRACT, _CARD = "config.json", "contract.json", "card.md"
_KEYS = {"format", "version", "kind", "config", "provenance", "bytes", "sha256", "checksum"}
_AGAIN = "fetch or train it again"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were found whole.

    fingerprint: 16 hexadecimal digits of kind, config and weights; the card and the provenance do not change it.
    """

    path: Path
    kind: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    contract: EmbodimentContract | None
    fingerprint: str
    files: tuple[str, ...]

    def tensors(self, file: str = WEIGHTS) -> dict[str, NDArray[Any]]:
        """The tensors of one of its safetensors files, by name.

        Raises:
            CheckpointError: it has no such file, or the file cannot be read.
        """
        if file not in self.files:
            raise CheckpointError(f"{self.path} has no {file}; it has {', '.join(self.files)}")
        try:
            return load_file(self.path / file)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read {self.path / file}: {error}; {_AGAIN}") from error

    def read_bytes(self, file: str) -> bytes:
        """The content of one of its files."""
        if file not in self.files:
            raise CheckpointError(f"{self.path} has no {file}; it has {', '.join(self.files)}")
        return (self.path / file).read_bytes()


def write_checkpoint(
    folder: Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Any],
    provenance: Mapping[str, Any],
    card: str,
    contract: EmbodimentContract | None = None,
    extra_files: Mapping[str, bytes | Mapping[str, Any]] | None = None,
) -> None:
    """Write a checkpoint atomically; an existing one under that name is replaced.

    Args:
        kind: "autoencoder", "text-to-image", "emoji-classifier", "rt1": which class reads it.
        config: JSON; what that class needs to build its network.
        tensors: name → numpy array or torch tensor (any device and layout), of a type that numpy has.
        provenance: JSON; recipe, seed, steps, commit, ….
        card: markdown for people.
        extra_files: relative path → bytes, or tensors to be written as safetensors.

    Raises:
        CheckpointError: it cannot be written (full disk, no permission, not JSON, …). What was there before stays whole
            and nothing half-written is left.
    """
    folder = Path(folder)
    files: dict[str, bytes | Mapping[str, Any]] = {WEIGHTS: tensors}
    if contract is not None:
        files[_CONTRACT] = _json(contract.to_json(), "the contract")
    for name, content in (extra_files or {}).items():
        parts = PurePosixPath(name).parts
        if name in (_CONFIG, _CARD, *files) or not parts or parts[0] == "/" or ".." in parts:
            raise CheckpointError(f"a checkpoint cannot take an extra file named {name!r}")
        files[name] = content
    about = {"format": FORMAT, "version": VERSION, "kind": kind, "config": config, "provenance": provenance}
    about = json.loads(_json(about, f"the configuration of {folder}"))
    temporary = folder.parent / f".{folder.name}.tmp-{os.getpid()}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _fill(temporary, files, about, card)
        _put_in_place(temporary, folder)
    except OSError as error:
        blocked = folder.parent.exists() and not folder.parent.is_dir()
        reason = f"{folder.parent} is not a folder" if blocked else (error.strerror or str(error)).lower()
        raise CheckpointError(f"cannot write the checkpoint {folder}: {reason}; what was there before is unchanged") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_checkpoint(folder: Path, *, expect_kind: str | None = None) -> Checkpoint:
    """Open a checkpoint and verify the size and sha256 of its files.

    Raises:
        CheckpointError: it is missing, truncated, altered, of an unknown format or version, or not of `expect_kind`.
    """
    folder = Path(folder)
    data = _read_config(folder)
    if expect_kind is not None and data["kind"] != expect_kind:
        raise CheckpointError(f"{folder} holds a model of kind {data['kind']!r}, expected {expect_kind!r}")
    for name, digest in data["sha256"].items():
        _verify(folder, name, data["bytes"].get(name), digest)
    return Checkpoint(
        path=folder,
        kind=data["kind"],
        config=data["config"],
        provenance=data["provenance"],
        contract=_read_contract(folder) if _CONTRACT in data["sha256"] else None,
        fingerprint=_fingerprint(data["kind"], data["config"], data["sha256"][WEIGHTS]),
        files=tuple(data["sha256"]),
    )


def foreign_family(folder: Path) -> str | None:
    """What the transformers library calls the kind of the model that it saved in a folder; None if there is none."""
    try:
        settings = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = settings.get("model_type") if isinstance(settings, dict) and "format" not in settings else None
    return found if isinstance(found, str) else None


def foreign_fingerprint(folder: Path) -> str:
    """16 hexadecimal digits of all that the transformers library saved in a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return hashlib.sha256(json.dumps([[path.name, _sha256(path)] for path in files]).encode()).hexdigest()[:16]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        aside = sorted(folder.parent.glob(f".{folder.name}.old-*")) if not folder.exists() else []
        if aside:  # a replacement was killed between its two renames
            raise CheckpointError(f"{folder} is missing, but its predecessor is whole in {aside[-1]}: rename that to {folder}")
        found = "a folder without config.json" if folder.is_dir() else "no folder"
        raise CheckpointError(f"there is no checkpoint in {folder} ({found}): give the folder that holds config.json")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): {_AGAIN}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CheckpointError(f"{path} does not describe an {FORMAT}: was it written by another program?")
    if data.get("version") != VERSION:
        raise CheckpointError(
            f"{folder} has version {data.get('version')!r} of the checkpoint format, this ornstein reads {VERSION}: "
            "update ornstein"
        )
    if set(data) != _KEYS or data["checksum"] != _checksum(data) or WEIGHTS not in data["sha256"]:
        raise CheckpointError(f"{path} is damaged (its checksum does not match): {_AGAIN}")
    return data


def _verify(folder: Path, name: str, size: int | None, digest: str) -> None:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{folder} lacks its file {name}: {_AGAIN}")
    found = path.stat().st_size
    if found != size:
        raise CheckpointError(f"{path} has {found} bytes, expected {size} (a copy cut short?): {_AGAIN}")
    if _sha256(path) != digest:
        raise CheckpointError(f"{path} is damaged (its sha256 does not match): {_AGAIN}")


def _read_contract(folder: Path) -> EmbodimentContract:
    try:
        return EmbodimentContract.from_json(json.loads((folder / _CONTRACT).read_text(encoding="utf-8")))
    except (OSError, ValueError, ContractError) as error:
        raise CheckpointError(f"the contract of {folder} does not read: {error}") from error


def _fill(folder: Path, files: Mapping[str, bytes | Mapping[str, Any]], about: dict[str, Any], card: str) -> None:
    """Write everything to disk for good, config.json last."""
    for name, content in files.items():
        _write(folder / name, content)
    about["bytes"] = {name: (folder / name).stat().st_size for name in files}
    about["sha256"] = {name: _sha256(folder / name) for name in files}
    about["checksum"] = _checksum(about)
    _write(folder / _CARD, card.encode())
    _write(folder / _CONFIG, _json(about, _CONFIG))
    for directory in sorted({(folder / name).parent for name in files} | {folder}):
        _sync(directory)


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename into place. A folder cannot be replaced in one call: an older one steps aside, and comes back on error."""
    aside = folder.parent / f".{folder.name}.old-{os.getpid()}"
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
    try:
        os.rename(temporary, folder)
    except OSError:
        if aside.exists():
            os.rename(aside, folder)
        raise
    _sync(folder.parent)
    for stale in folder.parent.glob(f".{folder.name}.old-*"):  # this one, and any that a killed process left
        shutil.rmtree(stale, ignore_errors=True)


def _write(path: Path, content: bytes | Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):  # safetensors' own file writer gives mode 0600 and hides the system's error code
        content = save({name: _array(name, tensor) for name, tensor in content.items()})
    path.write_bytes(content)
    _sync(path)


def _array(name: str, tensor: Any) -> NDArray[Any]:
    """A C-ordered numpy array of a numpy array or torch tensor; torch is not imported for it."""
    try:
        array = tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)
    except TypeError as error:
        raise CheckpointError(
            f"tensor {name!r} has a type that numpy lacks ({error}): convert it to float16 or float32"
        ) from error
    if array.dtype.kind not in "fiub":
        raise CheckpointError(f"tensor {name!r} is of type {array.dtype}; a checkpoint takes numbers and booleans")
    return array if array.flags.c_contiguous else array.copy(order="C")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(data: Mapping[str, Any]) -> str:
    body = {key: value for key, value in data.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _fingerprint(kind: str, config: Mapping[str, Any], weights: str) -> str:
    return hashlib.sha256(json.dumps([kind, config, weights], sort_keys=True).encode()).hexdigest()[:16]


def _json(data: Any, what: str) -> bytes:
    try:
        return (json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{what} cannot be written as JSON: {error}") from error
