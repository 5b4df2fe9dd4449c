from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from ornstein.evaluation.videos import write_video


def _read(path: Path) -> tuple[np.ndarray, float, str, str]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        return frames, float(stream.average_rate), stream.codec_context.name, stream.codec_context.pix_fmt


def _frames(count: int, height: int = 96, width: int = 144) -> list[np.ndarray]:
    """A light square that moves over a dark ground, smooth enough for a codec."""
    frames = []
    for k in range(count):
        frame = np.full((height, width, 3), 40, np.uint8)
        frame[24:48, 12 * k : 12 * k + 24] = (220, 60, 30)
        frames.append(frame)
    return frames


def test_a_video_shows_the_frames_in_order_and_holds_the_last(tmp_path: Path) -> None:
    frames = _frames(6)
    write_video(tmp_path / "a.mp4", frames, "pick up the key", 5.0)
    seen, rate, codec, pixel_format = _read(tmp_path / "a.mp4")
    assert (codec, pixel_format, rate) == ("h264", "yuv420p", 5.0)
    assert seen.shape == (6 + 5, 96 + 36, 144, 3)
    for k, frame in enumerate(frames):
        assert np.abs(seen[k, 36:].astype(float) - frame).mean() < 6
    assert np.abs(seen[6:].astype(float) - seen[5]).mean() < 2


def test_the_caption_is_written_and_fits(tmp_path: Path) -> None:
    band = {}
    for name, caption in {"none": "", "short": "get the key", "long": "please " * 12 + "pick up the key"}.items():
        write_video(tmp_path / f"{name}.mp4", _frames(1), caption, 5.0)
        seen = _read(tmp_path / f"{name}.mp4")[0]
        band[name] = seen[0, :36].astype(int).min(axis=(0, 2)) < 128
    assert not band["none"].any()
    assert band["short"].any()
    assert not band["short"][:6].any()
    assert not band["short"][-6:].any()
    assert band["long"].sum() > band["short"].sum()


def test_odd_sizes_are_made_even(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", _frames(2, height=99, width=141), "x", 5.0)
    assert _read(tmp_path / "a.mp4")[0].shape[1:3] == (99 + 36 - 1, 141 - 1)


@pytest.mark.parametrize("rate", [5.0, 12.5])
def test_the_control_rate_is_the_frame_rate(tmp_path: Path, rate: float) -> None:
    write_video(tmp_path / "a.mp4", _frames(3), "x", rate)
    frames, seen, *_ = _read(tmp_path / "a.mp4")
    assert seen == rate
    assert len(frames) == 3 + round(rate)
