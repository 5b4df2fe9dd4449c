"""The whole road, tiny: record, train, interrupt, resume, export, load, evaluate."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ornstein
from ornstein import policies
from ornstein.actions import action_chunks
from ornstein.core.errors import ContractError, DataError, TrainingError
from ornstein.data import recording
from ornstein.data.lerobot import LeRobotDataset
from ornstein.data.pointed_views import PointedViews
from ornstein.data.robot_windows import RobotWindows
from ornstein.data.spoken_tasks import SpokenTasks
from ornstein.evaluation import VALIDATION_SEED, evaluate_suite
from ornstein.language import UniversalSentenceEncoder
from ornstein.policies import RT1Config
from ornstein.recipes.rt1_examples import RT1Examples
from ornstein.recipes.rt1_practice import _preview, loss_on_expert
from ornstein.recipes.rt1_tabletop import RT1TabletopRecipe, train_rt1_tabletop
from ornstein.simulation.tabletop import Expert, TabletopEnv, Variation, contract, sample_scene
from ornstein.training import Optimization

NETWORK = RT1Config(image_size=64, history=2, channels=(8, 8), blocks=(1, 1), tokens=2, width=16, depth=1, heads=2)


def _recipe(**changes: object) -> RT1TabletopRecipe:
    optimization = Optimization(
        steps=4,
        batch_size=2,
        learning_rate=1e-3,
        warmup_steps=1,
        log_every=1,
        checkpoint_every=2,
        preview_every=4,
        precision="fp32",
    )
    recipe = RT1TabletopRecipe(
        network=NETWORK,
        reading=optimization,
        sight=optimization,
        arm=optimization,
        optimization=optimization,
        episodes=3,
        views=5,
        sentences=20,
        scenes=(2, 1),
        preview_episodes=2,
    )
    return replace(recipe, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "rt1"
    train_rt1_tabletop(_recipe(), out)
    return out


def test_the_exported_policy_can_be_evaluated_and_names_its_origin(trained: Path, tmp_path: Path) -> None:
    policy = ornstein.load(trained, expect="rt1")
    data = LeRobotDataset(trained / "data")
    assert policy.contract.statistics is not None
    assert policy.contract.statistics.count == len(data)
    np.testing.assert_allclose(policy.network.state_mean, data.states.mean(0), rtol=1e-4, atol=1e-6)
    evaluate_suite(str(trained), "pick", episodes=1, out=tmp_path / "results")
    record = json.loads((tmp_path / "results" / "results.json").read_text())
    assert record["training_data"] == data.fingerprint
    assert record["checkpoint"] == policy.fingerprint
    assert record["episodes"] == 1


def test_a_batch_shows_sentence_state_and_action_of_the_same_moment(trained: Path, tmp_path: Path) -> None:
    """Against the data set read row by row."""
    data = LeRobotDataset(trained / "data")
    windows = RobotWindows(data, "front", 2, tmp_path, seed=3)
    views = PointedViews(5, trained / "cache", size=64, variation=_recipe().look)
    spoken = SpokenTasks(7)
    encoder = UniversalSentenceEncoder()
    chunks = action_chunks(data.actions, [episode.stop for episode in data.episodes], 2)
    examples = RT1Examples(data, contract({"front": 64}), windows, views, spoken, encoder, chunks, {})
    batch = examples.sight_batch(np.arange(8), NETWORK, 3)
    frames = np.stack(list(data.frames("front")))
    for k in range(8):
        # At rest, arms of several episodes stand alike: pictures tell them apart.
        rows = [r for r in range(len(data)) if np.array_equal(data.states[r], batch["state"][k, 0].numpy())]
        (row,) = [r for r in rows if np.array_equal(frames[r : r + 2], batch["pictures"][k].numpy())]
        episode = next(e for e in data.episodes if e.start <= row < e.stop)
        assert row + 2 <= episode.stop
        np.testing.assert_array_equal(batch["state"][k], data.states[row : row + 2])
        np.testing.assert_array_equal(batch["sentence"][k], encoder.read([episode.task], 24)[0])
        np.testing.assert_array_equal(batch["actions"][k, :, 0], data.actions[row : row + 2])
        if row + 3 <= episode.stop:
            np.testing.assert_array_equal(batch["actions"][k, :, 1], data.actions[row + 1 : row + 3])
        assert data.pointers is not None
        np.testing.assert_array_equal(batch["pointers"][k], data.pointers[row : row + 2])
        np.testing.assert_array_equal(batch["headings"][k], data.column("observation.target_heading")[row : row + 2])
    stills = views.at(np.arange(24))
    np.testing.assert_array_equal(batch["view_pictures"], stills.pictures)
    np.testing.assert_array_equal(batch["view_things"], stills.things)
    np.testing.assert_array_equal(batch["view_sentence"], encoder.read(stills.sentences, 24))
    said, read = spoken.at(np.arange(8)), examples.spoken_batch(np.arange(8), NETWORK)
    np.testing.assert_array_equal(read["sentence"], encoder.read(said.sentences, 24))
    np.testing.assert_array_equal(read["goal"], said.goal)
    assert len({batch["actions"][k].numpy().tobytes() for k in range(8)}) > 4


def test_the_arm_practises_with_the_eyes_of_the_first_stage(trained: Path) -> None:
    """Eyes unchanged, all else moved on; what was kept of each frame is what the eyes see in it."""
    eyes, whole = (ornstein.load(folder, expect="rt1").network for folder in (trained / "sight", trained))
    before, after = eyes.state_dict(), whole.state_dict()
    for name in before:
        fixed = name.startswith(("reader.", "nowhere.", "vision.", "token_learner.", "aids.", "state_m", "state_s"))
        assert torch.equal(before[name], after[name]) == fixed, name
    (kept,) = (trained / "cache").glob("seen-*.npy")
    data, seen = LeRobotDataset(trained / "data"), np.load(kept)
    episode = data.episodes[1]
    pictures = torch.from_numpy(np.stack(list(data.frames("front")))[episode.start : episode.stop])
    with torch.inference_mode():
        words = eyes.eval().read(torch.from_numpy(UniversalSentenceEncoder().read([episode.task], 24)))
        expected, _ = eyes.see(pictures.permute(0, 3, 1, 2).float() / 255, words.expand(len(pictures), -1))
    np.testing.assert_allclose(seen[episode.start : episode.stop], expected, atol=2e-3, rtol=2e-3)


def test_an_interruption_in_either_stage_is_resumed_to_the_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ornstein.recipes import rt1_tabletop

    recipe, out = _recipe(data=trained / "data", preview_episodes=1), tmp_path / "run"
    for stage, calls in (("reading_loss", 3), ("rt1_loss", 3), ("decision_loss", 3), ("decision_loss", 3)):
        plain, count = getattr(policies, stage), 0

        def stopping(*arguments: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count > calls:  # noqa: B023  the loop's own
                raise KeyboardInterrupt
            return plain(*arguments, **named)  # noqa: B023

        with monkeypatch.context() as interrupted:
            interrupted.setattr(policies, stage, stopping)
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                rt1_tabletop.train_rt1_tabletop(recipe, out, resume=out.exists())
    train_rt1_tabletop(recipe, out, resume=True)
    mine, theirs = (ornstein.load(folder, expect="rt1").network.state_dict() for folder in (out, trained))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_eyes_of_another_recipe_are_not_taken_on_trust(trained: Path, tmp_path: Path) -> None:
    """Only the first stage is there, finished: without --resume it is no fresh start, with it the recipe must be the same."""
    shutil.copytree(trained / "reading", tmp_path / "reading")
    data = trained / "data"
    with pytest.raises(TrainingError, match="already holds a training run"):
        train_rt1_tabletop(_recipe(data=data), tmp_path)
    with pytest.raises(TrainingError, match=r"acting is 0\.7, was 0\.1"):
        train_rt1_tabletop(_recipe(data=data, acting=0.7), tmp_path, resume=True)


def test_data_that_look_wrong_are_pointed_out(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ornstein.recipes.rt1_examples import _demonstrations

    _demonstrations(_recipe(), trained)
    assert "look at the data: action.droll is always 0: a policy learns nothing from it" in capsys.readouterr().err


def test_data_of_unknown_origin_are_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "data"
    shutil.copytree(trained / "data", copy)
    monkeypatch.setattr(recording, "FIRST_EVALUATION_SEED", 1)
    with pytest.raises(DataError, match="belong to evaluations"):
        train_rt1_tabletop(_recipe(data=copy), tmp_path / "run")
    (named,) = copy.rglob("*contract*.json")
    named.unlink()
    with pytest.raises(ContractError, match="has no contract"):
        train_rt1_tabletop(_recipe(data=copy), tmp_path / "run")


def test_the_preview_says_how_many_scenes_were_solved(trained: Path) -> None:
    (sheet,) = (trained / "previews").iterdir()
    assert sheet.name.startswith("step-0000004-success-")
    assert re.search(r"-of-2-expert-loss-\d\.\d{3}\.png$", sheet.name)


def test_the_loss_on_the_experts_steps_is_of_its_own_way(trained: Path) -> None:
    """As by looking at all windows of pictures that the expert's own episode shows."""
    policy = ornstein.load(trained, expect="rt1")
    network, encoder = policy.network, UniversalSentenceEncoder()
    scenes = [sample_scene(seed, Variation(skills=("pick",))) for seed in (5, 6)]
    env, total, count = TabletopEnv(cameras={"front": 64}), 0.0, 0
    try:
        for scene in scenes:
            observation, _ = env.reset(options={"scene": scene})
            expert, done = Expert(), False
            pictures, states, actions = [], [], []
            while not done:
                pictures.append(observation["pixels"]["front"].copy())
                states.append(observation["agent_pos"])
                actions.append(expert.act(env))
                observation, _, terminated, truncated, _ = env.step(actions[-1])
                done = terminated or truncated
            sentence = torch.from_numpy(encoder.read([scene.instruction], network.config.word_pieces))
            for k in range(len(actions) - 1):
                shown, felt = (torch.from_numpy(np.stack(part[k : k + 2])[None]) for part in (pictures, states))
                decided, _ = network(shown, sentence, felt[..., : network.config.state_size])
                told = torch.from_numpy(np.stack(actions[k : k + 2])[:, None].astype(np.float32))
                total += network.head.loss(decided.flatten(0, 1), told, torch.Generator()).item()
                count += 1
        assert loss_on_expert(policy, env, scenes, 1) == pytest.approx(total / count, abs=2e-3)
    finally:
        env.close()


