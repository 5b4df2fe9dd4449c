"""The expert's advice where the policy's own mistakes lead (Ross et al. 2011, "DAgger"), round by round.

An expert's episodes hardly show how it looks behind a block that was just missed. Here the policy acts, for most of the time, and at every step
the expert says what it would do. The expert has no memory, so its advice follows from what can be seen; and the policy's eyes no longer change,
so what they saw is kept instead of pictures.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ornstein.core.errors import DataError
from ornstein.core.progress import track

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.policies import RT1Policy, RT2Policy
    from ornstein.simulation.tabletop import Scene, TabletopEnv, Variation

#: Far above the scenes of demonstrations, below those of evaluations.
FIRST_SEED = 500_000
_POLICY_SHARE = 0.75
#: Mean number of steps that one of them acts before the next is drawn.
_POLICY_STEPS, _EXPERT_STEPS = 10, 5
_SCENES_A_TASK = 8


class Corrections(NamedTuple):
    """N steps in E episodes: what the eyes saw, float16 (N, tokens, channels); the arm's state, float32 (N, S); the expert's action, (N, 7);
    where each episode ends, int64 (E,); its instruction and skill; whether the task was done in the end, bool (E,)."""

    seen: NDArray[np.float16]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    stops: NDArray[np.int64]
    sentences: NDArray[np.str_]
    skills: NDArray[np.str_]
    solved: NDArray[np.bool_]

    def windows(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first steps of all windows of so many steps within one episode, and their episodes."""
        begins = np.concatenate([[0], self.stops[:-1]])
        starts = [np.arange(begin, stop - length + 1) for begin, stop in zip(begins, self.stops, strict=True)]
        return np.concatenate(starts), np.repeat(np.arange(len(starts)), [len(part) for part in starts])

    def failures(self) -> dict[str, float]:
        """How often each skill was not done, with one failure and one success more than were seen, so that none is certain."""
        missed = {str(skill): ~self.solved[self.skills == skill] for skill in np.unique(self.skills)}
        return {skill: float((of.sum() + 1) / (len(of) + 2)) for skill, of in missed.items()}


def corrections(
    policy: Path,
    variation: Variation,
    scenes: int,
    seed: int,
    cache: Path,
    *,
    weights: Mapping[str, float] | None = None,
    workers: int = 2,
) -> Corrections:
    """In `cache` after the first time; each scene's part is a function of (the policy's weights, the variation, the skills' weights, the scene).

    Args:
        policy: a checkpoint of RT-1, or of an RT-2 with an expert. scenes: how many, numbered from FIRST_SEED + `seed` on. weights: how often each of these skills is asked
            for, in any unit; as the variation has it unless given. workers: processes.

    Raises:
        DataError: the cache is damaged, or the scenes would reach those of evaluations.
    """
    from ornstein.core.checkpoint import read_checkpoint
    from ornstein.core.workers import open_workers, outcome
    from ornstein.data.recording import FIRST_EVALUATION_SEED

    first = FIRST_SEED + seed
    looks = hashlib.sha256(f"{variation} {sorted((weights or {}).items())}".encode()).hexdigest()[:8]
    kept = cache / f"corrections-{read_checkpoint(policy).fingerprint}-{looks}-{first}-{scenes}.npz"
    if first + scenes > FIRST_EVALUATION_SEED:
        raise DataError(f"scenes {first} to {first + scenes - 1} would reach {FIRST_EVALUATION_SEED}, where evaluations begin")
    if not kept.exists():
        parts: dict[int, list[Episode]] = {}
        with open_workers(workers, _begin, policy, variation, weights) as pool:
            todo = list(range(first, first + scenes, _SCENES_A_TASK))
            running = {pool.submit(_practise, range(start, min(start + _SCENES_A_TASK, first + scenes))): start for start in todo}
            for _ in track(todo, len(todo), "the expert corrects"):
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                future = ended.pop()
                parts[running.pop(future)] = outcome(future)
        _write(kept, [episode for start in todo for episode in parts[start]])
    try:
        with np.load(kept, allow_pickle=False) as stored:
            return Corrections(*(stored[name] for name in Corrections._fields))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"cannot use the corrections in {kept}: {error}; delete that file and start again") from error


