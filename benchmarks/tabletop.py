"""The tabletop measured: can its faces be read, do experts, classical pipeline and learned policy solve it, how fast is it?

.venv/bin/python benchmarks/tabletop.py legibility | experts | pipeline | rt1 | speed | floor | cluster    # writes benchmarks/results/tabletop-NAME.json
"""

from __future__ import annotations

import multiprocessing
import pickle
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, share, write

from ornstein.evaluation import evaluate_suite, mcnemar_exact
from ornstein.evaluation.trials import load_player, trials
from ornstein.simulation.tabletop import SKILLS, Expert, TabletopEnv, Variation, sample_style, suite

TEST_SEED = 1_000_000
EPISODES = 300
VIEWS = 1000
#: Views that neither training nor its previews drew from.
VIEWS_SEED = 5
#: Validation scenes: only the clock looks at them.
TIMED_SEED = 2_500_000


def legibility() -> dict[str, Any]:
    """Of the things in fresh views: how many are found, named right and placed how exactly, in the default front picture of 128 px."""
    import torch

    import ornstein
    from ornstein.data.tabletop_views import KINDS, TabletopViews
    from ornstein.policies.sight import found_things

    policy = ornstein.load("modular-tabletop", expect="modular")
    views = TabletopViews(seed=VIEWS_SEED)
    found, named, n, off, false_alarms = 0, {"block": 0, "mat": 0}, {"block": 0, "mat": 0}, [], 0
    total = 0
    for start in range(0, VIEWS, 50):
        seen = views.at(range(start, start + 50))
        with torch.inference_mode():
            said = policy.network(torch.from_numpy(seen.pictures))
        for k in range(len(seen.pictures)):
            things = found_things(said, k)
            matched: set[int] = set()
            for m in np.flatnonzero(seen.present[k] & (np.abs(seen.place[k]) < 1).all(-1)):
                total += 1
                kind = KINDS[seen.kind[k, m]]
                near = [t for t in things if t.kind == seen.kind[k, m] and np.abs(t.place - seen.place[k, m]).max() < 0.08]
                if kind in n:
                    n[kind] += 1
                if near:
                    found += 1
                    matched.add(id(near[0]))
                    off.append(float(np.hypot(*(near[0].place - seen.place[k, m]))) * 64)
                    if kind in n:
                        named[kind] += int(near[0].names.argmax() == seen.name[k, m])
            false_alarms += sum(id(t) not in matched for t in things)
    views.close()
    return {
        "checkpoint": policy.fingerprint,
        "views": VIEWS,
        "views_seed": VIEWS_SEED,
        "found": share(found, total),
        "blocks_named_right_of_48": share(named["block"], n["block"]),
        "mats_named_right_of_14": share(named["mat"], n["mat"]),
        "false_alarms": false_alarms,
        "place_off_median_pixels": statistics.median(off),
        "face_pixels": _face_pixels(),
    }


def _face_pixels() -> dict[str, float]:
    """How wide a block's front edge is in the default front picture, over the area."""
    from ornstein.simulation.tabletop.scene import AREA_HIGH, AREA_LOW
    from ornstein.simulation.tabletop.world import project

    env = TabletopEnv(cameras={})
    env.reset(seed=0)
    widths = []
    for x in np.linspace(AREA_LOW[0], AREA_HIGH[0], 5):
        for y in np.linspace(AREA_LOW[1], AREA_HIGH[1], 5):
            left, right = (project(env.world, "front", np.array([x + 0.03, y + side, 0.06])) for side in (-0.03, 0.03))
            widths.append(float(right[0] - left[0]) * 64)
    return {"least": min(widths), "mean": statistics.mean(widths), "most": max(widths)}


def _solve(arm: str, skill: str, first: int, count: int) -> int:
    env = TabletopEnv(cameras={}, variation=Variation((skill,)), arm=arm)  # type: ignore[arg-type]
    solved = 0
    for seed in range(first, first + count):
        env.reset(seed=seed)
        expert, over, info = Expert(sample_style(np.random.default_rng([seed, 3]))), False, {"is_success": False}
        while not over:
            _, _, terminated, truncated, info = env.step(expert.act(env))
            over = terminated or truncated
        solved += bool(info["is_success"])
    return solved


