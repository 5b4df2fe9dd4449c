from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ornstein
from ornstein import hub
from ornstein.core import Checkpoint, CheckpointError, UnknownNameError, write_checkpoint
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig


def _write(folder: Path, kind: str, **changes: Any) -> Path:
    write_checkpoint(folder, **{"kind": kind, "config": {}, "tensors": {}, "provenance": {}, "card": "", **changes})
    return folder


CLASSES = {
    "text-to-image": "TextToImagePipeline",
    "emoji-classifier": "EmojiJudge",
    "rt1": "RT1Policy",
    "rt2": "RT2Policy",
    "modular": "ModularPolicy",
    "vision-language": "VisionLanguageModel",
    "pixel-diffusion": "PixelDiffusion",
    "gan": "GAN",
    "vae": "VAE",
}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that comes with three checkpoints."""
    folder = tmp_path / "bundle"
    for name, kind in (("text-to-image", "text-to-image"), ("rt1-tabletop", "rt1"), ("rt1-kitchen", "rt1")):
        _write(folder / name, kind)
    monkeypatch.setattr(hub, "BUNDLED", folder)
    monkeypatch.chdir(tmp_path)
    return folder


class Loaded:
    """Stands for a model class of another layer: remembers its checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    from_checkpoint: Callable[..., Any]


Loaded.from_checkpoint = classmethod(lambda cls, checkpoint, *rest: cls(checkpoint))


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """Each kind's class, replaced by one of its own."""
    classes = {name: type(name, (Loaded,), {}) for name in CLASSES.values()}
    policies = {name: made for name, made in classes.items() if name.endswith("Policy") or name == "VisionLanguageModel"}
    pictures = {name: made for name, made in classes.items() if name not in policies}
    monkeypatch.setitem(sys.modules, "ornstein.images", SimpleNamespace(**pictures))
    monkeypatch.setitem(sys.modules, "ornstein.policies", SimpleNamespace(**policies))
    return classes


@pytest.mark.parametrize(("kind", "name"), CLASSES.items())
def test_the_kind_decides_the_class(tmp_path: Path, models: dict[str, type], kind: str, name: str) -> None:
    folder = _write(tmp_path / "x", kind)
    loaded = ornstein.load(folder, expect=kind)
    assert type(loaded) is models[name]
    assert loaded.checkpoint.path == folder


def test_every_kind_of_the_list_is_known(tmp_path: Path, models: dict[str, type]) -> None:
    for kind in set(hub.KINDS) - {"autoencoder"}:
        assert isinstance(ornstein.load(_write(tmp_path / kind, kind)), Loaded)


def test_a_bundled_name(bundle: Path, models: dict[str, type]) -> None:
    assert hub.bundled_names() == ["rt1-kitchen", "rt1-tabletop", "text-to-image"]
    assert ornstein.load("rt1-tabletop").checkpoint.path == bundle / "rt1-tabletop"


def test_a_folder_by_text_and_by_path(bundle: Path, models: dict[str, type], tmp_path: Path) -> None:
    _write(tmp_path / "mine", "rt1")
    for given in ("mine", "./mine", str(tmp_path / "mine"), tmp_path / "mine"):
        assert ornstein.load(given).checkpoint.path.resolve() == (tmp_path / "mine").resolve()


def test_a_run_stands_for_its_finished_model(bundle: Path, models: dict[str, type], tmp_path: Path) -> None:
    _write(tmp_path / "run" / "checkpoints" / "step-0000010", "rt1")
    with pytest.raises(CheckpointError, match=r"is not finished: finish it with --resume, or give .*step-0000010"):
        ornstein.load("run")
    _write(tmp_path / "run" / "model", "rt1")
    assert ornstein.load("run").checkpoint.path.name == "model"


@pytest.mark.parametrize("typed", ["rt1-tabletp", "RT1_Tabletop"])
def test_an_unknown_name_offers_the_nearest(bundle: Path, typed: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown checkpoint '{typed}': did you mean 'rt1-tabletop'"):
        ornstein.load(typed)


def test_an_unknown_name_without_a_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "BUNDLED", tmp_path / "nothing")
    with pytest.raises(UnknownNameError, match="there is none to choose from"):
        ornstein.load("rt1-tabletop")


@pytest.mark.parametrize("given", ["", "runs/nowhere", Path("nowhere"), "empty"])
def test_a_folder_without_a_checkpoint(bundle: Path, tmp_path: Path, given: str | Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*or a bundled name \(rt1-kitchen, rt1-tabletop"):
        ornstein.load(given)


def test_another_kind_is_refused_with_a_suggestion(bundle: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        ornstein.load("text-to-image", expect="rt1")
    assert str(caught.value) == (
        "text-to-image holds a model of kind 'text-to-image', but one of kind 'rt1' is needed here, "
        "for instance rt1-kitchen or rt1-tabletop"
    )
    with pytest.raises(UnknownNameError, match="unknown kind of checkpoint 'rt-1': did you mean 'rt1'"):
        ornstein.load("text-to-image", expect="rt-1")


def test_a_kind_of_the_future(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="of kind 'rt9', which this ornstein does not know .*update ornstein"):
        ornstein.load(_write(tmp_path / "x", "rt9"))


def test_damage_is_an_error(bundle: Path) -> None:
    (bundle / "rt1-tabletop" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="expected"):
        ornstein.load("rt1-tabletop")
    (bundle / "rt1-kitchen" / "config.json").write_text("{")  # no suggestion any more, and no crash
    with pytest.raises(CheckpointError, match="needed here, for instance rt1-tabletop$"):
        ornstein.load("text-to-image", expect="rt1")


def test_an_autoencoder_strictly_and_ready(tmp_path: Path) -> None:
    config = AutoencoderConfig()
    network = Autoencoder(config)
    state = network.state_dict()
    _write(tmp_path / "ae", "autoencoder", config=asdict(config), tensors=state)
    loaded = ornstein.load(tmp_path / "ae", expect="autoencoder")
    assert isinstance(loaded, Autoencoder)
    assert not loaded.training
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name])
    shutil.rmtree(tmp_path / "ae")
    name = next(iter(state))
    del state[name]
    _write(tmp_path / "ae", "autoencoder", config=asdict(config), tensors=state)
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        ornstein.load(tmp_path / "ae")
    _write(tmp_path / "ae", "autoencoder", config={"breadth": 3})
    with pytest.raises(CheckpointError, match="does not fit an autoencoder"):
        ornstein.load(tmp_path / "ae")
