"""`ornstein sample` with a tiny untrained model: what is written, what it says of itself, what stays and what goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ornstein.cli import main
from ornstein.core.checkpoint import read_checkpoint, write_checkpoint
from ornstein.core.errors import DataError
from ornstein.diffusion import NoiseSchedule
from ornstein.images import TextToImageConfig, TextToImagePipeline
from ornstein.images.provenance import Provenance, read_provenance, write_picture
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig
from ornstein.networks.dit import DiT, DiTConfig

NETWORK = DiTConfig(width=32, depth=1, heads=2)
STAGE = AutoencoderConfig(quarter_channels=8, eighth_channels=8, encoder_blocks=1, decoder_blocks=1)
Draw = Callable[..., tuple[int, str, str]]


def _checkpoint(folder: Path, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        denoiser, autoencoder = DiT(NETWORK), Autoencoder(STAGE)
        with torch.no_grad():
            for parameter in denoiser.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    common: dict[str, Any] = {"provenance": {}, "card": "test"}
    tensors = autoencoder.state_dict()
    write_checkpoint(folder / "autoencoder", kind="autoencoder", config=vars(STAGE), tensors=tensors, **common)
    fingerprint = read_checkpoint(folder / "autoencoder").fingerprint
    config = TextToImageConfig(NETWORK, NoiseSchedule.cosine().to_json(), "v_prediction", fingerprint)
    model = folder / "model"
    write_checkpoint(model, kind="text-to-image", config=config.to_json(), tensors=denoiser.state_dict(), **common)
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkpoint(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture
def draw(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Exit code, standard output and standard error of `ornstein sample` with the tiny model, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, checkpoint: Path | None = model) -> tuple[int, str, str]:
        own = [] if checkpoint is None else ["--checkpoint", str(checkpoint)]
        with pytest.raises(SystemExit) as stop:
            main(["sample", *words, *own])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A picture to start from, and beside it a mask for its upper half."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((128, 128)).save(tmp_path / "start.png")
    Image.fromarray(np.repeat(np.array([255, 0], np.uint8), 64)[:, None].repeat(128, 1)).save(tmp_path / "mask.png")
    return tmp_path / "start.png"


def _pixels(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _refused(code: int, err: str, *expected: str) -> None:
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for text in expected:
        assert text in err


WAYS = {
    "plain": ["--guidance", "3"],
    "negative, within an interval": ["--negative", "a dog", "--interval", "300", "800"],
    "ddpm": ["--sampler", "ddpm", "--num", "3"],
    "sde": ["--sampler", "dpm++sde"],
    "eta": ["--eta", "1", "--num", "12"],
    "batches": ["--num", "5", "--batch", "2", "--eta", "0.5"],
    "image": ["--image", "start.png", "--strength", "0.7", "--num", "3"],
    "image, random": ["--image", "start.png", "--sampler", "ddpm"],
    "mask": ["--image", "start.png", "--mask", "mask.png", "--eta", "1"],
    "frames": ["--to", "a dog", "--frames", "3", "--eta", "1"],
}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_picture_is_drawn_again_bit_for_bit_from_itself_alone(draw: Draw, start: Path, tmp_path: Path, way: str) -> None:
    code, out, err = draw("a red apple", "--steps", "4", "--seed", "9", *WAYS[way], "--out", "a.png", "--json")
    assert code == 0, err
    for name in json.loads(out)["files"][-3:]:
        code, _, err = draw("--like", name, "--out", "b.png", checkpoint=None)
        assert code == 0, err
        assert (tmp_path / "b.png").read_bytes() == (tmp_path / name).read_bytes()


def test_a_picture_says_how_it_was_drawn(draw: Draw, model: Path, start: Path) -> None:
    import hashlib

    import ornstein

    words = ["--image", "start.png", "--num", "2", "--seed", "5", "--steps", "4", "--guidance", "2", "--interval", "0", "900"]
    assert draw("a key", *words, "--out", "a.png")[0] == 0
    assert json.loads(Image.open("a-1.png").info["ornstein"]) == {
        "prompt": "a key",
        "seed": 6,
        "index": 0,
        "batch": [0, 1],
        "steps": 4,
        "sampler": "ddim",
        "eta": 0.0,
        "guidance": 2.0,
        "interval": [0, 900],
        "negative": "",
        "image": "start.png",
        "image_sha256": hashlib.sha256(start.read_bytes()).hexdigest(),
        "mask": None,
        "mask_sha256": None,
        "strength": 0.6,
        "to": None,
        "frames": None,
        "frame": None,
        "checkpoint": str(model),
        "fingerprint": read_checkpoint(model).fingerprint,
        "ornstein": ornstein.__version__,
        "torch": torch.__version__,
    }


def test_what_is_given_beside_like_replaces_what_the_picture_says(draw: Draw) -> None:
    draw("a key", "--steps", "4", "--num", "3", "--out", "a.png")
    for words in (["--guidance", "1"], ["--seed", "4"], ["--eta", "1"], ["--interval", "0", "500"]):
        assert draw("--like", "a-2.png", *words, "--out", "b.png")[0] == 0
        draw("a key", "--steps", "4", "--num", "3", *words, "--out", "c.png")
        assert np.array_equal(_pixels("b.png"), _pixels("c-2.png"))
        assert not np.array_equal(_pixels("b.png"), _pixels("a-2.png"))
    assert draw("a dog", "--like", "a-2.png", "--out", "b.png")[0] == 0
    assert read_provenance(Path("b.png")).prompt == "a dog"
    assert draw("--like=b.png", "--out", "c.png")[0] == 0
    assert Path("b.png").read_bytes() == Path("c.png").read_bytes()


def test_it_says_whether_the_picture_came_out_the_same(draw: Draw) -> None:
    draw("a key", "--steps", "2", "--out", "a.png")
    code, _, err = draw("--like", "a.png", "--out", "b.png")
    assert code == 0
    assert "the same as a.png, to the bit" in err
    pixels = _pixels("a.png").copy()
    pixels[3, 4:6, 0] ^= 1
    write_picture(Image.fromarray(pixels), Path("touched.png"), read_provenance(Path("a.png")))
    code, _, err = draw("--like", "touched.png", "--out", "b.png")
    assert code == 1
    assert "2 pixels differ from touched.png" in err
    code, out, _ = draw("--like", "touched.png", "--out", "b.png", "--json")
    assert (code, json.loads(out)["pixels_that_differ"]) == (1, 2)
    code, out, _ = draw("--like", "touched.png", "--guidance", "2", "--out", "b.png", "--json")
    assert code == 0
    assert "pixels_that_differ" not in json.loads(out)


def test_a_picture_that_cannot_be_drawn_again_is_refused(draw: Draw, start: Path, tmp_path: Path) -> None:
    draw("a key", "--steps", "1", "--num", "2", "--out", "a.png")
    draw("a key", "--steps", "1", "--image", "start.png", "--strength", "1", "--out", "edited.png")
    draw("a key", "--steps", "1", "--out", "a.jpg")
    before = _names(tmp_path)

    def refused(*words: str, naming: list[str], checkpoint: Path | None = None) -> None:
        code, _, err = draw(*words, checkpoint=checkpoint)
        _refused(code, err, *naming)

    refused("--like", "start.png", naming=["start.png does not say how it was drawn"])
    refused("--like", "a.jpg", naming=["only a .png"])
    refused("--like", "a.png", naming=["a sheet of several pictures", "a-0.png"])
    refused("--like", "a-0.png", "--num", "2", naming=["--num"])
    refused("--like", "a-0.png", "--to", "a dog", naming=["--to"])
    refused("--like", "a-0.png", "--out", "a-0.png", naming=["name another file"])
    other = _checkpoint(tmp_path / "other", 1)
    refused("--like", "a-0.png", naming=["was drawn by checkpoint", "--checkpoint"], checkpoint=other)
    start.rename(tmp_path / "moved.png")
    refused("--like", "edited.png", naming=["start.png, which is not there", "--image"])
    assert draw("--like", "edited.png", "--image", "moved.png", "--out", "b.png")[0] == 0
    assert np.array_equal(_pixels("b.png"), _pixels("edited.png"))
    Image.new("RGB", (128, 128)).save(start)
    refused("--like", "edited.png", naming=["start.png has changed", "--image"])
    assert sorted([*before, "b.png", "moved.png", "other"]) == _names(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "4"}, "steps = '4'"),
        ({"steps": True}, "steps = True"),
        ({"interval": [1]}, r"interval = \[1\]"),
        ({"interval": ["a", "b"]}, "interval"),
        ({"batch": [3, 2]}, "index 0"),
        ({"guidance": None}, "guidance = None"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_metadata_of_another_kind_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    said = {"prompt": "a key", "seed": 0, "index": 0, "batch": [0, 1], "steps": 4, "sampler": "ddim", "eta": 0, "guidance": 4.0}
    said |= dict.fromkeys(["interval", "image", "image_sha256", "mask", "mask_sha256", "strength", "to", "frames", "frame"])
    said |= {"negative": "", "checkpoint": "text-to-image", "fingerprint": "0", "ornstein": "1", "torch": "2"}
    Provenance.from_json(said)
    write_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", said | change)
    with pytest.raises(DataError, match=message):
        read_provenance(tmp_path / "a.png")
    info = PngInfo()
    info.add_text("ornstein", "{")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png", pnginfo=info)
    with pytest.raises(DataError, match="damaged"):
        read_provenance(tmp_path / "b.png")


def test_a_full_disk_keeps_what_is_finished_and_the_same_command_goes_on(
    draw: Draw, tmp_path: Path, largest_file: Callable[[int], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["a red apple", "--steps", "2", "--num", "12", "--out", "a.png", "--json"]
    with largest_file(400):
        code, _, err = draw(*words)
    assert code == 1
    assert "cannot write a.png: file too large; 0 of 12 pictures are finished" in err.splitlines()[-1]
    assert _names(tmp_path) == []

    written = 0
    save = Image.Image.save

    def full_after_seven(picture: Image.Image, path: Path, **settings: Any) -> None:
        nonlocal written
        if written == 7:
            raise OSError(28, os.strerror(28))
        written += 1
        save(picture, path, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full_after_seven)
        code, out, err = draw(*words)
    assert (code, out) == (1, "")
    assert f"no space left on device; 7 of 12 pictures are finished, in {tmp_path}; the same command goes on" in err
    assert _names(tmp_path) == [f"a-{k:02d}.png" for k in range(7)]
    stamps = {k: Path(f"a-{k:02d}.png").stat().st_mtime_ns for k in range(7)}
    code, out, _ = draw(*words)
    assert code == 0
    record = json.loads(out)
    assert record["kept"] == 7
    assert record["files"] == ["a.png", *(f"a-{k:02d}.png" for k in range(12))]
    assert stamps == {k: Path(f"a-{k:02d}.png").stat().st_mtime_ns for k in range(7)}
    sheet = _pixels("a.png")
    assert sheet.shape == (3 * 128, 4 * 128, 3)
    assert np.array_equal(sheet[128:256, 256:384], _pixels("a-06.png"))


def test_a_rerun_draws_what_is_missing_damaged_or_drawn_otherwise(draw: Draw, tmp_path: Path) -> None:
    """In batches too: what is drawn again comes out as in the first run, whatever of its batch is kept."""
    words = ["--steps", "3", "--num", "7", "--batch", "3", "--eta", "1", "--out", "a.png", "--json"]
    assert draw("a key", *words)[0] == 0
    whole = {name: (tmp_path / name).read_bytes() for name in _names(tmp_path)}
    (tmp_path / "a-1.png").unlink()
    (tmp_path / "a-3.png").write_bytes(whole["a-3.png"][:-40])
    draw("--like", "a-6.png", "--guidance", "2", "--out", "other.png")
    (tmp_path / "other.png").rename(tmp_path / "a-6.png")
    assert json.loads(draw("a key", *words)[1])["kept"] == 4
    assert whole == {name: (tmp_path / name).read_bytes() for name in _names(tmp_path)}
    assert json.loads(draw("a key", *words)[1])["kept"] == 7
    assert json.loads(draw("a dog", *words)[1])["kept"] == 0


def test_pictures_in_batches_are_those_of_the_pipeline(draw: Draw, model: Path) -> None:
    import ornstein

    assert draw("a key", "--steps", "3", "--num", "5", "--batch", "2", "--seed", "3", "--out", "a.png")[0] == 0
    pipeline = ornstein.load(model, expect="text-to-image")
    drawn = pipeline("a key", num_inference_steps=3, seed=3, num_images_per_prompt=5, batch_size=2)
    for k, picture in enumerate(drawn):
        assert np.array_equal(_pixels(f"a-{k}.png"), np.asarray(picture))


def test_beyond_a_sheet_there_are_pictures_only(draw: Draw, tmp_path: Path) -> None:
    code, out, _ = draw("a key", "--steps", "1", "--num", "65", "--out", "a.png")
    assert code == 0
    assert out.split() == _names(tmp_path) == [f"a-{k:02d}.png" for k in range(65)]


def test_every_option_reaches_the_pipeline(draw: Draw, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def stream(pipeline: object, prompts: list[str], indices: range, settings: object, *, batch_size: int, track: object) -> Any:
        given.update(vars(settings), prompts=prompts, indices=indices, batch=batch_size)  # type: ignore[call-overload]
        return iter([Image.new("RGB", (8, 8))] * 2)

    monkeypatch.setattr(TextToImagePipeline, "stream", stream)
    options = [
        "--num",
        "2",
        "--batch",
        "2",
        "--steps",
        "7",
        "--sampler",
        "ddim",
        "--eta",
        "0.25",
        "--guidance",
        "3.5",
        "--seed",
        "11",
        "--interval",
        "10",
        "900",
    ]
    assert draw("two keys", *options, "--negative", "a dog", "--out", "a.png")[0] == 0
    assert given == {
        "prompts": ["two keys"] * 2,
        "indices": range(2),
        "batch": 2,
        "num_inference_steps": 7,
        "sampler": "ddim",
        "eta": 0.25,
        "guidance_scale": 3.5,
        "guidance_interval": (10, 900),
        "seed": 11,
        "negative_prompt": "a dog",
    }


@pytest.mark.parametrize(("steps", "frames", "tiles"), [(1, 2, 2), (5, 6, 6), (30, 24, 8)])
def test_the_steps_are_shown_and_end_with_the_picture(
    draw: Draw, model: Path, tmp_path: Path, steps: int, frames: int, tiles: int
) -> None:
    """The strip's tiles are the decoded x̂_0 of steps at even distances; the film has as many frames, and holds the last one."""
    import ornstein

    words = ["a key", "--steps", str(steps), "--seed", "3", "--sampler", "ddpm", "--out", "a.png"]
    assert draw(*words, "--show-steps", "a.gif")[0] == 0
    assert draw(*words, "--show-steps", "strip.png")[0] == 0
    pipeline = ornstein.load(model, expect="text-to-image")
    stepper = pipeline.sampler("ddpm", steps)
    estimates = [pipeline.decode(step.x_0_hat)[0] for step in pipeline.trajectory(["a key"], [0], stepper, 4.0, 3)]
    chosen = np.round(np.linspace(0, steps - 1, tiles - 1)).astype(int)
    wanted = np.concatenate([*(estimates[k] for k in chosen), _pixels("a.png")], axis=1)
    assert np.array_equal(_pixels("strip.png"), wanted)
    with Image.open("a.gif") as film:
        durations, shown = [], []
        for k in range(film.n_frames):
            film.seek(k)
            durations.append(film.info["duration"])
            shown.append(np.asarray(film.convert("RGB")).astype(int))
        assert film.info["loop"] == 0
    # Pillow joins frames that look alike and adds up how long they stand.
    assert len(shown) <= frames
    assert sum(durations) == 120 * (frames - 1) + 2000
    assert durations[-1] >= 2000
    assert np.abs(shown[-1] - _pixels("a.png")).mean() < 12  # 256 colours for what is nearly noise
    code, _, err = draw("--like", "strip.png", "--out", "b.png")
    _refused(code, err, "shows the steps of a picture")


def test_steps_of_one_picture_of_a_batch_and_of_an_edit(draw: Draw, start: Path) -> None:
    draw("a key", "--steps", "3", "--num", "4", "--batch", "2", "--eta", "1", "--out", "a.png")
    assert draw("--like", "a-3.png", "--out", "b.png", "--show-steps", "strip.png")[0] == 0
    assert _pixels("strip.png").shape == (128, 4 * 128, 3)
    assert np.array_equal(_pixels("strip.png")[:, -256:-128], _pixels("a-3.png"))  # the last x̂_0 is the end
    assert draw("a key", "--steps", "4", "--image", "start.png", "--strength", "0.5", "--show-steps", "strip.png")[0] == 0
    assert _pixels("strip.png").shape == (128, 3 * 128, 3)
    code, _, err = draw("--like", "a-3.png", "--show-steps", "a-3.png")
    _refused(code, err, "name another file")
