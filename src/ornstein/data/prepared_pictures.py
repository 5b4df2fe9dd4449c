"""A folder's pictures decoded once and kept on disk as small squares, and a report of what was left out and why."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import DataError
from ornstein.data.picture_folder import Listed, Listing, Skipped, fingerprint, list_folder, shown
from ornstein.data.pictures import SUFFIXES, read_square

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Track = Callable[[Iterator[Any], int, str], Iterator[Any]]

# Part of the cache's name: raise it when a picture is read differently.
_VERSION = 1
_FEW = 5


@dataclass(frozen=True)
class PreparedPictures:
    """The pictures of a folder that can be used.

    listing: of them alone; its `skipped` holds all that cannot. pixels: uint8 (N, side, side, 3) in the listing's order, read
    from disk as needed. remarks: how often there was what to say about a picture that is used.
    """

    listing: Listing
    pixels: NDArray[np.uint8]
    remarks: Counter[str]

    def __len__(self) -> int:
        return len(self.listing.pictures)

    @property
    def captions(self) -> list[str]:
        return [picture.caption for picture in self.listing.pictures]

    @property
    def fingerprint(self) -> str:
        """Of the usable pictures and their captions: what a training depends on."""
        return fingerprint(self.listing.pictures)

    def report(self) -> dict[str, Any]:
        """All there is to say, as JSON. Pictures of the same bytes are kept, each with its caption, and counted as duplicates."""
        listing = self.listing
        return {
            "folder": shown(listing.folder.resolve().name),
            "fingerprint": self.fingerprint,
            "pictures": len(self),
            "different_captions": len(set(self.captions)),
            "captions_from": dict(Counter(picture.source for picture in listing.pictures)),
            "duplicates": len(self) - len({picture.digest for picture in listing.pictures}),
            "remarks": dict(self.remarks),
            "skipped": len(listing.skipped),
            "reasons": dict(Counter(skipped.reason.partition(" (")[0] for skipped in listing.skipped).most_common()),
            "skipped_files": [{"file": shown(skipped.name), "reason": shown(skipped.reason)} for skipped in listing.skipped],
            "files_of_other_kinds": dict(listing.others),
        }

    def require_some(self) -> None:
        """Refuse a folder with nothing to learn from.

        Raises:
            DataError: what was looked for and what was found.
        """
        if len(self):
            return
        report = self.report()
        found = [f"{count} × {reason!r}" for reason, count in report["reasons"].items()]
        found += [f"{count} × files of kind {shown(kind)}" for kind, count in self.listing.others.items()]
        raise DataError(
            f"no picture in {shown(str(self.listing.folder))} can be used: looked for {' '.join(SUFFIXES)} with captions in NAME.txt,"
            f" metadata.jsonl, metadata.csv or the name of a sub-folder, found {', '.join(found) or 'an empty folder'}"
        )


def prepare_pictures(folder: Path, cache: Path, side: int, track: Track = lambda items, total, what: items) -> PreparedPictures:
    """List `folder` and decode what it lists into the folder `cache`, or read there what an earlier call has decoded.

    The cache is named by the pictures' bytes and captions: a changed folder is read anew. It appears by a rename once complete.

    Args:
        side: of the squares, in pixels. track: wraps iterations, for a progress bar; gets an iterator, its length and a word.

    Raises:
        DataError: there is no such folder, or the cache cannot be written or read.
    """
    listing = list_folder(folder, lambda names, total: track(names, total, "looking through the folder"))
    candidates = listing.pictures
    key = hashlib.sha256(json.dumps([_VERSION, side, fingerprint(candidates)]).encode()).hexdigest()[:16]
    about, pixels = cache / f"pictures-{key}.json", cache / f"pictures-{key}.rgb"
    if not (about.exists() and pixels.exists()):
        _decode(folder, candidates, side, about, pixels, track)
    try:
        found = json.loads(about.read_text(encoding="utf-8"))
        reasons, remarks = dict(found["reasons"]), dict(found["remarks"])
        used = [picture for picture in candidates if picture.digest not in reasons]
        shape = (len(used), side, side, 3)
        array = np.memmap(pixels, np.uint8, "r", shape=shape) if used else np.zeros(shape, np.uint8)
        if pixels.stat().st_size != array.nbytes:
            raise ValueError(f"{pixels.stat().st_size} bytes instead of {array.nbytes}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the cache {about} is damaged ({error}): delete the folder {cache}, it will be made again") from error
    skipped = [Skipped(picture.name, reasons[picture.digest]) for picture in candidates if picture.digest in reasons]
    said = Counter(remark for picture in used for remark in remarks.get(picture.digest, ()))
    everything = sorted([*listing.skipped, *skipped], key=lambda skipped: skipped.name)
    return PreparedPictures(replace(listing, pictures=used, skipped=everything), array, said)


def _decode(folder: Path, candidates: list[Listed], side: int, about: Path, pixels: Path, track: Track) -> None:
    """Write the squares one after the other, then what was said about the pictures, by their digests."""
    reasons: dict[str, str] = {}
    remarks: dict[str, list[str]] = {}
    temporary = [path.with_suffix(f"{path.suffix}.{os.getpid()}.partial") for path in (pixels, about)]
    try:
        pixels.parent.mkdir(parents=True, exist_ok=True)
        with temporary[0].open("wb") as file:
            for picture in track(iter(candidates), len(candidates), "reading pictures"):
                try:
                    square, said = read_square(folder / picture.name, side)
                except DataError as error:
                    reasons[picture.digest] = str(error)
                    continue
                file.write(square.tobytes())
                if said:
                    remarks[picture.digest] = list(said)
        temporary[1].write_text(json.dumps({"reasons": reasons, "remarks": remarks}), encoding="utf-8")
        for path, target in zip(temporary, (pixels, about), strict=True):
            path.replace(target)
    except OSError as error:
        raise DataError(
            f"cannot write the prepared pictures into {pixels.parent}: {(error.strerror or str(error)).lower()};"
            " free some space or choose another folder"
        ) from error
    finally:
        for path in temporary:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def summary(report: dict[str, Any]) -> list[str]:
    """A report in a few lines, with the first few of the skipped files."""
    sources = ", ".join(f"{count} from {source}" for source, count in report["captions_from"].items())
    lines = [f"{report['pictures']} pictures with {report['different_captions']} different captions ({sources or 'none'})"]
    if report["duplicates"]:
        lines.append(f"{report['duplicates']} of them repeat the bytes of another; they are kept")
    lines += [f"{count} {remark}" for remark, count in report["remarks"].items()]
    if report["skipped"]:
        reasons = ", ".join(f"{count} × {reason!r}" for reason, count in report["reasons"].items())
        lines.append(f"{report['skipped']} skipped: {reasons}")
        lines += [f"  {skipped['file']} {skipped['reason']}" for skipped in report["skipped_files"][:_FEW]]
        if report["skipped"] > _FEW:
            lines.append(f"  … and {report['skipped'] - _FEW} more")
    if report["files_of_other_kinds"]:
        kinds = ", ".join(f"{count} × {shown(kind)}" for kind, count in report["files_of_other_kinds"].items())
        lines.append(f"files of other kinds, not looked at: {kinds}")
    return lines
