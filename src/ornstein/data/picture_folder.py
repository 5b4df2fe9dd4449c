"""A folder of pictures with captions, in the forms that people have: which files there are and what each says.

The caption of a picture is, in this order:

1. the file of the same name ending in .txt beside it: its first line that is not blank (as the trainers that read kohya's folders do);
2. its row in a `metadata.jsonl` or `metadata.csv` of its folder or one above: `file_name` (relative to that file) and `text`, or
   else `caption`; other columns are ignored, and a second row for the same picture is listed as skipped;
3. the name of its sub-folder with _ and - as spaces ("golden_retriever/1.jpg": "golden retriever"), where no picture of that
   sub-folder has a caption of its own. (In a folder of captioned pictures its name is no caption of the one that was forgotten.)

A picture without any of them is left out and listed. Nothing is decoded here: see `prepare_pictures`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ornstein.core.errors import DataError
from ornstein.data.pictures import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_METADATA = ("metadata.jsonl", "metadata.csv")
Source = str  # ".txt", "metadata" or "sub-folder"
_NO_PICTURE, _NO_CAPTION = "is a caption without a picture", "has no caption"


@dataclass(frozen=True)
class Listed:
    """One picture file: its path below the folder with /, its caption, where that comes from, and the SHA-256 of its bytes."""

    name: str
    caption: str
    source: Source
    digest: str


@dataclass(frozen=True)
class Skipped:
    """A file that is left out, and why, to be read after its name."""

    name: str
    reason: str


@dataclass
class Listing:
    """What a folder holds. pictures: in the order of their bytes, which renaming does not change. others: files of other kinds
    that were not looked at, by suffix."""

    folder: Path
    pictures: list[Listed] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def list_folder(folder: Path, track: Callable[[Iterator[str], int], Iterator[str]] = lambda names, total: names) -> Listing:
    """Every picture in `folder` and below (links followed, hidden files left aside), with its caption.

    Args:
        track: wraps the iteration over the pictures' names while they are read, for a progress bar.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder of pictures {str(folder)!r}" + (": that is a file" if folder.exists() else ""))
    listing = Listing(folder)
    names = sorted(_files(listing))
    captions = _captions(listing, names)
    pictures = [name for name in names if _is_picture(name)]
    for name in track(iter(pictures), len(pictures)):
        if name not in captions:
            listing.skipped.append(Skipped(name, _NO_CAPTION))
            continue
        try:
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            listing.skipped.append(Skipped(name, f"cannot be read ({(error.strerror or str(error)).lower()})"))
            continue
        listing.pictures.append(Listed(name, *captions[name], digest))
    listing.pictures.sort(key=lambda picture: (picture.digest, picture.caption, picture.name))
    return listing


def fingerprint(pictures: list[Listed]) -> str:
    """16 hexadecimal digits of the pictures' bytes and captions, whatever their names and order."""
    pairs = sorted([picture.digest, picture.caption] for picture in pictures)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]


