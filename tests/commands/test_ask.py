"""`ornstein ask` prints what the model says, marks the place, and tells a mistake in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ornstein.cli import main
from ornstein.policies import Answer, VisionLanguageModel


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["ask", *words])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


class _Model:
    class network:
        class config:
            image_size = 64

    def __init__(self, text: str) -> None:
        self.text, self.seen = text, np.zeros(0)

    def answer(self, pictures: np.ndarray, questions: list[str]) -> list[Answer]:
        self.seen, self.asked = pictures, questions
        return [Answer(self.text, float(np.log(0.25)), whole=True)]


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (120, 90), (10, 200, 30)).save(tmp_path / "green.png")
    return str(tmp_path / "green.png")


def test_a_place_is_told_in_pixels_and_marked(
    picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _Model("<x16> <y48>")
    monkeypatch.setattr("ornstein.load", lambda *_, **__: model)
    mark = tmp_path / "found.png"
    code, out, _ = _run(capsys, "m", picture, "where is the lion?", "--mark", str(mark), "--json")
    assert code == 0
    assert json.loads(out) == {
        "answer": "<x16> <y48>",
        "probability": pytest.approx(0.25),
        "place": [16.5, 48.5],
        "picture": 64,
    }
    assert (model.seen == np.array([10, 200, 30])).all()
    assert model.asked == ["where is the lion?"]
    red = np.argwhere((np.asarray(Image.open(mark)) == [220, 30, 30]).all(-1))
    np.testing.assert_allclose(red.mean(0), [48.5, 16.5], atol=0.6)
    code, out, _ = _run(capsys, "m", picture, "where is the lion?")
    assert out.splitlines() == ["<x16> <y48>   (column 16, row 48 of 64)", "probability 0.25"]


def test_mistakes_are_one_line(
    picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, complaint in (
        (["rt1-tabletop", picture, "what is this?"], "of kind 'rt1', but one of kind 'vision-language'"),
        (["m", str(tmp_path / "none.png"), "what is this?"], "there is no picture"),
        (["m", picture, " "], "the question is empty"),
        (["m", picture, "what is this?", "--mark", "x.gif"], "--mark takes a .png"),
    ):
        code, out, err = _run(capsys, *words)
        assert (code, out) == (2, "")
        assert complaint in err
        assert err.count("\n") == 1
    monkeypatch.setattr("ornstein.load", lambda *_, **__: _Model("a lion"))
    code, _, err = _run(capsys, "m", picture, "what is this?", "--mark", str(tmp_path / "x.png"))
    assert code == 2
    assert "is no place" in err
    (tmp_path / "cut.png").write_bytes(b"cut")
    code, _, err = _run(capsys, "m", str(tmp_path / "cut.png"), "what is this?")
    assert "cut.png is no picture" in err


def test_it_asks_a_real_model(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import asdict

    import torch

    from ornstein.core.checkpoint import write_checkpoint
    from ornstein.language import TextTokenizer
    from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork

    tokenizer = TextTokenizer.train(["Q: what is this? A: a lion"], size=300)
    config = VisionLanguageConfig(
        image_size=32,
        channels=(8, 16),
        blocks=(0, 1),
        vision_depth=1,
        vision_heads=2,
        width=24,
        depth=1,
        heads=2,
        vocabulary=tokenizer.size,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionLanguageModel(VisionLanguageNetwork(config), tokenizer)
    write_checkpoint(
        tmp_path / "model",
        kind="vision-language",
        config={**asdict(config), "tokenizer": tokenizer.to_json()},
        tensors=model.network.state_dict(),
        provenance={},
        card="",
    )
    code, out, err = _run(capsys, str(tmp_path / "model"), picture, "what is this?")
    assert (code, err) == (0, "")
    assert "probability" in out