def experts() -> dict[str, Any]:
    """Each skill with each arm, in manners drawn at random."""
    rates = {}
    for arm in ("arm7", "arm6"):
        for skill in SKILLS:
            rates[f"{arm} {skill}"] = share(_solve(arm, skill, TEST_SEED, EPISODES), EPISODES)
            print(arm, skill, rates[f"{arm} {skill}"]["successes"], flush=True)
    return {"first_seed": TEST_SEED, "rates": rates, "least": min(row["rate"] for row in rates.values())}


def pipeline() -> dict[str, Any]:
    """The classical pipeline in clean scenes of each skill."""
    import ornstein
    from ornstein.evaluation.trials import PolicyPlayer, try_scene, world_for
    from ornstein.simulation.tabletop import SUITES

    policy = ornstein.load("modular-tabletop", expect="modular")
    rates, each = {}, 60
    for skill in SKILLS:
        env = world_for(policy.contract, SUITES[skill.replace("_", "-")])
        solved = sum(try_scene(PolicyPlayer(policy), env, TEST_SEED + k).success for k in range(each))
        env.close()
        rates[skill] = share(solved, each)
        print(skill, solved, flush=True)
    total = sum(row["successes"] for row in rates.values())
    return {"checkpoint": policy.fingerprint, "first_seed": TEST_SEED, "rates": rates, "all": share(total, each * len(SKILLS))}


#: Suites and how many scenes each; fixed before looking.
RT1_SUITES = {
    "all": 500,
    "unseen-phrasing": 100,
    "distractors": 100,
    "backgrounds": 100,
    "lights": 100,
    "camera": 100,
    "unseen-objects": 100,
    "held-out-pairs": 100,
    "chains": 50,
}


def rt1() -> dict[str, Any]:
    """The learned policy: the usual scenes of all skills, what moves away from them, and what it does without the right sentence."""
    with tempfile.TemporaryDirectory() as folder:
        records = {name: _evaluated(name, n, "none", Path(folder) / name) for name, n in RT1_SUITES.items()}
        controls = {name: _evaluated("all", 100, name, Path(folder) / name) for name in ("blank", "shuffled")}
    given = np.array([row["success"] for row in records["all"]["per_episode"]][:100])
    keys = ("checkpoint", "training_data", "contract", "split", "first_seed")
    return {
        **{key: records["all"][key] for key in keys},
        "suites": {
            name: share(record["successes"], record["episodes"])
            | {"by_task": {task: share(row["successes"], row["episodes"]) for task, row in record["by_task"].items()}}
            for name, record in records.items()
        },
        "controls": {
            name: share(record["successes"], record["episodes"])
            | {"mcnemar_p": mcnemar_exact(given, np.array([row["success"] for row in record["per_episode"]]))}
            for name, record in controls.items()
        },
        "decisions_per_second": {str(threads): _decisions("rt1-tabletop", threads) for threads in (1, 2)},
    }


def _decisions(name: str, threads: int) -> float:
    """The median rate of a policy that sees a new picture at every step."""
    import torch

    import ornstein
    from ornstein.evaluation.trials import world_for

    torch.set_num_threads(threads)
    policy, seconds = ornstein.load(name), []
    env = world_for(policy.contract, suite("all"))
    for seed in range(TIMED_SEED, TIMED_SEED + 3):
        observation, _ = env.reset(seed=seed)
        policy.reset()
        for _ in range(60):
            began = time.perf_counter()
            action = policy.act(observation)
            seconds.append(time.perf_counter() - began)
            observation, *_ = env.step(action)
    env.close()
    return 1 / statistics.median(seconds)


def _evaluated(name: str, n: int, control: Any, out: Path) -> dict[str, Any]:
    record = evaluate_suite("rt1-tabletop", name, episodes=n, out=out, control=control, workers=2).record
    print(name, control, record["successes"], "of", n, flush=True)
    return record


