"""A vision-language model is taught to act, tiny: what a step shows, what changes, and what comes out acts and answers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.policies.foreign import save_model

import ornstein
from ornstein.core.checkpoint import read_checkpoint, write_checkpoint
from ornstein.core.errors import CheckpointError, DataError, MissingDependencyError, UnknownNameError
from ornstein.data.demonstrations import record_demonstrations
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.policies import RT1Config, RT2Config, RT2Network
from ornstein.policies.robot_speech import RobotSpeech
from ornstein.recipes.rt1_examples import RT1Examples
from ornstein.recipes.rt1_practice import Practice
from ornstein.recipes.rt2_batches import RT2Batches
from ornstein.recipes.rt2_tabletop import RT2TabletopRecipe, begun, plan_of, train_rt2_tabletop
from ornstein.recipes.vlm_emoji import trained_tokenizer
from ornstein.training import initialise

NETWORK = VisionLanguageConfig(
    channels=(8, 16), blocks=(0, 1), vision_depth=1, vision_heads=2, width=24, depth=1, heads=2, vocabulary=1200
)


def _base(folder: Path) -> Path:
    tokenizer = trained_tokenizer(NETWORK.vocabulary, 0)
    network = initialise(lambda: VisionLanguageNetwork(NETWORK), 0)
    write_checkpoint(
        folder,
        kind="vision-language",
        config={**asdict(NETWORK), "tokenizer": tokenizer.to_json()},
        tensors=network.state_dict(),
        provenance={},
        card="",
    )
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> RT2TabletopRecipe:
    folder = tmp_path_factory.mktemp("rt2")
    record_demonstrations(folder / "data", episodes=2, cameras={"front": 128}, plain=True)
    short = {"steps": 3, "batch_size": 5, "warmup_steps": 1, "checkpoint_every": 2, "preview_every": 3, "precision": "fp32"}
    whole = RT2TabletopRecipe(base=str(_base(folder / "base")), robot_share=0.6, questions=2, num_bins=32, views=3)
    return replace(
        whole,
        speech=replace(whole.speech, **short),
        arm=replace(whole.arm, **short),
        optimization=replace(whole.optimization, **short),
        expert_width=16,
        scenes=(1,),
        data=folder / "data",
        cache=folder / "cache",
        preview_episodes=1,
    )


@pytest.fixture(scope="module")
def examples(recipe: RT2TabletopRecipe, tmp_path_factory: pytest.TempPathFactory) -> RT1Examples:
    return RT1Examples.prepare(plan_of(recipe, RT1Config()), tmp_path_factory.mktemp("out"))


def _speech(recipe: RT2TabletopRecipe, examples: RT1Examples) -> RobotSpeech:
    base = ornstein.load(recipe.base, expect="vision-language")
    return RobotSpeech(base.tokenizer.with_actions(recipe.num_bins), examples.contract, recipe.pointers)


def test_it_acts_answers_and_resumes_to_the_same_bits(recipe: RT2TabletopRecipe, tmp_path: Path) -> None:
    """Cut off while it learns to speak, and again while its expert practises what it was corrected in."""
    whole = train_rt2_tabletop(recipe, tmp_path / "whole")
    for stage in ("speech", "arm", "."):
        (sheet,) = (tmp_path / "whole" / stage / "previews").glob("*.png")
    assert "-of-1-answers-" in sheet.name
    policy = ornstein.load(tmp_path / "whole", expect="rt2")
    state = np.zeros(len(policy.contract.state), np.float32)
    action = policy.act({"pixels": {"front": np.zeros((128, 128, 3), np.uint8)}, "agent_pos": state, "instruction": "pick it up"})
    assert action.shape == (7,)
    answering = ornstein.load(tmp_path / "whole", expect="vision-language")
    assert answering.answer(np.zeros((1, 128, 128, 3), np.uint8), ["what is this?"], most=3)
    with pytest.raises(CheckpointError, match="of kind 'rt2', but one of kind 'rt1'"):
        ornstein.load(tmp_path / "whole", expect="rt1")

    for kind, call, resume in ((RT2Batches, 3, False), (Practice, 6, True)):
        name = "at" if kind is RT2Batches else "batch"
        with _stopping_at(kind, name, call), pytest.raises(KeyboardInterrupt):
            train_rt2_tabletop(recipe, tmp_path / "cut", resume=resume)
    resumed = train_rt2_tabletop(recipe, tmp_path / "cut", resume=True)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@contextmanager
def _stopping_at(kind: type, name: str, call: int) -> Iterator[None]:
    made, calls = getattr(kind, name), []

    def stop(batches: object, indices: np.ndarray) -> object:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return made(batches, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, name, stop)
        yield


def test_a_step_shows_as_many_of_each_kind_as_is_said(recipe: RT2TabletopRecipe, examples: RT1Examples) -> None:
    speech = _speech(recipe, examples)
    for share, stills in ((0.6, 0.5), (1.0, 0.0), (0.25, 1.0), (0.5, 2.0)):
        batches = RT2Batches(replace(recipe, robot_share=share, stills=stills), examples, speech)
        found = batches.at(np.arange(40, 60))
        robots = round(20 * share)
        assert len(found["robot_pictures"]) == robots
        assert len(found.get("still_pictures", ())) == round(robots * stills)
        assert len(found.get("web_pictures", ())) == 20 - robots


def test_a_picture_is_what_its_number_says_whoever_draws_the_rest(recipe: RT2TabletopRecipe, examples: RT1Examples) -> None:
    """Several processes see together what one sees alone."""
    batches = RT2Batches(recipe, examples, _speech(recipe, examples))
    whole, parts = batches.at(np.arange(20)), [batches.at(np.arange(k, k + 5)) for k in range(0, 20, 5)]
    for name in ("robot_pictures", "robot_state", "still_pictures", "web_pictures"):
        assert torch.equal(whole[name], torch.cat([part[name] for part in parts if name in part])), name


def test_what_is_asked_of_the_robot_is_in_the_data(recipe: RT2TabletopRecipe, examples: RT1Examples) -> None:
    """Each text's answer, decoded, is a bin from what the expert did, at the places of the data's own pointers."""
    speech = _speech(recipe, examples)
    indices = np.arange(5)
    share = replace(recipe, robot_share=1.0)
    batch = RT2Batches(share, examples, speech).at(indices)
    drawn = examples.windows.at(indices)
    for k in range(5):
        answer = batch["robot_tokens"][k][batch["robot_answered"][k]].tolist()
        said = speech.understood(answer)
        assert (np.abs(said.action - drawn.actions[k, 0]) <= _half_bins(examples, recipe.num_bins)).all()
        assert said.pointers is not None
        np.testing.assert_allclose(said.pointers, drawn.pointers[k, 0].clip(-1, 1), atol=1 / 64 + 1e-6)
    still = batch["still_tokens"][0][batch["still_answered"][0]].tolist()
    views = examples.views
    assert views is not None
    _, _, pointers = views.stills(indices[:1])
    assert still == speech.where(pointers[0][0])


def _half_bins(examples: RT1Examples, bins: int) -> np.ndarray:
    return np.array([(channel.high - channel.low) / bins / 2 + 1e-6 for channel in examples.contract.action])


def test_only_what_is_new_learns_where_that_is_asked_for(
    recipe: RT2TabletopRecipe, examples: RT1Examples, tmp_path: Path
) -> None:
    """Trained as users train it, decay and all."""
    frozen = replace(recipe, learning="new", expert_width=0)
    base = ornstein.load(recipe.base, expect="vision-language")
    before = initialise(lambda: begun(frozen, base, examples), frozen.speech.seed).network.state_dict()
    trained = train_rt2_tabletop(frozen, tmp_path)
    after, actions = trained.model.state_dict(), list(ornstein.load(tmp_path, expect="rt2").model.tokenizer.actions)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"tokens_in.weight", "state_in.weight", "state_in.bias"}
    rows = (after["tokens_in.weight"] != before["tokens_in.weight"]).any(-1).nonzero()[:, 0].tolist()
    assert rows
    assert set(rows) <= set(actions)


def test_from_scratch_keeps_nothing_but_sizes(recipe: RT2TabletopRecipe, examples: RT1Examples) -> None:
    base = ornstein.load(recipe.base, expect="vision-language")
    scratch, kept = (initialise(lambda s=s: begun(replace(recipe, start=s), base, examples), 3) for s in ("scratch", "base"))
    assert torch.equal(kept.network.vision.norm.weight, base.network.vision.norm.weight)
    first = "vision.convolutions.stem.weight"
    assert torch.equal(kept.network.state_dict()[first], base.network.state_dict()[first])
    assert not torch.equal(scratch.network.state_dict()[first], base.network.state_dict()[first])
    assert scratch.tokenizer == kept.tokenizer


def test_what_is_refused(recipe: RT2TabletopRecipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing of the robot"):
        replace(recipe, robot_share=0.0)
    with pytest.raises(UnknownNameError, match="bae"):
        replace(recipe, start="bae")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="of kind 'rt1', but one of kind 'vision-language'"):
        train_rt2_tabletop(replace(recipe, base="rt1-tabletop"), tmp_path / "other")
    with pytest.raises(DataError, match="need as many codes"):
        train_rt2_tabletop(replace(recipe, num_bins=3000), tmp_path / "bins")
    for change, complaint in (
        ({"expert_depth": 0}, "expert_depth"),
        ({"expert_dropout": 1.5}, "expert_dropout"),
        ({"views": 0}, "views"),
        ({"adapter_rank": 0}, "adapter_rank"),
        ({"disturbance": 2.0}, "disturbance"),
    ):
        with pytest.raises(DataError, match=complaint):
            replace(recipe, **change)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="give a state_size of"):
        train_rt2_tabletop(replace(recipe, state_size=99), tmp_path / "state")
    with pytest.raises(DataError, match="an expert decides by the places"):
        replace(recipe, pointers=False)
    train_rt2_tabletop(replace(recipe, pointers=False, expert_width=0, stills=0.0), tmp_path / "plain")
    assert ornstein.load(tmp_path / "plain", expect="rt2").network.expert is None


def test_adapters_learn_beside_a_frozen_model_and_are_merged(
    recipe: RT2TabletopRecipe, examples: RT1Examples, tmp_path: Path
) -> None:
    """Of the old weights none changes while it trains (but for the rounding of what is kept); what is loaded computes the same without adapters; a second stage goes on from there."""
    adapted = replace(recipe, learning="adapters", adapter_rank=2, speech=replace(recipe.speech, learning_rate=0.05))
    base = ornstein.load(recipe.base, expect="vision-language")
    before = initialise(lambda: begun(adapted, base, examples), adapted.speech.seed).network.state_dict()
    train_rt2_tabletop(adapted, tmp_path)
    stage = read_checkpoint(tmp_path / "speech" / "model")
    after = {name: torch.as_tensor(value).float() for name, value in stage.tensors().items()}
    new = ("tokens_in.weight", "state_in.weight", "state_in.bias")
    changed = {name for name in after if not torch.allclose(after[name], before[name].float(), rtol=2e-3, atol=1e-4)}
    assert changed == {name for name in after if "lora_" in name} | set(new)

    loaded = ornstein.load(tmp_path / "speech", expect="rt2").network
    assert loaded.config.adapter_rank == 0
    assert not any("lora_" in name for name in loaded.state_dict())
    config = {name: value for name, value in stage.config.items() if name not in ("tokenizer", "pointers")}
    apart = RT2Network(RT2Config(**config))
    apart.load_state_dict(after)
    pictures = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([base.tokenizer.encode("Q: what is this? A:")] * 2)
    with torch.inference_mode():
        one, other = (net.eval()(net.see(pictures), tokens) for net in (apart, loaded))
        plain = base.network(base.network.see(pictures), tokens)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert (other[..., : plain.shape[-1]] - plain).abs().max() > 1e-2
    assert ornstein.load(tmp_path, expect="rt2").network.expert is not None


def test_adapters_without_peft_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"ornstein\[vlm\]"):
        RT2Network(replace(RT2Config(**asdict(NETWORK)), adapter_rank=1))


@pytest.mark.parametrize(("family", "learning"), [("smolvlm", "adapters"), ("paligemma", "all")])
def test_anothers_model_learns_to_act(recipe: RT2TabletopRecipe, tmp_path: Path, family: str, learning: str) -> None:
    """One path is another; what comes out is a checkpoint that needs no other folder, acts and answers."""
    base = save_model(family, tmp_path / "base")
    foreign = replace(recipe, base=str(base), learning=learning, adapter_rank=2)  # type: ignore[arg-type]
    train_rt2_tabletop(foreign, tmp_path / "run")
    shutil.rmtree(base)
    policy = ornstein.load(tmp_path / "run", expect="rt2")
    state = np.zeros(len(policy.contract.state), np.float32)
    action = policy.act({"pixels": {"front": np.zeros((128, 128, 3), np.uint8)}, "agent_pos": state, "instruction": "pick it up"})
    assert action.shape == (7,)
    assert policy.model.answer(np.zeros((1, 128, 128, 3), np.uint8), ["what is this?"], most=3)
    part = {"smolvlm": "text_model", "paligemma": "language_model"}[family]
    before, after = (
        read_checkpoint(tmp_path / "run" / stage / "model").tensors()[f"backbone.model.{part}.norm.weight"]
        for stage in ("speech", ".")
    )
    np.testing.assert_array_equal(before, after)  # the expert's practice changes nothing of the model
