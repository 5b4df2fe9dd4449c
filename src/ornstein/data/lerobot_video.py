"""Camera streams as H.264 in MP4: encode an episode, join episodes without encoding again, read a range of frames.

Measured on the tabletop's 128-pixel pictures (PSNR of the whole picture / of 20 × 20 pixels around the named block; bytes a
frame, two frames a group, preset medium):

    yuv420p crf 18   37.8 / 29.6 dB   1,472      yuv444p crf 16   44.2 / 37.0 dB   1,672
    yuv420p crf 0    38.8 / 30.5 dB   2,519      yuv444p crf 14   45.6 / 38.7 dB   1,867
                                                 yuv444p crf 12   46.8 / 40.4 dB   2,095

By default preset superfast: less than half the time of medium, 47.6 against 46.9 dB over whole episodes, a fifth more bytes.

Halved chroma smears a drawing of sixteen pixels, and no bit rate mends it: hence yuv444p. Each episode begins with a key frame
and has no B-frames, so that episodes join by copying packets and frame k is shown at k / fps exactly.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import PIL.Image
from av.video.reformatter import VideoReformatter

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_CODEC = "libx264"


@dataclass(frozen=True)
class VideoEncoding:
    """How pictures become packets.

    pix_fmt: "yuv444p" keeps every pixel's colour; "yuv420p" is what web browsers play. crf: 0 (best) … 51.
    gop: frames from one key frame to the next; few make seeking cheap. preset: x264's, effort against size.
    """

    pix_fmt: str = "yuv444p"
    crf: int = 12
    gop: int = 2
    preset: str = "superfast"

    def info(self, height: int, width: int, fps: int) -> dict[str, Any]:
        """What info.json says about such a stream."""
        return {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": self.pix_fmt,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
            "video.g": self.gop,
            "video.crf": self.crf,
            "video.preset": self.preset,
            "video.fast_decode": 0,
            "video.video_backend": "pyav",
            "video.extra_options": {},
            "is_depth_map": False,
        }


def encode(frames: NDArray[np.uint8], fps: int, encoding: VideoEncoding) -> bytes:
    """An MP4 of pictures (T, height, width, 3), RGB. The same pictures give the same bytes.

    Raises:
        DataError: the encoder refuses the size or the settings.
    """
    memory = io.BytesIO()  # libav hides the system's error code when it writes by itself
    # One thread: with more, x264's rate control depends on how many cores there are.
    options = {"crf": str(encoding.crf), "preset": encoding.preset, "g": str(encoding.gop), "bf": "0", "threads": "1"}
    options["x264-params"] = "colormatrix=smpte170m"  # the matrix that swscale converts with; unnamed, players guess by size
    try:
        with av.open(memory, "w", format="mp4") as container:
            stream: Any = container.add_stream(_CODEC, rate=fps, options=options)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = encoding.pix_fmt
            for picture in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        size = "×".join(map(str, frames.shape[1:3]))
        raise DataError(f"cannot encode pictures of {size} pixels with {encoding}: {error}") from error
    return memory.getvalue()


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture (height, width, 3) as a PNG."""
    memory = io.BytesIO()
    PIL.Image.fromarray(picture).save(memory, "PNG", compress_level=4)
    return memory.getvalue()


def from_png(content: bytes) -> NDArray[np.uint8]:
    """The inverse, of any format that Pillow knows.

    Raises:
        ValueError: it does not decode.
    """
    try:
        with PIL.Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, PIL.Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"a picture does not decode: {error}") from error


def cut(path: Path, start: int, count: int, fps: int) -> bytes | None:
    """Frames start … start + count − 1 of a video as an MP4 of its own, packet by packet; None where that takes encoding anew: they
    do not begin with a key frame, or are not stored in the order in which they are shown.

    Raises:
        DataError: it does not read, or ends before.
    """
    memory = io.BytesIO()
    try:
        with av.open(str(path)) as source, av.open(memory, "w", format="mp4") as container:
            stream = source.streams.video[0]
            copy = container.add_stream_from_template(stream)
            base = stream.time_base or Fraction(1, fps)
            source.seek(round(Fraction(start, fps) / base), stream=stream, backward=True)
            taken = 0
            for packet in source.demux(stream):
                number = None if packet.pts is None else round(packet.pts * base * fps)
                if packet.dts is None or number is None or number < start:
                    continue
                if number != start + taken or (taken == 0 and not packet.is_keyframe):
                    return None
                packet.time_base, packet.stream = Fraction(1, fps), copy
                packet.pts = packet.dts = taken
                packet.duration = 1
                container.mux(packet)
                taken += 1
                if taken == count:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise DataError(f"cannot read the video {path}: {error}; it is truncated or damaged") from error
    if taken < count:
        raise DataError(f"{path}: frames {start} … {start + count - 1} are wanted, and the video ends at {start + taken}")
    return memory.getvalue()


