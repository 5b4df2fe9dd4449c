"""One model answers and acts: the grammar holds, the losses are what they say, and new tokens change no answer."""

from __future__ import annotations

import copy
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
from ornstein.policies import (
    Answer,
    RT2Network,
    RT2Policy,
    VisionLanguageModel,
    looking_loss,
    robot_texts,
    speech_loss,
    with_actions,
)
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
        # Beside that, where it looked while it said places: see tests/policies/test_looking.py.
        _, looks = network.read_and_look(seen, texts.tokens[:, :-1])
        looking, _ = looking_loss(looks, texts, speech.places)
        assert float(loss - looking) == pytest.approx(np.mean(expected), rel=1e-4)
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


@pytest.fixture
def with_arm(model: VisionLanguageModel) -> VisionLanguageModel:
    head = {"kind": "bins", "length": 1, "bins": {"num_bins": 32}}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = copy.deepcopy(model.network)
        network.add_expert(16, 1, 0.5, head, BODY)  # type: ignore[operator]
        for parameter in (*network.expert.parameters(), *network.head.parameters()):  # type: ignore[union-attr]
            torch.nn.init.normal_(parameter, std=0.4)
    return VisionLanguageModel(network.eval().requires_grad_(requires_grad=False), TOKENIZER.with_actions(32, "extend"))


def test_what_is_understood_is_said_token_by_token(model: VisionLanguageModel) -> None:
    """The likeliest places, all read anew each time; what is kept is what the decoder had in mind, and the mean place around the likeliest."""
    network = model.network
    assert isinstance(network, RT2Network)
    speech = RobotSpeech(model.tokenizer, BODY)
    states = torch.linspace(-1, 1, 21).view(3, 7)
    seen = network.with_state(network.see(torch.from_numpy(_pictures())), states)
    questions = [speech.question(f"pick up the {name}") for name in ("lion", "lion", "lion")]
    understood, said = network.understand(seen, torch.tensor(questions), *speech.pattern[:2])
    assert understood.shape == (3, 3, 26)
    for row, question in enumerate(questions):
        tokens, places = list(question), []
        for may in speech.pattern[:4]:
            logits = network(seen[row : row + 1], torch.tensor([tokens]))[0, -1][list(may)]
            best = int(logits.argmax())
            around = range(max(best - 1, 0), min(best + 2, PLACES))
            weights = logits[list(around)].softmax(-1)
            places.append(float(sum(w * ((k + 0.5) / PLACES * 2 - 1) for w, k in zip(weights, around, strict=True))))
            tokens.append(may[best])
        assert said[row].tolist() == tokens[len(question) :]
        np.testing.assert_allclose(understood[row, 1:, -2:].flatten(), places, atol=1e-5)
        for kept, upto in zip(understood[row], (len(question), len(question) + 2, len(question) + 4), strict=True):
            read = network.read_and_look(seen[row : row + 1], torch.tensor([tokens[:upto]]))[0][0, -1]
            torch.testing.assert_close(kept[:-2], read, atol=1e-4, rtol=1e-4)
    assert (understood[:, 0, -2:] == 0).all()


def test_an_expert_decides_by_what_was_said_and_felt(with_arm: VisionLanguageModel, model: VisionLanguageModel) -> None:
    policy = RT2Policy(with_arm, BODY)
    observation = _observation()
    action = policy.act(observation)  # type: ignore[arg-type]
    network = with_arm.network
    assert isinstance(network, RT2Network)
    state = torch.from_numpy(observation["agent_pos"])[None, None]  # type: ignore[arg-type]
    decided = network.decide(policy.seen[None, None], torch.zeros(1, 0), state)[:, 0]
    expected = network.head.sample(decided, torch.Generator(), greedy=True)[0, 0]  # type: ignore[union-attr]
    np.testing.assert_array_equal(action, expected.numpy())
    assert policy.said is not None
    np.testing.assert_array_equal(policy.said.pointers, policy.seen[1:, -2:])
    # What it says can be read as any other RT-2's: its action is in the tokens, to half a bin.
    heard = policy.speech.understood(policy.tokens)
    np.testing.assert_allclose(heard.action, action, atol=1e-6)
    assert policy.doubt > 0
    # Elsewhere felt, elsewhere done; and the model answers as before it had an expert.
    moved = policy.act(_observation(agent_pos=np.full(7, 0.7, np.float32)))  # type: ignore[arg-type]
    assert not np.array_equal(moved, action)
    for one, other in zip(
        model.answer(_pictures(), ["what is this?"] * 3), with_arm.answer(_pictures(), ["what is this?"] * 3), strict=True
    ):
        assert one == other


def test_an_expert_is_kept_in_the_checkpoint(with_arm: VisionLanguageModel, tmp_path: Path) -> None:
    settings = {
        "config": {**asdict(with_arm.network.config), "tokenizer": with_arm.tokenizer.to_json(), "pointers": True},
        "tensors": with_arm.network.state_dict(),
        "contract": BODY,
    }
    head = {"kind": "bins", "length": 1, "bins": {"num_bins": 32}}
    whole = {**settings, "config": {**settings["config"], "head": head}}  # type: ignore[dict-item]
    write_checkpoint(tmp_path / "whole", kind="rt2", provenance={}, card="", **whole)  # type: ignore[arg-type]
    loaded = RT2Policy.from_checkpoint(read_checkpoint(tmp_path / "whole"))
    expected = RT2Policy(with_arm, BODY).act(_observation())  # type: ignore[arg-type]
    np.testing.assert_allclose(loaded.act(_observation()), expected, atol=2e-2)  # type: ignore[arg-type]  # kept in half precision
    write_checkpoint(tmp_path / "headless", kind="rt2", provenance={}, card="", **settings)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="an expert, with a head and a contract, or none"):
        RT2Policy.from_checkpoint(read_checkpoint(tmp_path / "headless"))
    with pytest.raises(DataError, match="this RT-2 says none"):
        RT2Policy(with_arm, BODY, pointers=False)


def test_who_thinks_follows_its_own_words(model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(pictures: np.ndarray, questions: list[str]) -> list[Answer]:
        asked.extend(questions)
        return [Answer("pick up the lion", -0.1, whole=True)]

    monkeypatch.setattr(model, "answer", answer)
    plain = RT2Policy(model, BODY).act(_observation())  # type: ignore[arg-type]
    policy = RT2Policy(model, BODY, thinks=True)
    for _ in range(2):
        np.testing.assert_array_equal(policy.act(_observation(instruction="Seize the big cat.")), plain)  # type: ignore[arg-type]
    assert asked == ["in plain words: Seize the big cat"]
    assert policy.plan == "pick up the lion"
    policy.reset()
    assert policy.plan == ""
    policy.act(_observation(instruction=""))  # type: ignore[arg-type]  # a control: nothing to think about
    assert len(asked) == 1
