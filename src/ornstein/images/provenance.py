"""How a picture came about, kept in the picture: all that it takes to draw it again bit for bit.

A PNG holds it as one line of JSON in a text chunk named "ornstein", ahead of the pixels. Other formats do not carry it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

_KEY = "ornstein"


@dataclass(frozen=True)
class Provenance:
    """How one picture was drawn.

    index: of its noise within the stream `seed`. batch: the first index and the number of those denoised together, as rounding
    depends on that number. image, mask, to, …: None where the picture did not start from one. frame: of `frames` towards `to`.
    fingerprint: of the checkpoint.
    """

    prompt: str
    seed: int
    index: int
    batch: tuple[int, int]
    steps: int
    sampler: str
    eta: float
    guidance: float
    interval: tuple[int, int] | None
    negative: str
    image: str | None
    image_sha256: str | None
    mask: str | None
    mask_sha256: str | None
    strength: float | None
    to: str | None
    frames: int | None
    frame: int | None
    checkpoint: str
    fingerprint: str
    ornstein: str
    torch: str

    @classmethod
    def from_json(cls, data: Any) -> Provenance:
        """Strictly.

        Raises:
            DataError: a field is missing, unknown or of another type.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            odd = sorted(set(data) ^ names) if isinstance(data, dict) else [type(data).__name__]
            raise DataError(f"its settings are not those that this version writes ({', '.join(odd)})")
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
        for name, kind in get_type_hints(cls).items():
            if not _fits(values[name], kind):
                raise DataError(f"its settings say {name} = {data[name]!r}")
        found = cls(**values)
        first, count = found.batch
        if not first <= found.index < first + count:
            raise DataError(f"its settings say index {found.index} of a batch of {count} from {first} on")
        return found


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, tuple):
        return kind in (tuple[int, int], tuple[int, int] | None) and [type(part) for part in value] == [int, int]
    kinds = getattr(kind, "__args__", (kind,)) if kind != tuple[int, int] else ()
    return type(value) in kinds or (float in kinds and type(value) is int)


def write_picture(picture: Image, path: Path, said: Provenance | dict[str, Any], **format_settings: Any) -> None:
    """Write whole or not at all: to a hidden file beside it, then renamed.

    Args:
        said: goes into a PNG; a dict for what is no single picture, such as {"sheet": [names of the pictures on it]}.
        format_settings: as for PIL's `save`.

    Raises:
        OSError: the system refuses.
    """
    from PIL.PngImagePlugin import PngInfo

    if path.suffix.lower() == ".png":
        format_settings["pnginfo"] = info = PngInfo()
        info.add_text(_KEY, json.dumps(said if isinstance(said, dict) else asdict(said)))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden(path)
    try:
        picture.save(temporary, **format_settings)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def hidden(path: Path) -> Path:
    """Where `path` is written before it is whole."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")


def read_picture(path: Path) -> Image:
    """The picture in a file, loaded.

    Raises:
        DataError: there is none, or it is damaged.
    """
    import PIL.Image

    try:
        with PIL.Image.open(path) as opened:
            opened.load()
            return opened.copy()
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {path}") from error
    except (OSError, ValueError, SyntaxError, TypeError, PIL.Image.DecompressionBombError) as error:  # PIL's own words for damage
        raise DataError(f"{path} cannot be read as a picture: {error}") from error


def read_provenance(path: Path) -> Provenance:
    """How the whole, undamaged picture in `path` was drawn.

    Raises:
        DataError: there is no picture, or it does not say.
    """
    said = read_picture(path).info.get(_KEY)
    if not isinstance(said, str):
        raise DataError(f"{path} does not say how it was drawn: only a .png written by `ornstein sample` does")
    try:
        data = json.loads(said)
    except ValueError as error:
        raise DataError(f"{path} does not say how it was drawn: its settings are damaged") from error
    if isinstance(data, dict) and isinstance(names := data.get("sheet"), list) and names:
        raise DataError(f"{path} is a sheet of several pictures: take one of them, for example {names[0]}")
    if isinstance(data, dict) and "steps" in data and len(data) == 1:
        raise DataError(f"{path} shows the steps of a picture: take the picture itself")
    try:
        return Provenance.from_json(data)
    except DataError as error:
        raise DataError(f"{path} does not say how to draw it again: {error}") from error
