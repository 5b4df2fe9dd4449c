"""Trials of the tabletop's suites: the same whatever runs them and however often they are stopped; and two results side by side."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ornstein.cli import main
from ornstein.core import Camera, Channel
from ornstein.core.errors import ContractError, DataError, OrnsteinError
from ornstein.evaluation import compare_results, evaluate_suite, mcnemar_exact
from ornstein.evaluation.notebook import Notebook
from ornstein.evaluation.trials import ExpertPlayer, PolicyPlayer, Trial, told, trials, try_scene, world_for
from ornstein.policies.grammar import goals_of
from ornstein.simulation.tabletop import Scene, TabletopEnv, Variation, contract, sample_scene, suite

TRIALS = 6


class Still:
    """Never moves, and notes what it is told."""

    def __init__(self, **changes: Any) -> None:
        self.contract = replace(contract({}), **changes)
        self.heard: list[str] = []

    def reset(self) -> None:
        self.heard.append("")

    def act(self, observation: Any) -> np.ndarray:
        self.heard[-1] = observation["instruction"]
        return np.zeros(7, np.float32)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "expert"
    evaluate_suite("expert", "all", episodes=TRIALS, split="validation", out=out)
    return out


def _without_times(out: Path) -> dict[str, Any]:
    record = json.loads((out / "results.json").read_text())
    return {key: value for key, value in record.items() if key not in ("seconds", "command")}


def test_the_expert_solves_them_and_the_record_says_how(result: Path) -> None:
    record = json.loads((result / "results.json").read_text())
    assert (record["successes"], record["episodes"], record["suite"], record["split"]) == (TRIALS, TRIALS, "all", "validation")
    assert record["first_seed"] == 2_000_000
    assert sum(part["episodes"] for part in record["by_task"].values()) == TRIALS
    assert len(list((result / "videos").glob("success-*.mp4"))) == 4
    scene = Scene.from_json(record["per_episode"][0]["scene"])
    assert record["per_episode"][0]["instruction"] == scene.instruction


def test_neither_processes_nor_interruptions_change_anything(result: Path, tmp_path: Path) -> None:
    evaluate_suite("expert", "all", episodes=TRIALS, split="validation", out=tmp_path / "two", workers=2)
    assert _without_times(tmp_path / "two") == _without_times(result)
    # Stopped after three trials, the last of them half written.
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    lines = (result / "trials.jsonl").read_text().splitlines()
    (stopped / "trials.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:200])
    evaluate_suite("expert", "all", episodes=TRIALS, split="validation", out=stopped)
    assert _without_times(stopped) == _without_times(result)
    # A third of it first, all of it later.
    evaluate_suite("expert", "all", episodes=2, split="validation", out=tmp_path / "more")
    evaluate_suite("expert", "all", episodes=TRIALS, split="validation", out=tmp_path / "more")
    assert _without_times(tmp_path / "more") == _without_times(result)


def test_other_settings_do_not_mix(result: Path) -> None:
    with pytest.raises(DataError, match=r"suite: all before, pick now"):
        evaluate_suite("expert", "pick", episodes=1, split="validation", out=result)


def test_what_a_policy_is_told() -> None:
    still = Still()
    env = TabletopEnv(cameras={}, max_steps=2)
    trials = [
        try_scene(PolicyPlayer(still), env, 3, control=control)  # type: ignore[arg-type]
        for control in ("none", "blank", "shuffled")
    ]
    assert still.heard == [trial.instruction for trial in trials]
    assert (trials[0].instruction, trials[1].instruction) == (trials[0].scene.instruction, "")
    assert not any(trial.success for trial in trials)


@pytest.mark.parametrize("name", ["all", "chains"])
def test_a_shuffled_sentence_names_other_things(name: str) -> None:
    variation = suite(name).variation
    env = TabletopEnv(cameras={}, variation=variation)
    for seed in range(60):
        scene = sample_scene(seed, variation)
        shuffled = told(scene, env, seed, "shuffled")
        assert shuffled != scene.instruction
        for task in scene.tasks if name == "all" else ():
            if task.skill in ("open_drawer", "close_drawer"):
                (asked,) = goals_of(shuffled, (), (), ())
                assert {asked.skill, task.skill} == {"open_drawer", "close_drawer"}
            elif task.block is not None:
                assert not re.search(rf"\b{scene.blocks[task.block].name}\b", shuffled)


def test_a_trial_is_a_function_of_its_seed() -> None:
    player = ExpertPlayer("arm6")
    env = world_for(player.contract, suite("chains"))
    first, _, again = (try_scene(player, env, seed) for seed in (4, 5, 4))
    assert first.to_json() == again.to_json()
    assert all(np.array_equal(a, b) for a, b in zip(first.film, again.film, strict=True))
    assert Trial.from_json(json.loads(json.dumps(first.to_json()))).to_json() == first.to_json()
    assert env.variation == Variation(tasks=(2, 3))


_ACTION = contract().action
MISMATCHES = [
    ({"gripper": "0 closed … 1 open"}, "gripper: 0 closed … 1 open != 0 open … 1 closed"),
    ({"action": (*_ACTION[:6], Channel("gripper", "1", -1.0, 1.0))}, "action.gripper.low: -1.0 != 0.0"),
    ({"action": (Channel("dx", "m", -0.05, 0.03), *_ACTION[1:])}, "action.dx.low: -0.05 != -0.03"),
    ({"action": (Channel("dx", "cm", -0.03, 0.03), *_ACTION[1:])}, "action.dx.unit: cm != m"),
    ({"action": _ACTION[::-1]}, "action: gripper, dyaw"),
    ({"rotation": "quaternion"}, "rotation: quaternion != extrinsic xyz Euler, radians"),
    ({"action_frame": "absolute, tool frame"}, "action_frame: absolute, tool frame != delta of"),
    ({"control_hz": 5.0}, "control_hz: 5.0 != 10.0"),
    ({"chunk_length": 8}, "chunk_length: 8 != 1"),
    ({"cameras": (Camera("front", 96, 128),)}, "cameras.front.width: 128 != 96"),
    ({"cameras": (Camera("front", 128, 128, "BGR"),)}, "cameras.front.color: BGR != RGB"),
    ({"state": contract().state[:6]}, "state: x, y, z, roll, pitch, yaw != x, y, z, roll, pitch, yaw, gripper"),
]


@pytest.mark.parametrize(("change", "line"), MISMATCHES, ids=[line.split(":")[0] for _, line in MISMATCHES])
def test_a_policy_for_another_body_is_refused_and_the_field_named(change: dict[str, Any], line: str) -> None:
    with pytest.raises(ContractError, match="the policy does not fit the tabletop") as caught:
        world_for(replace(contract({"front": 128}), **change), suite("pick"))
    assert line in str(caught.value)


def test_the_tabletop_shows_what_the_policy_asks_for_in_its_order() -> None:
    asked = replace(contract(), cameras=(Camera("wrist", 32, 32), Camera("front", 64, 64)))
    env = world_for(asked, suite("pick"))
    try:
        pixels = env.reset(seed=0)[0]["pixels"]
        assert [(name, picture.shape[0]) for name, picture in pixels.items()] == [("wrist", 32), ("front", 64)]
        asked.require_match(env.contract, "the policy", "the tabletop")
    finally:
        env.close()


def test_policies_for_other_robots_are_refused() -> None:
    with pytest.raises(DataError, match="made for somebody-else"):
        world_for(Still(robot="somebody-else").contract, suite("pick"))


def test_mistakes_are_named(tmp_path: Path) -> None:
    for wrong, message in (
        ({"suite_name": "pik"}, "pick"),
        ({"split": "train"}, "split"),
        ({"episodes": 0}, "at least 1"),
        ({"source": "autoencoder"}, "is no policy"),
        ({"arm": "arm9"}, "arm"),
    ):
        arguments: dict[str, Any] = {"source": "expert", "suite_name": "pick", "episodes": 1, "out": tmp_path / "x", **wrong}
        with pytest.raises(OrnsteinError, match=message):
            evaluate_suite(arguments.pop("source"), arguments.pop("suite_name"), **arguments)
    (tmp_path / "file").write_text("")
    with pytest.raises(OrnsteinError, match="cannot write into"):
        evaluate_suite("expert", "pick", episodes=1, out=tmp_path / "file" / "results")


def _fake(folder: Path, outcomes: list[bool], first: int = 0, **changes: Any) -> Path:
    folder.mkdir()
    rows = [{"seed": first + k, "success": success} for k, success in enumerate(outcomes)]
    record = {"suite": "pick", "arm": "arm7", "instruction_control": "none", "per_episode": rows, **changes}
    (folder / "results.json").write_text(json.dumps(record))
    return folder


def test_two_policies_on_the_same_scenes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weak = rng.random(60) < 0.4
    strong = weak | (rng.random(60) < 0.6)
    a, b = _fake(tmp_path / "a", strong.tolist()), _fake(tmp_path / "b", weak.tolist())
    found = compare_results(a, b)
    assert (found.only_a, found.only_b) == (int((strong & ~weak).sum()), 0)
    assert found.p_value == mcnemar_exact(strong, weak) < 0.05
    assert found.verdict() == f"{a} is better"
    same = compare_results(a, _fake(tmp_path / "c", strong[::-1].tolist()))
    assert same.verdict() == "not distinguishable"
    # Only the scenes that both ran count.
    part = compare_results(a, _fake(tmp_path / "d", weak[10:].tolist(), first=10))
    assert part.rates == ((int(strong[10:].sum()), 50), (int(weak[10:].sum()), 50))
    done = subprocess.run(
        [sys.executable, "-m", "ornstein", "compare", str(a), str(b)], capture_output=True, text=True, check=True
    )
    assert "is better" in done.stdout


def test_unlike_results_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = _fake(tmp_path / "a", [True])
    for other, message in (
        (_fake(tmp_path / "b", [True], suite="stack"), "only like can be compared"),
        (_fake(tmp_path / "c", [True], first=5), "share no scene"),
        (tmp_path / "nowhere", "there is no"),
    ):
        with pytest.raises(DataError, match=message):
            compare_results(a, other)
    with pytest.raises(SystemExit) as stop:  # one of them has not been evaluated: not a folder of pictures
        main(["compare", str(a), str(tmp_path)])
    assert stop.value.code == 2
    assert "`ornstein evaluate" in capsys.readouterr().err
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "results.json").write_text("{}")
    with pytest.raises(DataError, match="no result of"):
        compare_results(a, tmp_path / "d")


def test_a_damaged_line_is_named_and_another_policys_film_is_not_kept(tmp_path: Path) -> None:
    evaluate_suite("expert", "close-drawer", episodes=3, out=tmp_path)
    films = tmp_path / ".films"
    assert len(list(films.glob("*.npy"))) == 3
    lines = (tmp_path / "trials.jsonl").read_text().split("\n")
    lines[2] = lines[2][:60]
    (tmp_path / "trials.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"trials\.jsonl, line 3, is damaged"):
        evaluate_suite("expert", "close-drawer", episodes=3, out=tmp_path)
    evaluate_suite("expert", "close-drawer", episodes=1, out=tmp_path, overwrite=True)
    assert len(list(films.glob("*.npy"))) == 1


def test_a_notebook_keeps_films_of_what_is_shown(tmp_path: Path) -> None:
    player = ExpertPlayer()
    env = world_for(player.contract, suite("close-drawer"))
    trial = try_scene(player, env, 3)
    book = Notebook(tmp_path, {"suite": "close-drawer"})
    book.write(trial)
    kept = Notebook(tmp_path, {"suite": "close-drawer"})
    assert [t.to_json() for t in kept.trials] == [trial.to_json()]
    assert all(np.array_equal(a, b) for a, b in zip(kept.film(trial), trial.film, strict=True))


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ornstein", "evaluate", "expert", "--suite", "close-drawer", "--episodes", "2"]
    done = subprocess.run([*command, "--out", str(tmp_path / "r")], capture_output=True, text=True, check=True)
    assert "2 of 2" in done.stdout
    page = (tmp_path / "r" / "report.html").read_text()
    assert "2 of 2 scenes solved" in page
    assert page.count("<video") == 2


def test_a_policy_computes_with_one_thread_whoever_runs_it() -> None:
    """Else roundings, and with them actions, would depend on the number of processes."""
    used = set()

    class Counting(Still):
        def act(self, observation: Any) -> np.ndarray:
            used.add(torch.get_num_threads())
            return super().act(observation)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(trials(PolicyPlayer(Counting()), "", suite("pick"), range(2_000_000, 2_000_001)))
        assert used == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