def _steps(count: int) -> tuple[int, float, float]:
    """Steps, seconds of stepping with both cameras drawn, and the median reset [s]."""
    env = TabletopEnv()
    expert, steps, seconds, resets = Expert(), 0, 0.0, []
    for seed in range(count + 2):
        began = time.perf_counter()
        env.reset(seed=seed)
        if seed >= 2:
            resets.append(time.perf_counter() - began)
        over = False
        while not over:
            action = expert.act(env)
            began = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            if seed >= 2:
                seconds, steps = seconds + time.perf_counter() - began, steps + 1
            over = terminated or truncated
    env.close()
    return steps, seconds, statistics.median(resets)


def speed() -> dict[str, Any]:
    """Control steps a second with a 128 px front and a 64 px wrist picture each, one process and two side by side."""
    alone = _steps(20)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        both = list(pool.map(_steps, [20, 20]))
    return {
        "steps_per_second_one_process": alone[0] / alone[1],
        "steps_per_second_two_processes_together": sum(steps / seconds for steps, seconds, _ in both),
        "reset_milliseconds": 1000 * alone[2],
        "cameras": {"front": 128, "wrist": 64},
    }


def cluster() -> dict[str, Any]:
    """Trials a second in one process, in two, and on a Ray cluster of two processors on this machine, by turns; and what a trial sends back."""
    import ray

    player, chosen = load_player("expert"), suite("all")
    ways: dict[str, dict[str, Any]] = {"one_process": {}, "two_processes": {"workers": 2}, "ray_two_cpus": {"ray": "auto"}}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    # The first scenes pay for starting and for drawings that each process renders once: forty a process.
    rounds, warm_up, count, sizes = 3, 80, 200, []
    for k in range(rounds):
        for name, how in ways.items():
            if "ray" in how:  # its own processes must not run beside the others'
                ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
            first, arrived = TIMED_SEED + k * (warm_up + count), []
            for trial in trials(player, "expert", chosen, range(first, first + warm_up + count), **how):
                arrived.append(time.perf_counter())
                sizes.append(len(pickle.dumps(trial)))
            ray.shutdown()
            rates[name].append(count / (arrived[-1] - arrived[warm_up - 1]))
    return {
        "trials_per_second": {name: {"median": statistics.median(values), "all": values} for name, values in rates.items()},
        "bytes_a_trial": statistics.mean(sizes),
    }


def floor() -> dict[str, Any]:
    """Seconds of recording demonstrations against those that MuJoCo alone takes within them: steps of physics, drawing, reading pixels."""
    import mujoco

    from ornstein.data.demonstrations import Demonstrating
    from ornstein.data.lerobot_episode import DatasetSpec
    from ornstein.data.recording import EXTRA_COLUMNS, Recorder
    from ornstein.simulation.tabletop import contract, suite

    spent = 0.0

    def timed(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent += time.perf_counter() - began

        return call

    warm_up, episodes, ratios, seconds = 60, 60, [], []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "episodes").mkdir()
        demonstrating = Demonstrating(suite("all").variation, 0.05, None, "arm7")
        recorder, world = Recorder(Path(folder), DatasetSpec(contract(), EXTRA_COLUMNS), demonstrating), demonstrating.open()
        for seed in range(warm_up):  # drawings are rendered once a process
            recorder.record(world, seed)
        names = ("mj_step", "mj_forward", "mjv_updateScene", "mjr_uploadTexture", "mjr_render", "mjr_readPixels")
        plain = {name: getattr(mujoco, name) for name in names}
        try:
            for name, function in plain.items():
                setattr(mujoco, name, timed(function))
            for repeat in range(3):
                spent, began = 0.0, time.perf_counter()
                for seed in range(episodes):
                    recorder.record(world, 10_000 + repeat * episodes + seed)
                seconds.append(time.perf_counter() - began)
                ratios.append(seconds[-1] / spent)
        finally:
            for name, function in plain.items():
                setattr(mujoco, name, function)
            world.close()
    return {
        "times_the_floor": {"median": statistics.median(ratios), "all": ratios},
        "seconds_an_episode": statistics.median(seconds) / episodes,
        "cameras": {"front": 128, "wrist": 64},
        "episodes": episodes,
    }


MEASUREMENTS = {
    "legibility": legibility,
    "experts": experts,
    "pipeline": pipeline,
    "rt1": rt1,
    "speed": speed,
    "floor": floor,
    "cluster": cluster,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or MEASUREMENTS:
        write(RESULTS / f"tabletop-{name}.json", MEASUREMENTS[name]())
