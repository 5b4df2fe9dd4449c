"""Demonstrations: the expert at work, recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError
from ornstein.simulation.tabletop.expert import Expert, Style, sample_style
from ornstein.simulation.tabletop.splits import leaks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.simulation.tabletop.environment import TabletopEnv
    from ornstein.simulation.tabletop.scene import Scene

_TRANSLATION_NOISE = 0.012
_ROTATION_NOISE = 0.08
_RUN_LENGTH = 3


@dataclass(frozen=True)
class Episode:
    """T steps: what was seen before each action, and the action that the expert wanted.

    frames: {camera: uint8 (T, H, W, 3)}. states: float32 (T, 7). actions: float32 (T, 7), clean even where the executed one
    was disturbed. target_pixels, goal_pixels, headings: float32 (T, 2), what the current task moves and where to,
    see `TabletopEnv.pointers` and `heading_of`.
    """

    seed: int
    scene: Scene
    frames: dict[str, NDArray[np.uint8]]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    target_pixels: NDArray[np.float32]
    goal_pixels: NDArray[np.float32]
    headings: NDArray[np.float32]
    success: bool

    @property
    def instruction(self) -> str:
        """The sentence of the episode."""
        return self.scene.instruction

    def __len__(self) -> int:
        return len(self.actions)


def generate_episode(env: TabletopEnv, seed: int, *, noise: float = 0.0, style: Style | None = None) -> Episode:
    """Let the expert solve the scene of `seed`.

    Args:
        noise: chance that a disturbance of three steps begins at a step. Then the executed action is the expert's plus Gaussian
            noise (12 mm, 0.08 rad) while the recorded one stays clean: the data show how to come back (Laskey et al. 2017, DART).
        style: the expert's manner; drawn from the seed unless given.

    Raises:
        DataError: noise is not a probability, or the scene shows or asks for what robot data must not hold.
    """
    if not 0.0 <= noise <= 1.0:
        raise DataError(f"noise is a probability between 0 and 1, got {noise}")
    rng = np.random.default_rng([seed, 11])
    observation, _ = env.reset(seed=seed)
    assert env.scene is not None
    leaked = leaks(env.scene)
    if leaked:
        raise DataError(f"scene {seed} must not be recorded: {'; '.join(leaked)} is kept for evaluation")
    expert = Expert(sample_style(rng) if style is None else style)
    seen, states, actions, pointers, headings = [], [], [], [], []
    disturbed, done, reward = 0, False, 0.0
    while not done:
        action = expert.act(env)
        seen.append(observation.get("pixels", {}))
        states.append(observation["agent_pos"])
        actions.append(action)
        pointers.append(env.pointers())
        headings.append(env.heading_of(env.progress.task))
        if disturbed == 0 and rng.random() < noise:
            disturbed = _RUN_LENGTH
        executed = action.copy()
        if disturbed:
            disturbed -= 1
            executed[:3] += rng.normal(0, _TRANSLATION_NOISE, 3).astype(np.float32)
            executed[5] += np.float32(rng.normal(0, _ROTATION_NOISE))
        observation, reward, terminated, truncated, _ = env.step(executed)
        done = terminated or truncated
    return Episode(
        seed=seed,
        scene=env.scene,
        frames={camera: np.stack([frame[camera] for frame in seen]) for camera in seen[0]},
        states=np.stack(states),
        actions=np.stack(actions),
        target_pixels=np.stack([target for target, _ in pointers]),
        goal_pixels=np.stack([goal for _, goal in pointers]),
        headings=np.stack(headings),
        success=reward > 0,
    )
