"""Folders as people have them: every form of caption, every kind of picture, every defect."""

from __future__ import annotations

import io
import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ornstein.core.errors import DataError
from ornstein.data.picture_folder import list_folder
from ornstein.data.pictures import ENLARGED, FIRST_FRAME, contact_sheet, read_square, spread
from ornstein.data.prepared_pictures import PreparedPictures, prepare_pictures, summary

RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)


def _save(path: Path, color: object = RED, size: tuple[int, int] = (40, 40), mode: str = "RGB", **settings: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **settings)  # type: ignore[arg-type]
    return path


def _captions(folder: Path) -> dict[str, str]:
    return {picture.name: picture.caption for picture in list_folder(folder).pictures}


def _reasons(folder: Path) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in list_folder(folder).skipped}


def _prepare(folder: Path, tmp_path: Path) -> PreparedPictures:
    return prepare_pictures(folder, tmp_path / "cache", 32)


# Captions


def test_a_text_beside_a_picture_is_its_caption_from_its_first_line(tmp_path: Path) -> None:
    _save(tmp_path / "a.PNG")
    (tmp_path / "a.txt").write_bytes("\ufeff  a red\tsquare \nsecond line\n".encode())
    _save(tmp_path / "sub" / "b.jpg")
    (tmp_path / "sub" / "b.txt").write_text("\n \ngrößer 红色", encoding="utf-8")
    assert _captions(tmp_path) == {"a.PNG": "a red square", "sub/b.jpg": "größer 红色"}
    assert not list_folder(tmp_path).skipped


def test_metadata_name_files_and_captions(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "deep/c.png", "d.png"):
        _save(tmp_path / name)
    rows = [
        {"file_name": "a.png", "text": "one", "caption": "not this", "score": 3},
        {"file_name": "b.png", "caption": "two"},
        {"file_name": "./deep/c.png", "text": "three"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    # With the mark of byte order that spreadsheets write.
    (tmp_path / "metadata.csv").write_text('\ufefffile_name,text\nd.png,"four,\nand more"\n')
    assert _captions(tmp_path) == {"a.png": "one", "b.png": "two", "deep/c.png": "three", "d.png": "four, and more"}


def test_metadata_of_a_sub_folder_are_relative_to_it(tmp_path: Path) -> None:
    _save(tmp_path / "train" / "a.png")
    (tmp_path / "train" / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "one"}))
    assert _captions(tmp_path) == {"train/a.png": "one"}


def test_a_sub_folder_names_the_pictures_in_it(tmp_path: Path) -> None:
    _save(tmp_path / "golden_retriever" / "1.jpg")
    _save(tmp_path / "train" / "sea-otter" / "1.jpg")
    _save(tmp_path / "no class.jpg")
    assert _captions(tmp_path) == {"golden_retriever/1.jpg": "golden retriever", "train/sea-otter/1.jpg": "sea otter"}
    assert _reasons(tmp_path) == {"no class.jpg": "has no caption"}


