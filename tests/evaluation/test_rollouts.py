from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import av
import numpy as np
import pytest

from ornstein.core.contract import EmbodimentContract
from ornstein.core.errors import ContractError, DataError, OrnsteinError, UnknownNameError
from ornstein.evaluation import TEST_SEED, VALIDATION_SEED, evaluate_policy, rollout, wilson_interval
from ornstein.evaluation.rollouts import _told
from ornstein.simulation import PickExpert, Scene, TabletopEnv, contract, sample_scene

Limit = Callable[[int], AbstractContextManager[None]]


class Oracle:
    """The expert behind the policy protocol, picking what the sentence names: it shows what a perfect policy would score."""

    checkpoint_path = None

    def __init__(self, env: TabletopEnv | None = None) -> None:
        self.env = env
        self.told: list[str] = []
        self.resets = 0

    @property
    def contract(self) -> EmbodimentContract:
        return contract(64)

    def reset(self) -> None:
        self.resets += 1

    def act(self, observation: dict[str, object]) -> np.ndarray:
        self.told.append(str(observation["instruction"]))
        assert set(observation) == {"pixels", "agent_pos", "instruction"}
        if self.env is None or not observation["instruction"]:
            return np.zeros(7, np.float32)
        scene = self.env.scene
        named = max((b.name for b in scene.blocks if b.name in self.told[-1]), key=len)
        self.env.scene = type(scene)(scene.blocks, [b.name for b in scene.blocks].index(named), scene.instruction)
        action = PickExpert().act(self.env)
        self.env.scene = scene
        return action


@pytest.fixture(scope="module")
def env() -> TabletopEnv:
    return TabletopEnv(image_size=64, max_steps=20)


def test_a_policy_that_follows_the_sentence_wins_and_falls_with_the_controls(env: TabletopEnv) -> None:
    policy = Oracle(env)
    for seed in range(TEST_SEED, TEST_SEED + 4):
        forgotten = policy.resets
        assert rollout(policy, env, seed).success
        assert policy.resets == forgotten + 1
        shuffled = rollout(policy, env, seed, control="shuffled")
        assert not shuffled.success
        assert shuffled.target not in shuffled.instruction
        assert shuffled.lifted == (shuffled.named,)
        assert shuffled.named in shuffled.instruction
    blank = rollout(policy, env, TEST_SEED, control="blank")
    assert (blank.success, blank.named, policy.told[-1]) == (False, "", "")


def test_results_are_whole_and_say_what_was_measured(tmp_path: Path) -> None:
    result = evaluate_policy(Oracle(), episodes=3, seed=5, out=tmp_path / "r")
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert (result.successes, result.episodes) == (0, 3)
    assert record["wilson95"] == list(wilson_interval(0, 3))
    assert [episode["seed"] for episode in record["per_episode"]] == [TEST_SEED + 5, TEST_SEED + 6, TEST_SEED + 7]
    assert 1 / 5 <= record["chance"] <= 1 / 3
    for key in (
        "command",
        "checkpoint",
        "checkpoint_commit",
        "training_data",
        "contract",
        "hardware",
        "seconds",
        "instruction_control",
    ):
        assert key in record
    videos = sorted((tmp_path / "r" / "videos").iterdir())
    assert len(videos) == 3
    with av.open(str(videos[0])) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == 1 + 40 * 5 + 25  # the start, forty steps of a fifth of a second, and the last picture for a second
    for episode in record["per_episode"]:
        assert Scene.from_json(episode["scene"]) == sample_scene(episode["seed"])
    assert not list(tmp_path.glob("r/.*"))


def test_results_are_not_overwritten_by_accident(tmp_path: Path) -> None:
    evaluate_policy(Oracle(), episodes=1, out=tmp_path)
    with pytest.raises(DataError, match="--overwrite"):
        evaluate_policy(Oracle(), episodes=1, out=tmp_path)
    evaluate_policy(Oracle(), episodes=1, out=tmp_path, overwrite=True)


def test_mistakes_stop_before_the_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="pick"):
        evaluate_policy(Oracle(), "pik", episodes=1, out=tmp_path)
    with pytest.raises(DataError, match="at least 1"):
        evaluate_policy(Oracle(), episodes=0, out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OrnsteinError, match="cannot write into"):
        evaluate_policy(Oracle(), episodes=1, out=tmp_path / "file" / "r")

    class Foreign(Oracle):
        @property
        def contract(self) -> EmbodimentContract:
            from dataclasses import replace

            return replace(contract(64), gripper="1 open … 0 closed", control_hz=10.0)

    with pytest.raises(ContractError, match=r"control_hz.*gripper|gripper.*control_hz"):
        evaluate_policy(Foreign(), episodes=1, out=tmp_path / "r")


