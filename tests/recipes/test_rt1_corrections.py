"""The expert's advice where a policy's own mistakes lead."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ornstein
from ornstein.core.checkpoint import write_checkpoint
from ornstein.core.errors import DataError
from ornstein.policies import RT1, RT1Config, RT1Policy
from ornstein.recipes import rt1_corrections
from ornstein.recipes.rt1_corrections import FIRST_SEED, Corrections, _scene, corrected_episode, corrections, joined
from ornstein.simulation.tabletop import Expert, TabletopEnv, contract, sample_scene, suite

NETWORK = RT1Config(image_size=64, history=2, channels=(8, 8), blocks=(1, 1), tokens=2, width=16, depth=1, heads=2)
HEAD = {"kind": "bins", "length": 1, "bins": {"num_bins": 256}}
VARIATION = replace(suite("all").variation, lights=True)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It knows nothing yet."""
    folder = tmp_path_factory.mktemp("policy") / "model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RT1(NETWORK, HEAD, contract({"front": 64}))
        with torch.no_grad():
            network.head.out.bias.normal_()
    write_checkpoint(
        folder,
        kind="rt1",
        config={**asdict(NETWORK), "head": HEAD, "execution": {"every": 1, "ensemble_decay": None}},
        tensors=network.state_dict(),
        provenance={},
        card="",
        contract=contract({"front": 64}),
    )
    return folder


def test_at_every_step_the_expert_says_what_it_would_do(policy: Path) -> None:
    """Played again with what was executed: the same states, and the expert's action from each; the eyes saw what the policy kept."""
    loaded = ornstein.load(policy, expect="rt1")
    assert isinstance(loaded, RT1Policy)
    scene = sample_scene(FIRST_SEED + 3, VARIATION)
    env, executed = TabletopEnv(cameras={"front": 64}), []
    step = env.step
    env.step = lambda action: (executed.append(action.copy()), step(action))[1]  # type: ignore[method-assign, func-returns-value]
    try:
        episode = corrected_episode(loaded, env, scene, FIRST_SEED + 3)
        env.step = step  # type: ignore[method-assign]
        observation, _ = env.reset(options={"scene": scene})
        expert, mine = Expert(), []
        loaded.reset()
        for k, action in enumerate(executed):
            np.testing.assert_array_equal(episode.states[k], observation["agent_pos"])
            np.testing.assert_array_equal(episode.actions[k], expert.act(env))
            mine.append(not np.array_equal(action, episode.actions[k]))
            chosen = loaded.act(observation)  # type: ignore[arg-type]
            np.testing.assert_allclose(episode.seen[k], loaded.seen, atol=2e-3, rtol=2e-3)
            if mine[-1]:
                np.testing.assert_array_equal(action, chosen)
            observation = env.step(action)[0]
    finally:
        env.close()
    assert 0.4 < np.mean(mine) < 1
    assert episode.sentence == observation["instruction"]
    assert episode.skill == scene.tasks[0].skill


def test_they_are_kept_and_each_scene_is_a_function_of_its_number(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = corrections(policy, VARIATION, 2, 0, tmp_path, workers=2)
    later = corrections(policy, VARIATION, 1, 1, tmp_path, workers=1)
    assert len(both.stops) == 2
    for name in ("seen", "states", "actions"):
        np.testing.assert_array_equal(getattr(both, name)[both.stops[0] :], getattr(later, name))
    assert both.sentences[1] == later.sentences[0]
    monkeypatch.setattr(rt1_corrections, "_write", lambda *_: pytest.fail("collected again"))
    again = corrections(policy, VARIATION, 2, 0, tmp_path)
    np.testing.assert_array_equal(again.actions, both.actions)
    for kept in tmp_path.glob("corrections-*-2.npz"):
        kept.write_bytes(b"cut")
    with pytest.raises(DataError, match="delete that file"):
        corrections(policy, VARIATION, 2, 0, tmp_path)


def test_skills_are_asked_for_as_often_as_they_weigh(policy: Path, tmp_path: Path) -> None:
    found = corrections(policy, VARIATION, 3, 0, tmp_path, weights={"push": 2.0, "pick": 0.0}, workers=1)
    assert found.skills.tolist() == ["push"] * 3
    drawn = [_scene(VARIATION, {"push": 3.0, "pick": 1.0}, seed).tasks[0].skill for seed in range(200)]
    assert 130 <= drawn.count("push") <= 170
    assert drawn.count("pick") == 200 - drawn.count("push")
    assert _scene(VARIATION, None, 7) == sample_scene(7, VARIATION)


def test_failures_are_told_by_skill() -> None:
    skills, solved = np.array(["push", "pick", "push", "push"]), np.array([False, True, True, False])
    empty = np.zeros((4, 1))
    found = Corrections(empty, empty, empty, np.arange(1, 5), skills, skills, solved)  # type: ignore[arg-type]
    assert found.failures() == {"pick": 1 / 3, "push": 3 / 5}


def test_windows_stay_within_an_episode() -> None:
    empty = np.zeros((9, 1))
    found = Corrections(
        empty, empty, empty, np.array([4, 6, 9]), np.array(["a", "b", "c"]), np.array(["pick"] * 3), np.zeros(3, bool)
    )  # type: ignore[arg-type]
    starts, episodes = found.windows(3)
    assert starts.tolist() == [0, 1, 6]
    assert episodes.tolist() == [0, 0, 2]
    starts, episodes = found.windows(1)
    assert starts.tolist() == list(range(9))
    assert episodes.tolist() == [0] * 4 + [1] * 2 + [2] * 3


def test_scenes_of_evaluations_are_refused(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evaluations begin"):
        corrections(policy, VARIATION, 600_000, 0, tmp_path)


def test_rounds_join_without_a_window_across_them() -> None:
    def advice(lengths: tuple[int, ...], number: int) -> Corrections:
        n = sum(lengths)
        return Corrections(
            np.full((n, 2, 3), number, np.float16),
            np.full((n, 7), number, np.float32),
            np.arange(7 * n, dtype=np.float32).reshape(n, 7),
            np.cumsum(lengths),
            np.array([f"{number}-{k}" for k in range(len(lengths))]),
            np.array(["pick"] * len(lengths)),
            np.ones(len(lengths), bool),
        )

    first, second = advice((5, 3), 1), advice((4,), 2)
    both = joined([first, second])
    assert both is not None
    assert joined([]) is None
    assert both.stops.tolist() == [5, 8, 12]
    assert both.sentences.tolist() == ["1-0", "1-1", "2-0"]
    starts, episodes = both.windows(3)
    assert starts.tolist() == [0, 1, 2, 5, 8, 9]
    assert episodes.tolist() == [0, 0, 0, 1, 2, 2]
    for start, episode in zip(starts, episodes, strict=True):
        assert set(both.states[start : start + 3, 0]) == {1.0 if episode < 2 else 2.0}
    assert np.array_equal(both.actions, np.concatenate([first.actions, second.actions]))
