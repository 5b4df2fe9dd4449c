"""One model answers and acts: the grammar holds, the losses are what they say, and new tokens change no answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ornstein.core.checkpoint import read_checkpoint, write_checkpoint
from ornstein.core.errors import CheckpointError, DataError
from ornstein.data.questions import PLACES
from ornstein.language import TextTokenizer
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.policies import RT2Network, RT2Policy, VisionLanguageModel, robot_texts, speech_loss, with_actions
from ornstein.policies.robot_speech import RobotSpeech
from ornstein.simulation.tabletop import contract

_TEXTS = ["Q: what action should the robot take to pick up the lion? A: <x1> <y2>", "Q: what is this? A: a lion"] * 4
_TEXTS += ["sphinx of black quartz, judge my vow while five boxing wizards jump over a lazy dog"] * 2
_MARKS = [f"<{axis}{k}>" for axis in "xy" for k in range(PLACES)]
TOKENIZER = TextTokenizer.train(_TEXTS, size=520, special=_MARKS)
CONFIG = VisionLanguageConfig(
    image_size=64,
    channels=(8, 16),
    blocks=(0, 1),
    vision_depth=1,
    vision_heads=2,
    width=24,
    depth=2,
    heads=3,
    vocabulary=TOKENIZER.size,
    context=64,
)
BODY = contract({"front": 64})


@pytest.fixture
def before(shaken: Callable[[Callable[[], VisionLanguageNetwork]], VisionLanguageNetwork]) -> VisionLanguageModel:
    return VisionLanguageModel(shaken(lambda: VisionLanguageNetwork(CONFIG)), TOKENIZER)


@pytest.fixture
def model(before: VisionLanguageModel) -> VisionLanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = with_actions(before, bins=32, manner="extend", state_size=7)
        torch.nn.init.normal_(made.network.state_in.weight, std=0.3)  # type: ignore[union-attr,arg-type]
    made.network.state_mean.copy_(torch.arange(7) / 10)  # type: ignore[operator]
    made.network.state_std.fill_(0.3)  # type: ignore[operator]
    return made.eval().requires_grad_(requires_grad=False)


def _pictures(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def _observation(**changes: object) -> dict[str, object]:
    state = np.linspace(-0.5, 0.9, 7, dtype=np.float32)
    return {"pixels": {"front": _pictures(1)[0]}, "agent_pos": state, "instruction": "pick up the lion", **changes}


def test_new_tokens_change_no_answer(before: VisionLanguageModel, model: VisionLanguageModel) -> None:
    """The logits of every old token are what they were; an overwriting tokenizer keeps the rest of the vocabulary's."""
    pictures = torch.from_numpy(_pictures())
    tokens = torch.tensor([TOKENIZER.encode("Q: what is this? A:")] * 3)
    old, new = (one.network(one.network.see(pictures), tokens) for one in (before, model))
    torch.testing.assert_close(new[..., : TOKENIZER.size], old)
    with torch.random.fork_rng():
        overwritten = with_actions(before, bins=16, manner="overwrite", state_size=0)
    kept = [k for k in range(TOKENIZER.size) if k not in overwritten.tokenizer.actions]
    new = overwritten.network(overwritten.network.see(pictures), tokens)
    torch.testing.assert_close(new[..., kept], old[..., kept])
    gone = list(overwritten.tokenizer.actions)
    assert (overwritten.network.tokens_in.weight[gone] - before.network.tokens_in.weight[gone]).abs().min(-1).values.max() > 0


def test_it_acts_as_its_tokens_one_after_the_other_say(model: VisionLanguageModel) -> None:
    """The likeliest token that may stand there, all read anew each time."""
    policy = RT2Policy(model, BODY)
    observation = _observation()
    action = policy.act(observation)  # type: ignore[arg-type]
    speech, network = policy.speech, policy.network
    seen = network.with_state(network.see(torch.from_numpy(_pictures(1))), torch.from_numpy(observation["agent_pos"])[None])  # type: ignore[arg-type]
    tokens, entropies = speech.question("pick up the lion"), []
    asked = len(tokens)
    for k, may in enumerate(speech.pattern[:-1]):
        chances = network(seen, torch.tensor([tokens]))[0, -1][list(may)].log_softmax(-1)
        tokens.append(may[int(chances.argmax())])
        if k >= 4:  # after the places
            entropies.append(float(-(chances.exp() * chances).sum()))
    assert policy.tokens == tokens[asked:]
    said = speech.understood(tokens[asked:])
    np.testing.assert_array_equal(action, said.action)
    assert policy.doubt == pytest.approx(np.mean(entropies), abs=1e-4)
    assert (action >= BODY.action_low).all()
    assert (action <= BODY.action_high).all()
    for change in (
        {"instruction": "what is this"},
        {"agent_pos": np.zeros(7, np.float32)},
        {"pixels": {"front": _pictures(2)[1]}},
    ):
        other = RT2Policy(model, BODY)
        other.act(_observation(**change))  # type: ignore[arg-type]
        assert other.tokens != policy.tokens


