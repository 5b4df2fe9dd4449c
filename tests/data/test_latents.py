from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ornstein.core.errors import DataError
from ornstein.data.latents import build_latent_pictures, build_latent_scenes
from ornstein.data.scenes import Kind, render, sample_scene

SHARES: dict[Kind, float] = {"single": 0.3, "pair": 0.7}


def _encode(pixels: np.ndarray) -> np.ndarray:
    """Mean colour of each 8×8 cell, and its red channel again: a picture's position in the data can be checked."""
    cells = pixels.reshape(len(pixels), 16, 8, 16, 8, 3).mean((2, 4)) / 255
    return np.concatenate([cells, cells[..., :1]], axis=-1).transpose(0, 3, 1, 2).astype(np.float32)


def _encode_text(captions: list[str]) -> np.ndarray:
    ids = np.tile(np.arange(24, dtype=np.int32), (len(captions), 1))
    ids[:, 0] = [len(caption) for caption in captions]
    return ids


def _build(folder: Path, **changes: object) -> object:
    settings = {"count": 70, "seed": 3, "shares": SHARES, "jitter": 0.5, "autoencoder_fingerprint": "a" * 16}
    return build_latent_scenes(folder, **{**settings, "encode": _encode, "encode_text": _encode_text, **changes})  # type: ignore[arg-type]


def test_row_i_is_scene_i(tmp_path: Path) -> None:
    data = _build(tmp_path)
    assert len(data) == 70
    for i in (0, 63, 64, 69):
        scene = sample_scene(i, seed=3, shares=SHARES, jitter=0.5)
        np.testing.assert_allclose(data.latents[i], _encode(render(scene)[None])[0], atol=1e-3)
        assert data.pieces[i, 0] == len(scene.caption)


def test_a_second_call_reads_the_cache_and_another_autoencoder_makes_a_new_one(tmp_path: Path) -> None:
    first = _build(tmp_path)

    def refuse(pixels: np.ndarray) -> np.ndarray:
        raise AssertionError("the cache was not read")

    again = _build(tmp_path, encode=refuse)
    assert np.array_equal(first.latents, again.latents)
    with pytest.raises(AssertionError):
        _build(tmp_path, encode=refuse, autoencoder_fingerprint="b" * 16)
    with pytest.raises(AssertionError):
        _build(tmp_path, encode=refuse, jitter=0.0)
    with pytest.raises(AssertionError):
        _build(tmp_path, encode=refuse, shares={"single": 1.0})


def test_an_interrupted_or_damaged_cache_is_never_taken_for_whole(tmp_path: Path) -> None:
    def dies(pixels: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path, encode=dies)
    assert not list(tmp_path.glob("*.safetensors"))
    _build(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="damaged"):
        _build(tmp_path)


def test_row_i_is_picture_i_and_mirrored_ones_follow(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 128, 128, 3), dtype=np.uint8)
    captions = [f"{'x' * k}" for k in range(1, 71)]
    most = 0

    def encode(pictures: np.ndarray) -> np.ndarray:
        nonlocal most
        most = max(most, len(pictures))
        return _encode(pictures)

    settings = {
        "pixels": pixels,
        "captions": captions,
        "data_fingerprint": "d",
        "autoencoder_fingerprint": "a",
        "encode_text": _encode_text,
    }
    data = build_latent_pictures(tmp_path, flip=True, encode=encode, **settings)  # type: ignore[arg-type]
    assert len(data) == 140
    assert most == 64  # however many pictures there are
    for row in (0, 63, 64, 69, 70, 139):
        picture = pixels[row] if row < 70 else pixels[row - 70][:, ::-1]
        np.testing.assert_allclose(data.latents[row], _encode(picture[None])[0], atol=1e-3)
        assert data.pieces[row, 0] == row % 70 + 1

    def refuse(pictures: np.ndarray) -> np.ndarray:
        raise AssertionError("the cache was not read")

    again = build_latent_pictures(tmp_path, flip=True, encode=refuse, **settings)  # type: ignore[arg-type]
    assert np.array_equal(again.latents, data.latents)
    for changes in (
        {"flip": False},
        {"data_fingerprint": "e"},
        {"autoencoder_fingerprint": "b"},
        {"captions": ["y", *captions[:-1]]},
    ):
        with pytest.raises(AssertionError, match="not read"):
            build_latent_pictures(tmp_path, **{"flip": True, "encode": refuse, **settings, **changes})  # type: ignore[arg-type]
