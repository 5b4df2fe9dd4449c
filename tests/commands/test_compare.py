"""`ornstein compare` on folders of real scenes, and on what people put into folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ornstein
from ornstein.cli import main
from ornstein.data.scenes import render, sample_scene
from ornstein.images import Extractor, kernel_distance


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def _scenes(seed: int, n: int = 8) -> np.ndarray:
    return np.stack([render(sample_scene(i, seed=seed, kind="single"), 64) for i in range(n)])


def _folder(path: Path, pictures: np.ndarray) -> Path:
    path.mkdir()
    for k, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{k:03}.png")
    (path / "captions.txt").write_text("not a picture")
    (path / ".hidden.png").write_text("neither")
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return _folder(tmp_path / "a", _scenes(90)), _folder(tmp_path / "b", _scenes(91))


def test_the_figures_are_those_of_the_library(capsys: pytest.CaptureFixture[str], two: tuple[Path, Path]) -> None:
    real, drawn = two
    code, out, _ = _run(capsys, real, drawn, "--again", real, "--json")
    assert code == 0
    report = json.loads(out)
    judge = ornstein.load("emoji-classifier")
    extractor = Extractor.of_judge(judge)
    expected = kernel_distance(extractor.extract(_scenes(90)), extractor.extract(_scenes(91)))
    figures = report["sets"][str(drawn)]
    assert figures["kernel"]["value"] == pytest.approx(expected.value, rel=1e-6)
    assert report["sets"]["real again (floor)"]["manifold"]["coverage"] == 1
    assert (report["n"], report["resize"]) == (8, "64 px, each pixel repeated 2 times")
    names = {sample_scene(i, seed=91, kind="single").objects[0].name for i in range(8)}
    missing = set(figures["modes"]["missing"])
    assert len(names - missing) >= len(names) - 2  # pixels that are repeated are another picture than the judge knows
    assert figures["frechet"] is None


def test_a_table_for_people(capsys: pytest.CaptureFixture[str], two: tuple[Path, Path]) -> None:
    code, out, _ = _run(capsys, *two)
    assert code == 0
    assert "kernel distance" in out
    assert "8 pictures a set; emoji-classifier@" in out
    assert "no floor" in out


def test_copies_are_named_as_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    n = 99
    real, training = _folder(tmp_path / "real", _scenes(94, n)), _folder(tmp_path / "training", _scenes(95, 20))
    pictures = _scenes(96, n)
    pictures[41] = _scenes(95, 8)[7]
    drawn = _folder(tmp_path / "drawn", pictures)
    code, out, _ = _run(capsys, real, drawn, "--training", training, "--json")
    assert code == 0
    sets = json.loads(out)["sets"]
    assert sets["real"]["copies"] is None
    nearest = sets[str(drawn)]["copies"]["closest"][0]
    assert (nearest["drawn"], nearest["training"]) == (str(drawn / "041.png"), str(training / "007.png"))
    assert nearest["distance"] == pytest.approx(0, abs=1e-4)


def test_different_numbers_are_refused(capsys: pytest.CaptureFixture[str], two: tuple[Path, Path]) -> None:
    (two[1] / "007.png").unlink()
    _refused(_run(capsys, *two), "holds 8 pictures", "holds 7", "take 7 of each")


def test_different_sizes_are_refused(capsys: pytest.CaptureFixture[str], two: tuple[Path, Path], tmp_path: Path) -> None:
    other = _folder(tmp_path / "other", np.repeat(_scenes(92), 2, 1).repeat(2, 2))
    _refused(_run(capsys, two[0], other), "another resize", "64 px", "128 px")
    Image.fromarray(_scenes(93, 1)[0][:32, :32]).save(two[1] / "003.png")
    _refused(_run(capsys, *two), "one size", "003.png is 32 × 32")


def test_damaged_files_are_named(capsys: pytest.CaptureFixture[str], two: tuple[Path, Path]) -> None:
    file = two[1] / "002.png"
    whole = file.read_bytes()
    for damaged in (b"", b"no picture at all", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        _refused(_run(capsys, *two), "002.png cannot be read as a picture")


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGBA", (64, 64), (0, 0, 0, 0)),
        Image.fromarray(np.zeros((64, 64), np.uint16)),
        Image.new("CMYK", (64, 64)),
        Image.new("RGBA", (64, 64), (0, 0, 0, 0)).quantize(),
    ],
)
def test_pictures_that_need_a_choice_are_refused(
    capsys: pytest.CaptureFixture[str], two: tuple[Path, Path], picture: Image.Image
) -> None:
    (two[1] / "002.png").unlink()
    picture.save(two[1] / ("002.jpg" if picture.mode == "CMYK" else "002.png"))
    _refused(_run(capsys, *two), "002", "no plain 8-bit picture")


def test_folders_that_are_not_there_or_empty_are_refused(
    capsys: pytest.CaptureFixture[str], two: tuple[Path, Path], tmp_path: Path
) -> None:
    _refused(_run(capsys, two[0], tmp_path / "nowhere"), "there is no folder")
    (tmp_path / "empty").mkdir()
    _refused(_run(capsys, two[0], tmp_path / "empty"), "holds no picture")
    _refused(_run(capsys, two[0]), "at least one folder")
    _refused(_run(capsys, two[0], two[1], "--neighbours", "8"), "more than k pictures")
    _refused(_run(capsys, two[0], two[1], "--training", two[1]), "at least 99")


def _refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
