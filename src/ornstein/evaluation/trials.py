"""Trials on the tabletop: a policy in the scenes of a suite, its success rate, and the evidence for it.

Scenes are numbered; what happens in one depends on its number and the policy alone, so neither the number of processes nor an interruption
changes anything. Every finished trial is on disk at once: the same command goes on where it was stopped.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ornstein.core.errors import DataError, OrnsteinError, unknown_name
from ornstein.core.workers import WorkerDiedError, open_workers, outcome
from ornstein.safety import Box, Shield, ShieldLimits
from ornstein.simulation.tabletop import Expert, Scene, TabletopEnv, contract
from ornstein.simulation.tabletop.arms import ARMS
from ornstein.simulation.tabletop.environment import WORKSPACE_HIGH, WORKSPACE_LOW
from ornstein.simulation.tabletop.instructions import instruct
from ornstein.simulation.tabletop.splits import words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation, Policy
    from ornstein.simulation.tabletop.environment import ArmName
    from ornstein.simulation.tabletop.suites import Suite

Control = Literal["none", "blank", "shuffled"]
EXPERT = "expert"
_ROBOT = "ornstein-tabletop-"


class Player(Protocol):
    """Who acts: a policy by what it observes, or the expert by what the simulation knows."""

    @property
    def contract(self) -> EmbodimentContract: ...
    def reset(self) -> None: ...
    def act(self, observation: Observation, env: TabletopEnv) -> NDArray[np.float32]: ...
    @property
    def plan(self) -> str:
        """What it told itself in this episode, if it thinks."""


class PolicyPlayer:
    """A policy, which sees what it is shown."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @property
    def contract(self) -> EmbodimentContract:
        return self.policy.contract

    def reset(self) -> None:
        self.policy.reset()

    def act(self, observation: Observation, env: TabletopEnv) -> NDArray[np.float32]:
        return self.policy.act(observation)

    @property
    def plan(self) -> str:
        return getattr(self.policy, "plan", "")


class ExpertPlayer:
    """The scripted expert, which needs no pictures."""

    plan = ""

    def __init__(self, arm: ArmName = "arm7") -> None:
        self.contract = contract({}, arm)
        self._expert = Expert()

    def reset(self) -> None:
        """It remembers nothing."""

    def act(self, observation: Observation, env: TabletopEnv) -> NDArray[np.float32]:
        return self._expert.act(env)


