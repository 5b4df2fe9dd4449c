from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest

from ornstein.assets import openmoji
from ornstein.core import DataError
from ornstein.data.lerobot_video import VideoEncoding, VideoJoin, VideoReader, encode

FAST = VideoEncoding(preset="ultrafast")


def numbered(length: int, first: int = 0) -> np.ndarray:
    """Pictures that say which they are: a brightness each."""
    return np.stack([np.full((16, 24, 3), 8 * (first + k) + 10, np.uint8) for k in range(length)])


def numbers(pictures: np.ndarray) -> list[int]:
    return [round((float(picture.mean()) - 10) / 8) for picture in pictures]


def joined(folder: Path, lengths: list[int], encoding: VideoEncoding = FAST) -> Path:
    video, first = VideoJoin(folder / "all.mp4", 5), 0
    for k, length in enumerate(lengths):
        part = folder / f"{k}.mp4"
        part.write_bytes(encode(numbered(length, first), 5, encoding))
        assert video.append(part) == length
        first += length
    video.close()
    return folder / "all.mp4"


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def drawings() -> tuple[np.ndarray, np.ndarray]:
    """Pictures with sixteen-pixel drawings on grey, and a mask of where they are."""
    pictures = np.full((6, 64, 64, 3), (236, 240, 245), np.float64)
    mask = np.zeros((6, 64, 64), bool)
    names = ["red apple", "banana", "frog", "strawberry", "blue heart", "ladybug"]
    for k, name in enumerate(names):
        stamp = openmoji.drawing(name, 16).astype(np.float64)
        x, y, alpha = 5 + 7 * k, 33 - 4 * k, stamp[..., 3:] / 255
        pictures[k, y : y + 16, x : x + 16] += alpha * (stamp[..., :3] - pictures[k, y : y + 16, x : x + 16])
        mask[k, y : y + 16, x : x + 16] = True
    return pictures.round().astype(np.uint8), mask


def decoded(content: bytes, folder: Path, count: int) -> np.ndarray:
    (folder / "v.mp4").write_bytes(content)
    return VideoReader(folder / "v.mp4", 5).read(0, count)


def test_drawings_of_sixteen_pixels_survive_and_would_not_with_halved_chroma(tmp_path: Path) -> None:
    pictures, mask = drawings()
    kept = decoded(encode(pictures, 5, VideoEncoding()), tmp_path, 6)
    assert psnr(pictures[mask], kept[mask]) > 36
    assert psnr(pictures, kept) > 44
    halved = decoded(encode(pictures, 5, VideoEncoding(pix_fmt="yuv420p", crf=0)), tmp_path, 6)
    assert psnr(pictures[mask], halved[mask]) < 32


def test_colours_come_back_as_themselves(tmp_path: Path) -> None:
    # A wrong matrix or range keeps greys and shifts saturated colours by tens.
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [250, 218, 94]], np.uint8)
    pictures = np.broadcast_to(colours[:, None, None], (6, 16, 16, 3))
    kept = decoded(encode(pictures, 5, VideoEncoding()), tmp_path, 6)
    assert np.abs(kept.astype(int) - pictures).max() <= 4


def test_the_same_pictures_give_the_same_bytes() -> None:
    assert encode(numbered(5), 5, FAST) == encode(numbered(5), 5, FAST)


def test_joined_episodes_keep_every_frame_in_its_place(tmp_path: Path) -> None:
    path = joined(tmp_path, [3, 1, 7, 4])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [float(frame.time) for frame in container.decode(stream)]
        assert (stream.frames, stream.codec_context.name, stream.pix_fmt) == (15, "h264", "yuv444p")
    np.testing.assert_allclose(times, np.arange(15) / 5, atol=1e-9)
    reader = VideoReader(path, 5)
    assert numbers(reader.read(0, 15)) == list(range(15))


@pytest.mark.parametrize("gop", [1, 2, 12])
def test_any_range_reads_as_in_one_go(tmp_path: Path, gop: int) -> None:
    path = joined(tmp_path, [9, 11], dataclasses.replace(FAST, gop=gop))
    reader = VideoReader(path, 5)
    whole = reader.read(0, 20)
    for start, count in [(0, 1), (19, 1), (8, 3), (3, 6), (8, 2), (9, 2), (11, 9), (2, 2), (4, 4), (0, 20)]:
        np.testing.assert_array_equal(reader.read(start, count), whole[start : start + count])


def test_a_range_past_the_end_and_a_gap_are_named(tmp_path: Path) -> None:
    reader = VideoReader(joined(tmp_path, [4]), 5)
    with pytest.raises(DataError, match=r"frame 4 of 2…5 is wanted, and the video ends"):
        reader.read(2, 4)
    assert numbers(reader.read(1, 2)) == [1, 2]  # and it still works
    with pytest.raises(DataError, match="wanted"):
        VideoReader(tmp_path / "all.mp4", 10).read(0, 4)


@pytest.mark.parametrize("keep", [0, 40, 600, -30])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = joined(tmp_path, [6, 6])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"all\.mp4"):
        VideoReader(path, 5).read(0, 12)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        VideoReader(tmp_path / "none.mp4", 5)
    (tmp_path / "text.mp4").write_text("not a video, though it says so")
    with pytest.raises(DataError, match="truncated or damaged"):
        VideoReader(tmp_path / "text.mp4", 5)
    (tmp_path / "sound.mp4").write_bytes(b"")
    join = VideoJoin(tmp_path / "out.mp4", 5)
    with pytest.raises(DataError, match="cannot read the recorded pictures"):
        join.append(tmp_path / "sound.mp4")


def test_episodes_encoded_differently_do_not_join(tmp_path: Path) -> None:
    join = VideoJoin(tmp_path / "out.mp4", 5)
    (tmp_path / "a.mp4").write_bytes(encode(numbered(2), 5, FAST))
    (tmp_path / "b.mp4").write_bytes(encode(numbered(2), 5, dataclasses.replace(FAST, pix_fmt="yuv420p")))
    join.append(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="other settings"):
        join.append(tmp_path / "b.mp4")
    join.close()


def test_settings_that_the_encoder_refuses() -> None:
    with pytest.raises(DataError, match="cannot encode pictures of 16×24"):
        encode(numbered(1), 5, dataclasses.replace(FAST, preset="lightning"))
    with pytest.raises(DataError, match="cannot encode"):
        encode(numbered(1), 5, dataclasses.replace(FAST, pix_fmt="rainbow"))
    with pytest.raises(DataError, match="cannot encode pictures of 15×24"):
        encode(numbered(1)[:, 1:], 5, dataclasses.replace(FAST, pix_fmt="yuv420p"))
