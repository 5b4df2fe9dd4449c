"""`ornstein compare`: drawn pictures against real ones, folder against folder; or one policy's results against another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.evaluation import QualityReport
    from ornstein.images import EmojiJudge, Extractor, Features

_FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_BATCH = 64
_MODES = ("RGB", "L", "P", "1")


def compare(
    real: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REAL|A")],
    drawn: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DRAWN|B [DRAWN …]")],
    /,
    again: Path | None = None,
    training: Path | None = None,
    neighbours: int = 5,
    json_output: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Compare folders of drawn pictures with a folder of real ones (distances, coverage, diversity, copies), or the results of two policies.

    Given two folders written by `ornstein evaluate`, it says on the scenes that both ran which policy is better, if that can be told.

    All folders hold equally many pictures of one size, since every figure depends on both; features come from the shipped emoji
    classifier. What each figure means, and its bias: docs/quality.md.
    Example: ornstein compare real drawn --again more-real --training train

    Args:
        real: Pictures that training never saw.
        drawn: A folder a model.
        again: A second folder of real pictures, for the floor: what a perfect model would score.
        training: What the models were trained on, of any number: copies of it are counted, and --json names the nearest.
        neighbours: k of the balls for precision, recall, density and coverage.
        json_output: Print JSON instead of a table.
    """
    if any((folder / "results.json").exists() for folder in (real, *drawn)):
        return _policies(real, drawn, json_output)
    import ornstein
    from ornstein.evaluation.pictures import FLOOR, REAL, quality_report
    from ornstein.images import Extractor

    if not drawn:
        raise DataError("name at least one folder of drawn pictures beside the real one")
    if taken := {REAL, FLOOR} & {str(folder) for folder in drawn}:
        raise DataError(f"{taken.pop()!r} names the real pictures in the report: rename the folder of drawn ones")
    folders = {REAL: real} | ({FLOOR: again} if again is not None else {}) | {str(folder): folder for folder in drawn}
    files = {name: _pictures(folder) for name, folder in folders.items()}
    first = len(files[REAL])
    for name, folder in folders.items():
        if len(files[name]) != first:
            raise DataError(
                f"{real} holds {first} pictures and {folder} holds {len(files[name])}: figures of different numbers are not compared,"
                f" take {min(first, len(files[name]))} of each"
            )
    trained = _pictures(training) if training is not None else None
    judge = ornstein.load("emoji-classifier", expect="emoji-classifier")
    extractor = Extractor.of_judge(judge)
    read = {name: _read(judge, extractor, mine, str(folders[name])) for name, mine in files.items()}
    report = quality_report(
        read[REAL].features,
        {name: one.features for name, one in read.items() if name not in (REAL, FLOOR)},
        again=read[FLOOR].features if again is not None else None,
        training=_read(judge, extractor, trained, str(training)).features if trained is not None else None,
        names={name: one.names for name, one in read.items()},
        known=judge.names,
        k=neighbours,
    )
    print(json.dumps(_with_paths(report, files, trained or []), ensure_ascii=False) if json_output else report.table())
    return 0


def _policies(a: Path, others: tuple[Path, ...], json_output: bool) -> int:
    from ornstein.evaluation import compare_results

    if len(others) != 1:
        raise DataError(f"policies are compared two at a time, got {1 + len(others)} folders")
    comparison = compare_results(a, others[0])
    print(json.dumps(comparison.to_json()) if json_output else comparison.table())
    return 0


def _with_paths(report: QualityReport, files: dict[str, list[Path]], trained: list[Path]) -> dict[str, Any]:
    """The report's JSON with the likeliest copies as files, to look at side by side."""
    result = report.to_json()
    for name, figures in result["sets"].items():
        for pair in figures["copies"]["closest"] if figures["copies"] else []:
            pair["drawn"], pair["training"] = str(files[name][pair["drawn"]]), str(trained[pair["training"]])
    return result


class _Set(NamedTuple):
    features: Features
    names: list[str]


def _read(judge: EmojiJudge, extractor: Extractor, files: list[Path], folder: str) -> _Set:
    from ornstein.core.progress import track

    starts = range(0, len(files), _BATCH)
    batches = track(iter(starts), len(starts), f"reading {folder}")
    features = extractor.extract(_batch(files[start : start + _BATCH], files[0]) for start in batches)
    return _Set(features, judge.first_names(features.values))


def _pictures(folder: Path) -> list[Path]:
    """The picture files of a folder by name; other files, and hidden ones, are none of our business."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _FORMATS and not path.name.startswith("."))
    if not found:
        raise DataError(f"{folder} holds no picture ({', '.join(_FORMATS)})")
    return found


def _batch(files: list[Path], reference: Path) -> NDArray[np.uint8]:
    pictures = [_picture(path) for path in files]
    size = _picture(reference).shape
    for path, picture in zip(files, pictures, strict=True):
        if picture.shape != size:
            raise DataError(
                f"pictures of one folder have one size: {reference} is {_said(size)}, {path} is {_said(picture.shape)}"
            )
    return np.stack(pictures)


def _said(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} × {shape[0]}"


def _picture(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 (height, width, 3). What would need a choice (what is behind transparency, which frame) is refused: it changes figures."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as opened:
            if opened.mode not in _MODES or opened.has_transparency_data or getattr(opened, "n_frames", 1) > 1:
                raise DataError(
                    f"{path} is no plain 8-bit picture (mode {opened.mode}, transparent or animated): save it as RGB first"
                )
            return np.array(opened.convert("RGB"))
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, TypeError, PIL.Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from error