@dataclass(frozen=True)
class Trial:
    """One trial. instruction: what the policy was told. tasks: skills of the scene. done: how many were done in their order. plan: what it told itself.
    shielded: how many steps the shield interfered in, by reason.

    film: the pose of everything `FILM_HZ` times a second, for `Replay`.
    """

    seed: int
    instruction: str
    tasks: tuple[str, ...]
    blocks: int
    success: bool
    spoiled: bool
    done: int
    steps: int
    clipped: int
    scene: Scene
    film: list[NDArray[np.float32]]
    plan: str = ""
    shielded: dict[str, int] = field(default_factory=dict)

    @property
    def caption(self) -> str:
        """What stands by its video: what the policy was told, and what it made of it."""
        told = self.instruction or "(no instruction)"
        return f"{told} → {self.plan}" if self.plan else told

    def to_json(self) -> dict[str, Any]:
        """Everything but the film: `Scene.from_json` builds the scene again."""
        return {name: value for name, value in vars(self).items() if name != "film"} | {"scene": self.scene.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trial:
        return cls(**{**data, "tasks": tuple(data["tasks"]), "scene": Scene.from_json(data["scene"]), "film": []})


def arm_of(body: EmbodimentContract) -> ArmName:
    """The tabletop's arm that a contract speaks of.

    Raises:
        DataError: it is of another robot.
    """
    name = body.robot.removeprefix(_ROBOT)
    if not body.robot.startswith(_ROBOT) or name not in ARMS:
        raise DataError(f"this policy is made for {body.robot}, and the tabletop has {', '.join(_ROBOT + arm for arm in ARMS)}")
    return name  # type: ignore[return-value]  # one of them


def world_for(body: EmbodimentContract, chosen: Suite) -> TabletopEnv:
    """The tabletop as that body needs it: its arm, its cameras, nothing drawn that nobody looks at.

    Raises:
        ContractError: cameras, rates, bounds or frames differ. DataError: another robot.
    """
    arm, cameras = arm_of(body), {camera.name: camera.height for camera in body.cameras}
    body.require_match(contract(cameras, arm), "the policy", "the tabletop")
    return TabletopEnv(variation=chosen.variation, cameras=cameras, arm=arm)


def limits_of(env: TabletopEnv) -> ShieldLimits:
    """What the shield holds a player to by default: the arm's own bounds, and its tool within the workspace."""
    return ShieldLimits.of(env.contract).within(Box(tuple(WORKSPACE_LOW.tolist()), tuple(WORKSPACE_HIGH.tolist())))


def try_scene(
    player: Player, env: TabletopEnv, seed: int, *, control: Control = "none", limits: ShieldLimits | None = None
) -> Trial:
    """Let the player solve the scene of that seed, behind a shield.

    Args:
        limits: of the shield; None for no shield. control: what it is told: the instruction ("none"), nothing ("blank"), or a sentence about other things ("shuffled"). Success is
            always judged on the scene's own tasks.
    """
    film: list[NDArray[np.float32]] = []
    env.world.film = film
    try:
        observation, _ = env.reset(seed=seed)
        assert env.scene is not None
        scene = env.scene
        sentence = told(scene, env, seed, control)
        player.reset()
        shield = None if limits is None else Shield(limits)
        steps, over = 0, False
        info: dict[str, Any] = {}
        while not over:
            seen: Any = {**observation, "instruction": sentence}
            action = player.act(seen, env)
            if shield is not None:
                action = shield.guard(action, tool=observation["agent_pos"][:3]).action
            observation, _, terminated, truncated, info = env.step(action)
            steps, over = steps + 1, terminated or truncated
    finally:
        env.world.film = None
    return Trial(
        seed=seed,
        instruction=sentence,
        tasks=tuple(task.skill for task in scene.tasks),
        blocks=len(scene.blocks),
        success=info["is_success"],
        spoiled=info["spoiled"],
        done=info["tasks_done"],
        steps=steps,
        clipped=info["clipped"],
        scene=scene,
        film=film,
        plan=player.plan,
        shielded={} if shield is None else dict(shield.counts),
    )


def told(scene: Scene, env: TabletopEnv, seed: int, control: Control) -> str:
    """The sentence that the policy hears. Shuffled: another block takes the place of each task's own, and opening that of closing."""
    if control == "none":
        return scene.instruction
    if control == "blank":
        return ""
    rng = np.random.default_rng([seed, 17])
    blocks, mats = list(scene.blocks), list(scene.mats)
    chosen = words(env.variation.split)
    away = [name for name in chosen.objects if name not in {block.name for block in blocks}]
    tasks = []
    for task in scene.tasks:
        if task.skill in ("open_drawer", "close_drawer"):
            tasks.append(replace(task, skill="close_drawer" if task.skill == "open_drawer" else "open_drawer"))
            continue
        others = [k for k in range(len(scene.blocks)) if k not in (task.block, task.reference)]
        if not others:  # nothing else to name: something that is not there
            blocks.append(replace(blocks[0], name=str(rng.choice(away))))
            others = [len(blocks) - 1]
        tasks.append(replace(task, block=int(rng.choice(others))))
    return instruct(tasks, blocks, mats, rng, env.variation.phrasing)


def trials(
    player: Player,
    source: str,
    chosen: Suite,
    seeds: range,
    *,
    control: Control = "none",
    think: bool = False,
    shield: bool = True,
    workers: int = 1,
    ray: str | None = None,
    done: set[int] | None = None,
) -> Iterator[Trial]:
    """The trials of these scenes, but for those that are done, in the order in which they end.

    Args:
        source: where other processes get the player from: "expert", a shipped policy's name or a checkpoint's folder. think: as it was loaded. shield: whether its
            actions go through one, of `limits_of`.
        workers, ray: see `open_workers`. The machines of a cluster are sent the checkpoint's files; they need no common disk.

    Raises:
        DataError, ContractError: another robot. OrnsteinError: a process died.
    """
    wanted = [seed for seed in seeds if seed not in (done or set())]
    if workers == 1 and ray is None:
        env = world_for(player.contract, chosen)
        limits = limits_of(env) if shield else None
        try:
            with _steady(player):
                for seed in wanted:
                    yield try_scene(player, env, seed, control=control, limits=limits)
        finally:
            env.close()
        return
    world_for(player.contract, chosen).close()  # before processes start: does it fit?
    path = getattr(getattr(player, "policy", None), "checkpoint_path", None)
    sent = source if ray is None or path is None else _Packed.from_folder(path)
    try:
        with open_workers(workers, _begin, sent, arm_of(player.contract), chosen, think, ray=ray) as pool:
            running = {pool.submit(_try, seed, control, shield) for seed in wanted}
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield outcome(future)
    except WorkerDiedError as error:
        raise OrnsteinError(f"{error}; what is finished is kept: run the same again, perhaps with fewer workers") from error


def load_player(source: str, arm: ArmName = "arm7", *, think: bool = False) -> Player:
    """The expert for that arm, or the policy of a shipped name or a checkpoint's folder.

    Args:
        think: let it say first what an instruction means in plain words, and follow those (`RT2Policy.thinks`).

    Raises:
        UnknownNameError: neither. CheckpointError: it is damaged, or no policy. DataError: a policy for another arm, or one that cannot think.
    """
    if think and source == EXPERT:
        raise DataError("the expert does not think: it knows where everything is")
    if source == EXPERT:
        if arm not in ARMS:
            raise unknown_name("arm", arm, list(ARMS))
        return ExpertPlayer(arm)
    from ornstein.hub import load

    policy = load(source)
    if not hasattr(policy, "act"):
        raise DataError(f"{source} is no policy: it holds a {type(policy).__name__}")
    if arm_of(policy.contract) != arm:
        raise DataError(f"{source} moves {arm_of(policy.contract)}, not {arm}")
    if think:
        if not hasattr(policy, "thinks"):
            raise DataError(f"{source} does not say what an instruction means: an RT-2 does")
        policy.thinks = True
    return PolicyPlayer(policy)


def _steady(player: Player) -> AbstractContextManager[None]:
    """Where two bins are nearly as likely, a rounding is another action: figures must not depend on how many processes share a machine."""
    if not isinstance(player, PolicyPlayer):
        return nullcontext()
    from ornstein.networks.threads import one_thread

    return one_thread()


_player: tuple[Player, TabletopEnv] | None = None


@dataclass(frozen=True)
class _Packed:
    """The files of a checkpoint, for a machine that cannot read this one's disk."""

    files: dict[str, bytes]

    @classmethod
    def from_folder(cls, folder: Path) -> _Packed:
        return cls({path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()})

    def player(self, arm: ArmName, *, think: bool) -> Player:
        try:
            with tempfile.TemporaryDirectory(prefix="ornstein-") as folder:
                for name, content in self.files.items():
                    (Path(folder) / name).write_bytes(content)
                return load_player(folder, arm, think=think)
        except OSError as error:
            raise OrnsteinError(
                f"{platform.node()} cannot unpack the policy: {(error.strerror or str(error)).lower()}"
            ) from error


def _begin(source: str | _Packed, arm: ArmName, chosen: Suite, think: bool) -> None:
    global _player  # noqa: PLW0603  one player and one world a process
    if source != EXPERT:
        import torch

        torch.set_num_threads(1)  # see `_steady`
    if _player is not None:  # a cluster's processes outlive an evaluation
        _player[1].close()
    player = source.player(arm, think=think) if isinstance(source, _Packed) else load_player(source, arm, think=think)
    _player = player, world_for(player.contract, chosen)


def _try(seed: int, control: Control, shield: bool) -> Trial:
    if _player is None:
        raise RuntimeError("_try runs in processes that _begin has prepared")
    return try_scene(*_player, seed, control=control, limits=limits_of(_player[1]) if shield else None)


def command_line() -> str:
    """How this process was called."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