def joined(rounds: Sequence[Corrections]) -> Corrections | None:
    """One after the other; None of none."""
    if not rounds:
        return None
    whole = {name: np.concatenate([getattr(one, name) for one in rounds]) for name in Corrections._fields if name != "stops"}
    steps = np.cumsum([0, *(len(one.states) for one in rounds)])
    return Corrections(**whole, stops=np.concatenate([one.stops + before for one, before in zip(rounds, steps, strict=False)]))


class Episode(NamedTuple):
    """One episode's part of `Corrections`."""

    seen: NDArray[np.float16]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    sentence: str
    skill: str
    solved: bool


def _write(path: Path, episodes: list[Episode]) -> None:
    found = Corrections(
        np.concatenate([episode.seen for episode in episodes]),
        np.concatenate([episode.states for episode in episodes]),
        np.concatenate([episode.actions for episode in episodes]),
        np.cumsum([len(episode.seen) for episode in episodes]),
        np.array([episode.sentence for episode in episodes]),
        np.array([episode.skill for episode in episodes]),
        np.array([episode.solved for episode in episodes]),
    )
    partial = path.with_suffix(f".partial-{os.getpid()}")
    with partial.open("wb") as file:
        np.savez(file, **found._asdict())
    partial.replace(path)


_world: tuple[RT1Policy | RT2Policy, TabletopEnv, Variation, Mapping[str, float] | None] | None = None


def _begin(policy: Path, variation: Variation, weights: Mapping[str, float] | None) -> None:
    global _world  # noqa: PLW0603  one policy and one world a process
    import torch

    from ornstein.hub import load
    from ornstein.policies import RT1Policy, RT2Policy
    from ornstein.simulation.tabletop import TabletopEnv

    torch.set_num_threads(1)  # a rounding is another action
    loaded = load(policy)
    assert isinstance(loaded, (RT1Policy, RT2Policy))
    (camera,) = loaded.contract.cameras
    _world = loaded, TabletopEnv(cameras={camera.name: camera.height}), variation, weights


def _practise(seeds: range) -> list[Episode]:
    assert _world is not None
    policy, env, variation, weights = _world
    return [corrected_episode(policy, env, _scene(variation, weights, seed), seed) for seed in seeds]


def _scene(variation: Variation, weights: Mapping[str, float] | None, seed: int) -> Scene:
    from ornstein.simulation.tabletop import sample_scene

    if weights is not None:
        skills = sorted(weights)
        share = np.array([weights[skill] for skill in skills])
        skill = np.random.default_rng([seed, 53]).choice(skills, p=share / share.sum())
        variation = replace(variation, skills=(str(skill),))  # type: ignore[arg-type]
    return sample_scene(seed, variation)


def corrected_episode(
    policy: RT1Policy | RT2Policy, env: TabletopEnv, scene: Scene, seed: int, *, policy_share: float = _POLICY_SHARE
) -> Episode:
    """One scene with one task: policy and expert act by turns, drawn by the seed, the expert advises at every step.

    Args:
        policy_share: the chance that a turn is the policy's.
    """
    from ornstein.simulation.tabletop import Expert, Style

    rng = np.random.default_rng([seed, 37])
    observation, info = env.reset(options={"scene": scene})
    policy.reset()
    expert, done, turn, own = Expert(Style()), False, 0, True
    seen, states, actions = [], [], []
    while not done:
        chosen, advice = policy.act(observation), expert.act(env)  # type: ignore[arg-type]
        seen.append(policy.seen.numpy().astype(np.float16))
        states.append(observation["agent_pos"])
        actions.append(advice)
        if turn == 0:
            own = rng.random() < policy_share
            turn = int(rng.geometric(1 / (_POLICY_STEPS if own else _EXPERT_STEPS)))
        turn -= 1
        observation, _, terminated, truncated, info = env.step(chosen if own else advice)
        done = terminated or truncated
    return Episode(
        np.stack(seen), np.stack(states), np.stack(actions), scene.instruction, scene.tasks[0].skill, bool(info["is_success"])
    )
