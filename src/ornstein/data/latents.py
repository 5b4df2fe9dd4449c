"""Scenes, or pictures of one's own, turned into latents and text features once: then training a text-to-image model reads numbers only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError
from ornstein.data.scenes import render, sample_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.data.scenes import Kind

    Pixels = NDArray[np.uint8]
    Encode = Callable[[Pixels], NDArray[np.float32]]
    EncodeText = Callable[[Sequence[str]], NDArray[np.int32]]
    Track = Callable[[Iterator[int], int], Iterator[int]]

_CHUNK = 64
_SAMPLED = 32


@dataclass(frozen=True)
class LatentScenes:
    """N scenes of a stream as arrays, in stream order, or N pictures of a folder.

    latents: float16 (N, 4, 16, 16), standardised. pieces: int32 (N, L), −1 beyond the end.
    """

    latents: NDArray[np.float16]
    pieces: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.latents)


def build_latent_scenes(
    folder: Path,
    *,
    count: int,
    seed: int,
    shares: Mapping[Kind, float],
    jitter: float,
    autoencoder_fingerprint: str,
    encode: Encode,
    encode_text: EncodeText,
    track: Track = lambda chunks, total: chunks,
) -> LatentScenes:
    """Read the cache in `folder`, or render and encode `count` training scenes and write it.

    The file is named by what it was made from (count, seed, shares, jitter, autoencoder, and the first scenes' pictures and word pieces,
    which stand for this version of grammar, drawings and tokenizer), so that a stale cache is not read; it appears by a rename once
    complete.

    Args:
        shares, jitter: see `sample_scene`.
        encode: pictures uint8 (B, 128, 128, 3) → latents float32 (B, 4, 16, 16).
        encode_text: captions → piece numbers (B, L), −1 beyond the end.
        track: wraps the iteration over chunks of 64 scenes, for a progress bar; gets the iterator and its length.
    """
    if count < 1:
        raise DataError(f"a latent data set needs at least one scene, got {count}")
    digest = hashlib.sha256(json.dumps([count, seed, dict(shares), jitter, autoencoder_fingerprint]).encode())

    def chunk(indices: range) -> tuple[Pixels, NDArray[np.int32]]:
        scenes = [sample_scene(i, seed=seed, shares=shares, jitter=jitter) for i in indices]
        return np.stack([render(scene) for scene in scenes]), encode_text([scene.caption for scene in scenes])

    for array in chunk(range(_SAMPLED)):
        digest.update(np.ascontiguousarray(array).tobytes())
    path = folder / f"latent-scenes-{digest.hexdigest()[:16]}.safetensors"
    return _cached(path, count, chunk, encode, track)


def build_latent_pictures(
    folder: Path,
    *,
    pixels: Pixels,
    captions: Sequence[str],
    data_fingerprint: str,
    autoencoder_fingerprint: str,
    encode: Encode,
    encode_text: EncodeText,
    flip: bool = False,
    track: Track = lambda chunks, total: chunks,
) -> LatentScenes:
    """The same for pictures (N, side, side, 3), which are read chunk by chunk: an array on disk is never held in memory whole.

    Args:
        data_fingerprint: of pictures and captions, part of the cache's name.
        flip: every picture comes again mirrored, with the same caption, as row N + i.
    """
    count = len(captions)
    if count < 1 or len(pixels) != count:
        raise DataError(f"a latent data set needs pictures and as many captions, got {len(pixels)} and {count}")
    digest = hashlib.sha256(json.dumps([data_fingerprint, pixels.shape[1:], autoencoder_fingerprint, flip]).encode())
    digest.update(np.ascontiguousarray(encode_text(captions)).tobytes())

    def chunk(indices: range) -> tuple[Pixels, NDArray[np.int32]]:
        drawn = [pixels[i] if i < count else pixels[i - count][:, ::-1] for i in indices]
        return np.stack(drawn), encode_text([captions[i % count] for i in indices])

    path = folder / f"latent-pictures-{digest.hexdigest()[:16]}.safetensors"
    return _cached(path, 2 * count if flip else count, chunk, encode, track)


def _cached(
    path: Path, count: int, chunk: Callable[[range], tuple[Pixels, NDArray[np.int32]]], encode: Encode, track: Track
) -> LatentScenes:
    """What the file holds; it is made first where it is missing. chunk: rows' numbers → their pictures and word pieces."""
    if not path.exists():
        latents, pieces = [], []
        for start in track(iter(range(0, count, _CHUNK)), -(-count // _CHUNK)):
            pixels, ids = chunk(range(start, min(start + _CHUNK, count)))
            latents.append(encode(pixels).astype(np.float16))
            pieces.append(ids)
        # safetensors writes the memory as it lies: another than C order would be read back scrambled.
        arrays = {"latents": np.concatenate(latents), "pieces": np.concatenate(pieces)}
        _write(path, {name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return _read(path, count)


def _write(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    temporary = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot write the latent cache {path}: {reason}; free some space or choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _read(path: Path, count: int) -> LatentScenes:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        data = LatentScenes(arrays["latents"], arrays["pieces"])
    except (SafetensorError, KeyError, OSError) as error:
        raise DataError(f"the latent cache {path} is damaged ({error}): delete it, it will be made again") from error
    if len(data) != count:
        raise DataError(f"the latent cache {path} holds {len(data)} scenes instead of {count}: delete it")
    return data
