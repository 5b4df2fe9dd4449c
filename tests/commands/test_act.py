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
from ornstein.core.errors import DataError
from ornstein.data.questions import PLACES
from ornstein.evaluation.trials import Trial, load_player, trials
from ornstein.language import TextTokenizer
from ornstein.networks.threads import one_thread
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.policies import VisionLanguageModel, with_actions
from ornstein.simulation.tabletop import TabletopEnv, contract, suite


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([*words])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def _policy(folder: Path, *, pointers: bool, brief: bool = False) -> str:
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
    if brief:  # what it says next depends on where it stands: some tokens, then an end
        vectors = model.network.tokens_in.weight.detach()  # type: ignore[union-attr,operator]
        said = [tokenizer.end if k % 12 == 11 else tokenizer.encode("ab")[k % 2] for k in range(config.context)]
        model.network.positions.data.copy_(30 * vectors[said])  # type: ignore[union-attr,operator]
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


def test_trials_say_what_the_policy_told_itself(tmp_path: Path) -> None:
    """In this process or in others alike; without thinking nothing."""
    folder = _policy(tmp_path / "model", pointers=True, brief=True)
    with one_thread():
        found = {
            (think, workers): list(
                trials(load_player(folder, think=think), folder, suite("pick"), range(2), think=think, workers=workers)
            )
            for think, workers in ((False, 1), (True, 1), (True, 2))
        }
    told = {key: sorted((trial.seed, trial.plan, trial.caption) for trial in tried) for key, tried in found.items()}
    assert told[True, 1] == told[True, 2]
    assert any(plan for _, plan, _ in told[True, 1])
    assert all(caption.endswith(f" → {plan}") for _, plan, caption in told[True, 1] if plan)
    assert [plan for _, plan, _ in told[False, 1]] == ["", ""]
    (trial, *_) = found[True, 1]
    assert Trial.from_json(trial.to_json()).plan == trial.plan


def test_who_cannot_think_is_not_let() -> None:
    for source in ("expert", "rt1-tabletop"):
        with pytest.raises(DataError, match=r"does not (think|say)"):
            load_player(source, think=True)


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