def test_previews_use_validation_scenes(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the demonstrations' scenes nor those that reported figures come from."""
    played = []
    reset = TabletopEnv.reset

    def watched(env: TabletopEnv, **arguments: object) -> object:
        played.append(arguments.get("seed"))
        return reset(env, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TabletopEnv, "reset", watched)
    policy = ornstein.load(trained, expect="rt1")
    seen = SimpleNamespace(contract=policy.contract)
    _preview(policy.network, seen, _recipe(preview_episodes=3), tmp_path / "step-1.png")  # type: ignore[arg-type]
    assert [seed for seed in played if seed is not None] == [VALIDATION_SEED, VALIDATION_SEED + 1, VALIDATION_SEED + 2]
    assert len(list(tmp_path.glob("step-1-success-*-of-3-expert-loss-*.png"))) == 1


def test_the_card_says_where_the_data_come_from(trained: Path) -> None:
    card = (trained / "model" / "card.md").read_text()
    for words in ("3 demonstrations", LeRobotDataset(trained / "data").fingerprint, "CC BY-SA 4.0"):
        assert words in card


def test_the_same_recipe_on_the_same_data_gives_the_same_weights(trained: Path, tmp_path: Path) -> None:
    recipe = _recipe(data=trained / "data", preview_episodes=1)
    train_rt1_tabletop(recipe, tmp_path / "again")
    mine, theirs = (ornstein.load(folder, expect="rt1").network.state_dict() for folder in (tmp_path / "again", trained))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_other_data_or_settings_cannot_be_resumed(trained: Path) -> None:
    with pytest.raises(TrainingError, match=r"smoothing_bins is 3\.0, was 1\.5"):
        train_rt1_tabletop(_recipe(smoothing_bins=3.0), trained, resume=True)


def test_data_for_another_picture_size_are_refused(trained: Path, tmp_path: Path) -> None:
    network = replace(NETWORK, image_size=128)
    with pytest.raises(ContractError, match="64"):
        train_rt1_tabletop(_recipe(network=network, data=trained / "data"), tmp_path / "run")


def test_two_processes_record_once_and_train_together(tmp_path: Path) -> None:
    """The command as a launcher runs it."""
    options = (
        "--episodes 3 --views 4 --sentences 20 --scenes 2 --preview-episodes 1 --network.image-size 64 --network.arm transformer --network.history 2 --network.channels 8 8 --network.blocks 1 1"
        " --network.tokens 2 --network.width 16 --network.depth 1 --network.heads 2 --optimization.steps 2 --optimization.batch-size 4"
        " --sight.steps 2 --sight.batch-size 4 --reading.steps 2 --arm.steps 2 --arm.batch-size 4"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ornstein"]
    command = [*launcher, "train", "rt1-tabletop", "--out", str(tmp_path / "run"), *options.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    policy = ornstein.load(tmp_path / "run", expect="rt1")
    assert policy.provenance["processes"] == 2
    assert len(LeRobotDataset(tmp_path / "run" / "data").episodes) == 3


def test_chunks_cannot_be_corrected() -> None:
    with pytest.raises(DataError, match="one action at a time"):
        _recipe(chunk=2)
    assert _recipe(chunk=2, scenes=()).chunk == 2
