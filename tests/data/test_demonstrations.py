"""Demonstrations of a suite: what is recorded is what happened, by any number of processes, and nothing kept for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ornstein.core.errors import DataError, OrnsteinError
from ornstein.data.demonstrations import record_demonstrations
from ornstein.data.lerobot import LeRobotDataset, validate_dataset
from ornstein.data.recording import Generated
from ornstein.simulation.tabletop import SUITES, Style, TabletopEnv, Variation, contract, generate_episode, leaks, sample_scene

SEED, NOISE, SIZES, EPISODES = 40, 0.1, {"front": 48, "wrist": 32}, 5


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    out = tmp_path_factory.mktemp("recorded") / "data"
    return record_demonstrations(
        out, episodes=EPISODES, seed=SEED, noise=NOISE, workers=1, cameras=SIZES, arm="arm6", vary=("lights",)
    )


def test_the_data_are_the_experts_episodes(recorded: Generated) -> None:
    data = LeRobotDataset(recorded.folder)
    assert (len(data.episodes), len(data), data.fps) == (EPISODES, recorded.frames, 10)
    assert data.contract is not None
    assert data.contract.differences(contract(SIZES, "arm6")) == []
    assert data.provenance["suite"] == "all"
    env = TabletopEnv(variation=Variation(lights=True), cameras=SIZES, arm="arm6")
    for index in (0, EPISODES - 1):
        simulated, stored = generate_episode(env, data.episodes[index].seed, noise=NOISE), data.episode(index)
        assert stored.instruction == simulated.instruction
        np.testing.assert_array_equal(stored.actions, simulated.actions)
        np.testing.assert_array_equal(stored.states, simulated.states)
        for camera in SIZES:
            error = np.mean((stored.frames[camera].astype(float) - simulated.frames[camera]) ** 2)
            assert 10 * np.log10(255**2 / error) > 35
    env.close()
    validate_dataset(recorded.folder)


def test_the_data_do_not_depend_on_the_number_of_workers(
    recorded: Generated, tmp_path: Path, same_data: Callable[[Path, Path], bool]
) -> None:
    again = record_demonstrations(
        tmp_path / "data", episodes=EPISODES, seed=SEED, noise=NOISE, workers=2, cameras=SIZES, arm="arm6", vary=("lights",)
    )
    assert same_data(again.folder, recorded.folder)


def test_what_is_kept_for_evaluation_is_not_recorded(tmp_path: Path) -> None:
    kept = ("unseen-phrasing", "unseen-objects", "held-out-objects", "held-out-pairs")
    kept += ("symbols", "sums", "categories", "reasons", "described-chains")
    for name in kept:
        with pytest.raises(DataError, match="kept for evaluation"):
            record_demonstrations(tmp_path / "data", name, episodes=1)
        assert any(leaks(sample_scene(seed, SUITES[name].variation)) for seed in range(3))
    env = TabletopEnv(cameras={}, variation=Variation(split="web_only"))
    with pytest.raises(DataError, match=r"scene 0 must not be recorded: object"):
        generate_episode(env, 0)
    for name in set(SUITES) - set(kept):
        assert not any(leaks(sample_scene(seed, SUITES[name].variation)) for seed in range(10)), name
    assert list(tmp_path.iterdir()) == []


def test_manners_are_drawn_or_plain(tmp_path: Path) -> None:
    """The plain one is the fastest."""
    made = record_demonstrations(tmp_path / "data", "pick", episodes=3, seed=SEED, workers=1, cameras={}, plain=True)
    data, env = LeRobotDataset(made.folder), TabletopEnv(variation=SUITES["pick"].variation, cameras={})
    assert data.provenance["plain"] is True
    both = []
    for index, episode in enumerate(data.episodes):
        both.append([generate_episode(env, episode.seed, style=style) for style in (Style(), None)])
        np.testing.assert_array_equal(data.episode(index).actions, both[-1][0].actions)
    env.close()
    assert sum(len(plain) for plain, _ in both) < sum(len(drawn) for _, drawn in both)


def test_mistakes_are_named(tmp_path: Path) -> None:
    for wrong, message in (
        ({"suite_name": "pik"}, "pick"),
        ({"vary": ("weather",)}, "aspect of a look"),
        ({"arm": "arm9"}, "arm"),
        ({"noise": 1.5}, "probability"),
        ({"episodes": 0}, "at least 1"),
        ({"seed": 999_999}, "belong to evaluations"),
        ({"cameras": {"front": 4}}, "16 to"),
    ):
        with pytest.raises(OrnsteinError, match=message):
            record_demonstrations(tmp_path / "data", **{"episodes": 1, **wrong})  # type: ignore[arg-type]
