"""`ornstein act` prints what the policy itself says, marks its places, and tells a mistake in one line; `ornstein ask` asks the same model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ornstein
from ornstein.cli import main
from ornstein.core.checkpoint import write_checkpoint
from ornstein.data.questions import PLACES
from ornstein.language import TextTokenizer
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.policies import VisionLanguageModel, with_actions
from ornstein.simulation.tabletop import TabletopEnv, contract


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([*words])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def _policy(folder: Path, *, pointers: bool) -> str:
    marks = [f"<{axis}{k}>" for axis in "xy" for k in range(PLACES)]
    tokenizer = TextTokenizer.train(["Q: what action should the robot take to pick up the lion? A:"], size=460, special=marks)
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
        base = VisionLanguageModel(VisionLanguageNetwork(config), tokenizer)
        model = with_actions(base, bins=16, manner="extend", state_size=7)
    write_checkpoint(
        folder,
        kind="rt2",
        config={**asdict(model.network.config), "tokenizer": model.tokenizer.to_json(), "pointers": pointers},
        tensors=model.network.state_dict(),
        contract=contract({"front": 32}),
        provenance={},
        card="",
    )
    return str(folder)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "table.png")
    return str(tmp_path / "table.png")


def test_it_prints_what_the_policy_says_and_marks_it(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _policy(tmp_path / "model", pointers=True)
    mark = tmp_path / "mark.png"
    code, out, err = _run(capsys, "act", folder, picture, "pick up the lion", "--mark", str(mark), "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    policy = ornstein.load(folder, expect="rt2")
    env = TabletopEnv(cameras={})
    rest = env.reset(seed=3)[0]["agent_pos"]  # where every episode begins
    env.close()
    pixels = np.asarray(Image.open(picture).crop((0, 4, 32, 36)))
    action = policy.act({"pixels": {"front": pixels}, "agent_pos": rest, "instruction": "pick up the lion"})
    assert told["said"] == policy.model.tokenizer.decode(policy.tokens)
    assert told["said"].count("<action") == 7
    np.testing.assert_allclose(list(told["action"].values()), action)
    assert told["doubt"] == pytest.approx(policy.doubt)
    assert policy.said is not None
    assert policy.said.pointers is not None
    np.testing.assert_allclose(np.array(told["places"]) / 32 * 2 - 1, policy.said.pointers, atol=1e-6)
    assert (np.asarray(Image.open(mark)) != pixels).any()
    code, out, _ = _run(capsys, "act", folder, picture, "pick up the lion", "--state", *["0.1"] * len(policy.contract.state))
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["takes", "to", "says", *told["action"], "doubt"]
    code, out, _ = _run(capsys, "ask", folder, picture, "what is this?")
    assert code == 0
    assert "probability" in out


def test_mistakes_are_one_line(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _policy(tmp_path / "model", pointers=False)
    for words, complaint in (
        (["rt1-tabletop", picture, "pick it up"], "of kind 'rt1', but one of kind 'rt2'"),
        ([folder, str(tmp_path / "none.png"), "pick it up"], "there is no picture"),
        ([folder, picture, " "], "instruction"),
        ([folder, picture, "pick it up", "--mark", "x.gif"], "--mark takes a .png"),
        ([folder, picture, "pick it up", "--mark", str(tmp_path / "x.png")], "does not say places"),
        ([folder, picture, "pick it up", "--state", "0.1"], "numbers ("),
    ):
        code, out, err = _run(capsys, "act", *words)
        assert (code, out) == (2, "")
        assert complaint in err
        assert err.count("\n") == 1