def test_seeds_of_evaluation_and_demonstration_never_meet() -> None:
    from ornstein.data.generate import generate_dataset
    from ornstein.data.recording import FIRST_EVALUATION_SEED

    assert FIRST_EVALUATION_SEED <= TEST_SEED
    with pytest.raises(DataError, match="belong to evaluations"):
        generate_dataset(Path(os.devnull) / "x", episodes=10, seed=FIRST_EVALUATION_SEED - 5)


def test_films_are_kept_for_the_first_videos_only() -> None:
    from ornstein.evaluation.rollouts import EpisodeResult, _without_spare_films

    pose, scene = np.zeros(44, np.float32), sample_scene(0)
    results = (EpisodeResult(k, "", "", "", 3, k % 3 == 0, 1, (), 0, scene, [pose]) for k in range(20))
    kept = [(result.seed, result.success, bool(result.film)) for result in _without_spare_films(results)]
    assert [seed for seed, success, film in kept if film and success] == [0, 3, 6, 9]
    assert [seed for seed, success, film in kept if film and not success] == [1, 2, 4, 5]
    assert len(kept) == 20


def test_shuffling_needs_the_targets_name_in_the_sentence() -> None:
    scene = sample_scene(TEST_SEED)
    names = [block.name for block in scene.blocks]
    target = names[scene.target]
    told = {_told(scene.instruction, target, names, k, "shuffled") for k in range(50)}
    assert told == {(scene.instruction.replace(target, name), name) for name in names if name != target}
    with pytest.raises(DataError, match="does not say"):
        _told("pick up the tasty one", target, names, 0, "shuffled")


class Watcher(Oracle):
    """Notes what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []

    def act(self, observation: dict[str, object]) -> np.ndarray:
        self.seen.append((observation["pixels"]["front"].copy(), observation["agent_pos"].copy()))
        super().act(observation)
        return np.array([0.02, 0, 0, 0, 0, 0, 0], np.float32)


def test_a_policy_is_shown_what_is_there_now(env: TabletopEnv) -> None:
    policy = Watcher()
    rollout(policy, env, TEST_SEED)
    env.reset(seed=TEST_SEED)
    for picture, state in policy.seen[:6]:
        now = env._observe()
        np.testing.assert_array_equal(picture, now["pixels"]["front"])
        np.testing.assert_array_equal(state, now["agent_pos"])
        env.step(np.array([0.02, 0, 0, 0, 0, 0, 0], np.float32))
    assert not np.array_equal(policy.seen[0][0], policy.seen[5][0])


def test_chance_and_controls_are_recorded_and_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    """With the shipped policy, since workers load it themselves."""
    import ornstein

    policy = ornstein.load("rt1-tabletop", expect="rt1")
    records = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        evaluate_policy(policy, episodes=4, out=out, workers=workers, instruction_control="shuffled", split="validation")
        records.append(json.loads((out / "results.json").read_text()))
    one, two = records
    assert one["per_episode"] == two["per_episode"]
    for episode in one["per_episode"]:
        assert episode["named"] != episode["target"]
        assert episode["instruction"] != sample_scene(episode["seed"]).instruction
    assert (one["instruction_control"], one["split"], one["first_seed"]) == ("shuffled", "validation", VALIDATION_SEED)
    assert one["chance"] == np.mean([1 / len(sample_scene(VALIDATION_SEED + k).blocks) for k in range(4)])
    assert one["lifted_the_named_block"] == sum(e["named"] in e["lifted"] for e in one["per_episode"])


def test_foreign_files_are_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "holiday.mp4").write_text("dear to me")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="holiday"):
            evaluate_policy(Oracle(), episodes=1, out=tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_what_a_killed_evaluation_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".videos.tmp-1").mkdir()
    (tmp_path / ".videos.tmp-1" / "half.mp4").write_text("")
    (tmp_path / ".results.tmp-1").write_text("{")
    evaluate_policy(Oracle(), episodes=1, out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "videos"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, largest_file: Limit) -> None:
    with pytest.raises(OrnsteinError, match="cannot write the results"), largest_file(500):
        evaluate_policy(Oracle(), episodes=1, out=tmp_path / "r")
    assert not list((tmp_path / "r").iterdir())