class VideoJoin:
    """One MP4 out of several that `encode` made with the same settings, by copying their packets."""

    def __init__(self, path: Path, fps: int) -> None:
        self.path, self.frames = path, 0
        self._fps, self._header = fps, b""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream: Any = None

    def fits(self, part: Path) -> bool:
        """Whether an episode was encoded with the settings of those before it.

        Raises:
            DataError: it does not read.
        """
        try:
            with av.open(str(part)) as source:
                return self._stream is None or bytes(source.streams.video[0].codec_context.extradata or b"") == self._header
        except (av.FFmpegError, IndexError) as error:
            raise DataError(f"cannot read the recorded pictures {part}: {error}") from error

    def append(self, part: Path) -> int:
        """Add an episode's pictures at the end; how many they are.

        Raises:
            DataError: it does not read, or was encoded with other settings than the first. OSError: writing failed.
        """
        try:
            with av.open(str(part)) as source:
                stream = source.streams.video[0]
                header = bytes(stream.codec_context.extradata or b"")
                if self._stream is None:
                    self._stream, self._header = self._out.add_stream_from_template(stream), header
                packets = [packet for packet in source.demux(stream) if packet.dts is not None]  # the last one is an end mark
        except (av.FFmpegError, IndexError) as error:
            raise DataError(f"cannot read the recorded pictures {part}: {error}") from error
        if header != self._header:
            raise DataError(f"{part} was encoded with other settings than the episodes before it")
        for packet in packets:
            packet.time_base = Fraction(1, self._fps)
            packet.pts = packet.dts = self.frames
            packet.duration = 1
            packet.stream = self._stream
            self._out.mux(packet)
            self.frames += 1
        return len(packets)

    def close(self) -> None:
        """Write the index; without it the file is unreadable."""
        self._out.close()


class VideoReader:
    """Frames of one video by number. Reading on from where the last call stopped costs no seek. For one thread at a time."""

    def __init__(self, path: Path, fps: int) -> None:
        """
        Raises:
            DataError: missing, truncated, or not a video.
        """
        self.path, self._fps = path, fps
        if not path.is_file():
            raise DataError(f"the video {path} is missing")
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise DataError(f"cannot open the video {path}: {error}; it is truncated or damaged") from error
        self._stream.thread_count = 1
        self.height, self.width = self._stream.codec_context.height, self._stream.codec_context.width
        self.frames = int(self._stream.frames)  # as its index says; reading is what proves it
        self._converter = VideoReformatter()  # kept: a new one for each frame would double the cost of reading
        self._decoded: Iterator[av.VideoFrame] | None = None
        self._next = 0

    def read(self, start: int, count: int) -> NDArray[np.uint8]:
        """Frames start … start + count − 1: uint8 (count, height, width, 3), RGB.

        Raises:
            DataError: the video ends before, skips a frame, or does not decode.
        """
        out = np.empty((count, self.height, self.width, 3), np.uint8)
        done = 0
        try:
            if self._decoded is None or start != self._next:
                self._seek(start)
            while done < count:
                frame = next(self._decoded, None) if self._decoded is not None else None
                number = None if frame is None else self._number(frame)
                if frame is not None and number is not None and number < start:
                    continue  # from the key frame up to where we want to be
                if frame is None or number != start + done:
                    self._decoded = None
                    found = "the video ends" if frame is None else f"frame {number} comes"
                    raise DataError(f"{self.path}: frame {start + done} of {start}…{start + count - 1} is wanted, and {found}")
                out[done] = self._converter.reformat(frame, format="rgb24").to_ndarray()
                done += 1
        except DataError:
            raise
        except (av.FFmpegError, ValueError) as error:
            self._decoded = None
            raise DataError(f"{self.path}: frame {start + done} does not decode ({error}); the file is damaged") from error
        self._next = start + count
        return out

    def close(self) -> None:
        """Close the file."""
        self._decoded = None
        self._container.close()

    def _seek(self, start: int) -> None:
        base = self._stream.time_base or Fraction(1, self._fps)
        self._container.seek(round(Fraction(int(start), self._fps) / base), stream=self._stream, backward=True)
        self._decoded = self._container.decode(self._stream)

    def _number(self, frame: av.VideoFrame) -> int | None:
        return None if frame.pts is None or frame.time_base is None else round(frame.pts * frame.time_base * self._fps)