def test_the_text_goes_before_the_row_and_the_row_before_the_sub_folder(tmp_path: Path) -> None:
    for name in ("x/a.png", "x/b.png", "y/c.png"):
        _save(tmp_path / name)
    (tmp_path / "x" / "a.txt").write_text("text")
    rows = [{"file_name": "x/a.png", "text": "row a"}, {"file_name": "x/b.png", "text": "row b"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert _captions(tmp_path) == {"x/a.png": "text", "x/b.png": "row b", "y/c.png": "y"}
    sources = {picture.name: picture.source for picture in list_folder(tmp_path).pictures}
    assert sources == {"x/a.png": ".txt", "x/b.png": "metadata", "y/c.png": "sub-folder"}


def test_a_forgotten_caption_is_not_made_up_from_the_folder(tmp_path: Path) -> None:
    for name in ("pictures/a.png", "pictures/b.png"):
        _save(tmp_path / name)
    (tmp_path / "pictures" / "a.txt").write_text("a square")
    assert _captions(tmp_path) == {"pictures/a.png": "a square"}
    assert _reasons(tmp_path) == {"pictures/b.png": "has no caption"}


def test_captions_without_pictures_and_broken_rows_are_listed(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        _save(tmp_path / name)
    (tmp_path / "gone.txt").write_text("no picture of that name")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00\x41")
    (tmp_path / "c.txt").write_text(" \n\u200b\n")
    lines = [
        "{not json",
        "[1]",
        '{"text": "nameless"}',
        '{"file_name": "gone.png", "text": "x"}',
        '{"file_name": "../a.png", "text": "x"}',
    ]
    lines += ['{"file_name": "a.png", "text": ["x"]}', '{"file_name": "a.png", "text": "\\ud800"}']
    lines += ['{"file_name": "a.png", "text": "good"}', '{"file_name": "a.png", "text": "again"}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert _captions(tmp_path) == {"a.png": "good"}
    reasons = _reasons(tmp_path)
    assert reasons["gone.txt"] == "is a caption without a picture"
    assert "UTF-8" in reasons["b.txt"]
    assert reasons["c.txt"] == "is an empty caption"
    for number, said in ((1, "no row"), (2, "no row"), (3, "no row"), (4, "without a picture"), (5, "without a picture")):
        assert said in reasons[f"metadata.jsonl line {number}"]
    for number, said in ((6, "no text"), (7, "no text"), (9, "second caption")):
        assert said in reasons[f"metadata.jsonl line {number}"]
    assert {reasons["b.png"], reasons["c.png"]} == {"has no caption"}
    assert len(reasons) == 13


def test_names_in_another_normal_form_are_found(tmp_path: Path) -> None:
    _save(tmp_path / unicodedata.normalize("NFD", "é 猫.png"))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": unicodedata.normalize("NFC", "é 猫.png"), "text": "a cat"}))
    assert list(_captions(tmp_path).values()) == ["a cat"]


def test_links_in_circles_pipes_hidden_files_and_odd_bytes_end_no_scan(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    _save(folder / "cat" / "1.png")
    _save(elsewhere / "2.png")
    (folder / "cat" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "linked dog").symlink_to(elsewhere, target_is_directory=True)
    (folder / "broken.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "._1.png").write_bytes(b"x")
    (folder / ".git").mkdir()
    _save(folder / ".git" / "3.png")
    (folder / "film.MP4").write_bytes(b"x")
    os.rename(_save(folder / "cat" / "odd.png", BLUE), os.fsencode(folder / "cat") + b"/\xff.png")
    listing = list_folder(folder)
    assert sorted(picture.caption for picture in listing.pictures) == ["cat", "cat", "linked dog"]
    assert {skipped.name for skipped in listing.skipped} == {"broken.png", "pipe.png"}
    assert listing.others == {".mp4": 1}
    json.dumps(_prepare(folder, tmp_path).report()).encode()


def test_no_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder of pictures"):
        list_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="that is a file"):
        list_folder(_save(tmp_path / "a.png"))


# Pictures


def test_every_kind_of_picture_comes_as_it_looks(tmp_path: Path) -> None:
    def color(path: Path) -> list[int]:
        return read_square(path, 32)[0][16, 16].tolist()

    assert color(_save(tmp_path / "a.png", GREEN)) == list(GREEN)
    assert color(_save(tmp_path / "a.bmp", GREEN)) == list(GREEN)
    assert color(_save(tmp_path / "a.webp", GREEN, lossless=True)) == list(GREEN)
    assert color(_save(tmp_path / "a.tiff", GREEN)) == list(GREEN)
    assert color(_save(tmp_path / "a.gif", 0, mode="P")) == [0, 0, 0]
    assert color(_save(tmp_path / "grey.png", 90, mode="L")) == [90] * 3
    assert color(_save(tmp_path / "one bit.png", 1, mode="1")) == [255] * 3
    assert color(_save(tmp_path / "clear.png", (*RED, 0), mode="RGBA")) == [255] * 3
    assert np.abs(np.array(color(_save(tmp_path / "half.png", (*RED, 128), mode="RGBA"))) - [255, 127, 127]).max() <= 1
    # Cyan ink takes red away: C = 255 is (0, 255, 255).
    assert np.abs(np.array(color(_save(tmp_path / "cmyk.jpg", (255, 0, 0, 0), mode="CMYK"))) - [0, 255, 255]).max() <= 4
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([*RED, *GREEN])
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "clear palette.png", transparency=1)
    assert color(tmp_path / "palette.png") == list(GREEN)
    assert color(tmp_path / "clear palette.png") == [255] * 3
    Image.fromarray(np.full((40, 40), 90 * 257, np.uint16)).save(tmp_path / "deep.png")
    assert color(tmp_path / "deep.png") == [90] * 3
    os.rename(_save(tmp_path / "x.jpg", GREEN, quality=100), tmp_path / "really a jpeg.png")
    assert np.abs(np.array(color(tmp_path / "really a jpeg.png")) - GREEN).max() <= 4


def test_the_middle_is_taken_upright(tmp_path: Path) -> None:
    """A wide picture, blue at the left and red at the right, stored lying on its side as cameras do."""
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, :64], wide[:, 64:128], wide[:, 128:] = BLUE, GREEN, RED
    wide[:32, 64:128] = 255
    upright = Image.fromarray(wide)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    pixels, said = read_square(tmp_path / "turned.png", 64)
    assert np.array_equal(pixels, wide[:, 64:128])
    assert said == ()


def test_reducing_averages_instead_of_picking(tmp_path: Path) -> None:
    checks = np.indices((512, 512)).sum(0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "checks.png")
    pixels, _ = read_square(tmp_path / "checks.png", 32)
    assert np.abs(pixels.astype(int) - 127).max() <= 2


def test_a_large_jpeg_decoded_small_looks_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large = Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).resize((900, 1200), Image.Resampling.BICUBIC)
    large.save(tmp_path / "a.jpg", quality=95)
    large.save(tmp_path / "a.png")
    pixels = [read_square(tmp_path / name, 64)[0].astype(int) for name in ("a.jpg", "a.png")]
    assert np.abs(pixels[0] - pixels[1]).mean() < 2


def test_animations_give_their_first_picture_and_small_ones_grow(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in (RED, BLUE)]
    for name in ("a.gif", "a.webp", "a.png", "a.tiff"):
        settings = {} if name.endswith("tiff") else {"duration": 100}
        if name == "a.webp":
            settings["lossless"] = True
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **settings)
        pixels, said = read_square(tmp_path / name, 64)
        assert pixels[32, 32].tolist() == list(RED), name
        assert said == (FIRST_FRAME, ENLARGED)
    # A phone's JPEG with a second, smaller view of the same scene is no animation.
    frames[0].save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=frames[1:], quality=100)
    assert read_square(tmp_path / "phone.jpg", 40)[1] == ()