def shown(name: str) -> str:
    """A file's name as text that any terminal and JSON take; bytes that are no UTF-8 become question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _files(listing: Listing) -> Iterator[str]:
    """Names of all files below, each folder visited once: links may lead in circles."""
    visited = set()

    def unreadable(error: OSError) -> None:
        name = os.path.relpath(error.filename, listing.folder)
        if name == ".":
            raise DataError(f"the folder {listing.folder} cannot be read: {(error.strerror or str(error)).lower()}") from error
        listing.skipped.append(Skipped(name, f"cannot be read ({(error.strerror or str(error)).lower()})"))

    for place, folders, files in os.walk(listing.folder, followlinks=True, onerror=unreadable):
        about = Path(place).stat()
        if (about.st_dev, about.st_ino) in visited:
            folders.clear()
            continue
        visited.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in files:
            if file.startswith("."):  # among them the halves of files that macOS leaves on other disks
                continue
            name = Path(place, file).relative_to(listing.folder).as_posix()
            if Path(place, file).is_file():  # a pipe would be waited for
                yield name
            else:
                listing.skipped.append(Skipped(name, "is no file, or a link that leads nowhere"))


def _captions(listing: Listing, names: list[str]) -> dict[str, tuple[str, Source]]:
    """Picture → caption and source; what cannot be read or belongs to no picture goes into `skipped`."""
    pictures = {name for name in names if _is_picture(name)}
    captions: dict[str, tuple[str, Source]] = {}
    texts = {}
    for name in names:
        path = PurePosixPath(name)
        if path.name in _METADATA:
            captions |= {picture: (caption, "metadata") for picture, caption in _metadata(listing, name, pictures, set(captions))}
        elif path.suffix.lower() == ".txt":
            texts[path.with_suffix("")] = name
        elif name not in pictures:
            listing.others[path.suffix.lower() or "none"] += 1
    stems = {PurePosixPath(picture).with_suffix("") for picture in pictures}
    listing.skipped += [Skipped(name, _NO_PICTURE) for stem, name in texts.items() if stem not in stems]
    told = {stem: _first_line(listing, name) for stem, name in texts.items() if stem in stems}
    for picture in pictures:
        if line := told.get(PurePosixPath(picture).with_suffix("")):
            captions[picture] = (line, ".txt")
    captioned = {PurePosixPath(picture).parent for picture in captions}
    for picture in pictures - captions.keys():
        parent = PurePosixPath(picture).parent
        words = _clean(parent.name.replace("_", " ").replace("-", " "))
        if parent not in captioned and words is not None:
            captions[picture] = (words, "sub-folder")
    return captions


def _first_line(listing: Listing, name: str) -> str | None:
    try:
        text = (listing.folder / name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        listing.skipped.append(Skipped(name, f"is no text in UTF-8 ({' '.join(str(error).split())})"))
        return None
    caption = next(filter(None, map(_clean, text.splitlines())), None)
    if caption is None:
        listing.skipped.append(Skipped(name, "is an empty caption"))
    return caption


def _metadata(listing: Listing, name: str, pictures: set[str], taken: set[str]) -> Iterator[tuple[str, str]]:
    """(picture, caption) of each row that says both, of a picture not `taken`; the other rows go into `skipped`."""
    # A name may be written with é as one character here and as two there, by another system.
    known = {unicodedata.normalize("NFC", picture): picture for picture in pictures}
    for number, row in _rows(listing, name):
        place, said = f"{name} line {number}", row.get("file_name") if isinstance(row, dict) else None
        if not isinstance(said, str) or not said:
            listing.skipped.append(Skipped(place, "is no row with a file_name"))
            continue
        path = os.path.normpath(PurePosixPath(name).parent / said)
        picture = known.get(unicodedata.normalize("NFC", path))
        caption = _clean(row.get("text") or row.get("caption"))
        if picture is None:
            listing.skipped.append(Skipped(place, f"{_NO_PICTURE} ({said!r} is not in the folder)"))
        elif caption is None:
            listing.skipped.append(Skipped(place, "has no text in its column text or caption"))
        elif picture in taken:
            listing.skipped.append(Skipped(place, f"is a second caption (of {picture}; the first one counts)"))
        else:
            taken.add(picture)
            yield picture, caption


def _rows(listing: Listing, name: str) -> Iterator[tuple[int, Any]]:
    try:
        text = (listing.folder / name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        listing.skipped.append(Skipped(name, f"is no text in UTF-8 ({' '.join(str(error).split())})"))
        return
    if name.endswith(".csv"):
        try:
            reader = csv.DictReader(io.StringIO(text, newline=""))
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            listing.skipped.append(Skipped(name, f"cannot be read as CSV ({error})"))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _clean(caption: Any) -> str | None:
    """A caption in one line, or None where there is nothing to read: no text, blank, or not valid Unicode."""
    if not isinstance(caption, str) or not any(letter.isprintable() and not letter.isspace() for letter in caption):
        return None
    try:
        caption.encode()
    except UnicodeEncodeError:
        return None
    return " ".join(caption.split())