def test_the_loss_is_written_out(model: VisionLanguageModel) -> None:
    speech, network = RobotSpeech(model.tokenizer, BODY), model.network
    assert isinstance(network, RT2Network)
    rng = np.random.default_rng(1)
    actions = rng.uniform(BODY.action_low, BODY.action_high, (3, 7))
    pointers = rng.uniform(-1, 1, (3, 2, 2))
    told = ["pick up the lion", "what", "pick up"]
    texts = robot_texts(speech, told, actions, pointers)
    seen = network.with_state(network.see(torch.from_numpy(_pictures())), torch.zeros(3, 7))
    for smoothing in (0.0, 1.5):
        loss, log = speech_loss(network, speech, seen, texts, smoothing)
        expected, of_actions = [], []
        for k, sentence in enumerate(told):
            question, answer = speech.question(sentence), speech.answer(actions[k], pointers[k])
            logits = network(seen[k : k + 1], torch.tensor([question + answer]))[0].log_softmax(-1)
            for j, token in enumerate(answer):
                row = logits[len(question) + j - 1]
                if token in model.tokenizer.actions and smoothing:
                    away = np.arange(32) - model.tokenizer.actions.index(token)
                    weights = np.exp(-0.5 * (away / smoothing) ** 2)
                    wanted = -float(
                        (torch.from_numpy(weights / weights.sum()).float() * row[list(model.tokenizer.actions)]).sum()
                    )
                else:
                    wanted = -float(row[token])
                expected.append(wanted)
                of_actions += [wanted] if token in model.tokenizer.actions else []
        assert float(loss) == pytest.approx(np.mean(expected), rel=1e-4)
        assert float(log["actions"]) == pytest.approx(np.mean(of_actions), rel=1e-4)


def _written(folder: Path, model: VisionLanguageModel, **change: object) -> Path:
    config = {**asdict(model.network.config), "tokenizer": model.tokenizer.to_json(), "pointers": True, **change}
    write_checkpoint(folder, kind="rt2", config=config, tensors=model.network.state_dict(), provenance={}, card="", contract=BODY)
    return folder


def test_it_is_loaded_strictly_and_answers_too(model: VisionLanguageModel, tmp_path: Path) -> None:
    policy = RT2Policy.from_checkpoint(read_checkpoint(_written(tmp_path / "whole", model)))
    np.testing.assert_array_equal(policy.act(_observation()), RT2Policy(model, BODY).act(_observation()))  # type: ignore[arg-type]
    questions = ["what is this?"] * 3
    assert policy.model.answer(_pictures(), questions, most=4) == model.answer(_pictures(), questions, most=4)
    for name, change, complaint in (
        ("other", {"state_size": 3}, "do not fit their configuration"),
        ("unknown", {"speed": 3}, "does not fit an RT-2"),
        ("silent", {"tokenizer": {}}, "does not fit an RT-2"),
    ):
        with pytest.raises(CheckpointError, match=complaint):
            RT2Policy.from_checkpoint(read_checkpoint(_written(tmp_path / name, model, **change)))


def test_mistakes_are_named(model: VisionLanguageModel, before: VisionLanguageModel) -> None:
    policy = RT2Policy(model, BODY)
    policy.act(_observation())  # type: ignore[arg-type]
    tokens = policy.tokens
    for change, complaint in (
        ({"instruction": "pick up the lion " * 14}, "say it shorter"),
        ({"agent_pos": np.full(7, np.nan, np.float32)}, "7 finite numbers"),
        ({"pixels": {}}, "lacks camera 'front'"),
        ({"pixels": {"front": np.zeros((32, 32, 3), np.uint8)}}, r"uint8 \(64, 64, 3\)"),
    ):
        with pytest.raises(DataError, match=complaint):
            policy.act(_observation(**change))  # type: ignore[arg-type]
    assert policy.tokens == tokens
    with pytest.raises(DataError, match="never taught to act"):
        RT2Policy(before, BODY)
    with pytest.raises(DataError, match="one camera of 64 px"):
        RT2Policy(model, contract({"front": 128}))