def test_what_cannot_be_used_says_why(tmp_path: Path) -> None:
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(good, "JPEG")
    (tmp_path / "truncated.jpg").write_bytes(good.getvalue()[: len(good.getvalue()) // 2])
    whole = _save(tmp_path / "x.png", size=(300, 300)).read_bytes()
    (tmp_path / "truncated.png").write_bytes(whole[:60])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("<html>not found</html>")
    _save(tmp_path / "small.png", size=(100, 31))
    Image.fromarray(np.zeros((40, 40), np.float32)).save(tmp_path / "float.tiff")
    Image.new("1", (12_000, 12_000)).save(tmp_path / "bomb.png")
    for name, reason in (
        ("truncated.jpg", "is cut short or damaged"),
        ("truncated.png", "is cut short or damaged"),
        ("empty.png", "is empty"),
        ("text.png", "is no picture in a format that is read"),
        ("small.png", r"is too small \(100 × 31"),
        ("float.tiff", "floating point"),
        ("bomb.png", "90 million pixels"),
        ("nowhere.png", "is cut short or damaged"),
    ):
        with pytest.raises(DataError, match=reason):
            read_square(tmp_path / name, 32)


def test_a_contact_sheet_holds_the_pictures_in_reading_order() -> None:
    pictures = np.arange(11, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    sheet = np.asarray(contact_sheet(pictures, columns=4))
    assert sheet.shape == (12, 16, 3)
    assert sheet[::4, ::4, 0].ravel().tolist() == [*range(11), 255]
    assert contact_sheet(pictures[:3], columns=4).size == (12, 4)
    assert spread(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert spread(17, 4).tolist() == [0, 4, 8, 12]


# Prepared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five good pictures (two of the same bytes, one animated) and a defect of each of three kinds."""
    folder = tmp_path / "My pictures"
    for k in range(3):
        _save(folder / "stripes" / f"{k}.png", (k * 40, 10, 200), size=(50, 40))
    shutil.copy(folder / "stripes" / "0.png", folder / "stripes" / "copy.png")
    frames = [Image.new("RGB", (40, 40), color) for color in (RED, BLUE)]
    frames[0].save(folder / "stripes" / "film.gif", save_all=True, append_images=frames[1:])
    (folder / "stripes" / "empty.png").write_bytes(b"")
    (folder / "stripes" / "cut.jpg").write_bytes(_save(tmp_path / "x.jpg", size=(200, 200)).read_bytes()[:400])
    _save(folder / "alone.png")
    return folder


def test_good_pictures_are_kept_in_an_order_of_their_bytes_and_the_rest_is_reported(folder: Path, tmp_path: Path) -> None:
    prepared = _prepare(folder, tmp_path)
    assert len(prepared) == 5
    assert prepared.pixels.shape == (5, 32, 32, 3)
    for row, picture in enumerate(prepared.listing.pictures):
        assert np.array_equal(prepared.pixels[row], read_square(folder / picture.name, 32)[0])
    report = prepared.report()
    assert report["folder"] == "My pictures"
    assert report["skipped"] == len(report["skipped_files"]) == 3
    assert report["reasons"] == {"is empty": 1, "is cut short or damaged": 1, "has no caption": 1}
    assert {entry["file"] for entry in report["skipped_files"]} == {"stripes/empty.png", "stripes/cut.jpg", "alone.png"}
    assert report["duplicates"] == 1
    assert report["remarks"] == {FIRST_FRAME: 1}
    assert str(tmp_path) not in json.dumps(report)
    lines = "\n".join(summary(report))
    for said in ("5 pictures with 1 different captions", "3 skipped", "stripes/cut.jpg is cut short", "1 of them repeat"):
        assert said in lines


def test_a_second_look_decodes_nothing_and_renaming_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _prepare(folder, tmp_path)

    def refuse(path: Path, side: int) -> None:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr("ornstein.data.prepared_pictures.read_square", refuse)
    (folder / "stripes" / "2.png").rename(folder / "stripes" / "renamed.png")
    again = _prepare(folder, tmp_path)
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.pixels, first.pixels)
    for row, picture in enumerate(again.listing.pictures):
        assert np.array_equal(again.pixels[row], read_square(folder / picture.name, 32)[0])
    assert {skipped.name for skipped in again.listing.skipped} == {skipped.name for skipped in first.listing.skipped}
    (folder / "stripes" / "2.txt").write_text("another caption")
    (folder / "stripes" / "renamed.png").rename(folder / "stripes" / "2.png")
    with pytest.raises(AssertionError, match="was read again"):
        _prepare(folder, tmp_path)


def test_captions_and_bytes_change_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    first = _prepare(folder, tmp_path).fingerprint
    (folder / "stripes").rename(folder / "dots")
    second = _prepare(folder, tmp_path).fingerprint
    _save(folder / "dots" / "1.png", GREEN)
    third = _prepare(folder, tmp_path).fingerprint
    assert len({first, second, third}) == 3
    (folder / "dots" / "another cut.jpg").write_bytes((folder / "dots" / "cut.jpg").read_bytes()[:300])
    assert _prepare(folder, tmp_path).fingerprint == third  # what is skipped is not trained on


def test_a_damaged_or_interrupted_cache_is_never_taken_for_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(path: Path, side: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ornstein.data.prepared_pictures.read_square", dies)
        with pytest.raises(KeyboardInterrupt):
            _prepare(folder, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
    _prepare(folder, tmp_path)
    (pixels,) = (tmp_path / "cache").glob("*.rgb")
    whole = pixels.read_bytes()
    for damaged in (whole[:-1], whole + whole[:3072]):
        pixels.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            _prepare(folder, tmp_path)


def test_nothing_usable_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="an empty folder"):
        _prepare(tmp_path / "nothing", tmp_path).require_some()
    _save(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "b.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"metadata\.jsonl.*found 1 × 'has no caption', 1 × files of kind \.heic"):
        _prepare(tmp_path / "data", tmp_path).require_some()
