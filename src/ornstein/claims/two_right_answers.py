"""A task with two right answers whose every outcome can be told: a hand that goes from left to right around an obstacle, above it or below.

The plane is in metres. Whoever demonstrates chooses the side by a coin; all else follows. Between the two ways there is the obstacle: an action
that is the mean of both runs into it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ornstein.actions import build_head, describe_head
from ornstein.core.contract import Channel, EmbodimentContract

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ornstein.actions import ActionHead, HeadName

STEPS = 8
RADIUS, CLEARANCE = 0.15, 0.10
ARRIVED = 0.05
#: What is known of a scene: where the hand is, (x, y); the goal's y, at x = 1; the obstacle's y, at x = 0.5.
_CONTEXT = 4
_WIDTH = 64
_MOST = 12
#: Standard deviation by which demonstrations are left in practice, so that whoever errs learns the way back [m].
_ASTRAY = 0.03

PLANE = EmbodimentContract(
    robot="ornstein-plane",
    cameras=(),
    state=(Channel("x", "m", -0.5, 1.5), Channel("y", "m", -1.0, 1.0)),
    action=(Channel("dx", "m", -0.25, 0.25), Channel("dy", "m", -0.25, 0.25)),
    action_frame="delta, plane",
    rotation="none",
    gripper="none",
    control_hz=10.0,
    chunk_length=1,
)


@dataclass(frozen=True)
class Plane:
    """N scenes: where each begins, at x = 0, where it ends, at x = 1, and where its obstacle is, at x = 0.5; (N,) each."""

    start: NDArray[np.float64]
    goal: NDArray[np.float64]
    obstacle: NDArray[np.float64]

    @classmethod
    def sample(cls, n: int, rng: np.random.Generator) -> Plane:
        """Drawn at random; the straight way is always blocked."""
        obstacle = rng.uniform(-0.1, 0.1, n)
        return cls(obstacle + rng.uniform(-0.06, 0.06, n), obstacle + rng.uniform(-0.06, 0.06, n), obstacle)

    def demonstrations(self, above: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The hand's places, (N, STEPS + 1, 2), above or below the obstacle."""
        along = np.linspace(0, 1, STEPS + 1)
        straight = self.start[:, None] + (self.goal - self.start)[:, None] * along
        way = self.obstacle + np.where(above, 1.0, -1.0) * (RADIUS + CLEARANCE)
        bump = np.sin(np.pi * along) ** 2
        places = straight + (way[:, None] - straight) * bump
        return np.stack([np.broadcast_to(along, places.shape), places], axis=-1)

    def contexts(self, places: NDArray[np.float64]) -> NDArray[np.float32]:
        """What a policy knows with the hand at (N, 2): (N, 4)."""
        return np.column_stack([places, self.goal, self.obstacle]).astype(np.float32)

    def blocked(self, paths: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a path (N, T, 2) of straight pieces touches the obstacle."""
        centre = np.column_stack([np.full(len(self.obstacle), 0.5), self.obstacle])[:, None]
        begin, way = paths[:, :-1], np.diff(paths, axis=1)
        share = np.clip(((centre - begin) * way).sum(-1) / np.maximum((way**2).sum(-1), 1e-12), 0, 1)
        nearest = begin + share[..., None] * way
        hit: NDArray[np.bool_] = (np.linalg.norm(nearest - centre, axis=-1) < RADIUS).any(1)
        return hit


@dataclass(frozen=True)
class Walked:
    """What a policy did in N scenes: which paths arrived without touching, which of all went above, and how far from the goal they ended [mm];
    ms a decision."""

    right: NDArray[np.bool_]
    above: NDArray[np.bool_]
    error: NDArray[np.float64]
    milliseconds: float


class Walker(nn.Module):
    """Three layers, then an action head: of one step, asked again at every step, or of the whole way at once."""

    def __init__(self, name: HeadName, *, whole: bool, seed: int, above: float = 0.5, num_bins: int = 256) -> None:
        """
        Args:
            seed: of what is fitted to demonstrations; weights are the caller's business, see `initialise`. above: share of the demonstrations
                that go above the obstacle. num_bins: of heads of bins.
        """
        super().__init__()
        self.whole, self.above = whole, above
        _, chunks = _practice(2000, np.random.default_rng([seed, 3]), above, whole=whole)
        self.trunk = nn.Sequential(
            nn.Linear(_CONTEXT, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, _WIDTH), nn.SiLU()
        )
        self.head: ActionHead = build_head(describe_head(name, chunks, PLANE, num_bins=num_bins), _WIDTH, PLANE)

    def learn(self, steps: int, seed: int, *, batch: int = 256, rate: float = 2e-3, stops: Sequence[int] = ()) -> Iterator[int]:
        """From fresh demonstrations at every step; says so after each of `stops` and at the end."""
        optimizer = torch.optim.AdamW(self.parameters(), rate, weight_decay=1e-3)
        rng = torch.Generator().manual_seed(seed)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
            contexts, chunks = _practice(batch, np.random.default_rng([seed, 5, step]), self.above, whole=self.whole)
            loss = self.head.loss(self.trunk(torch.from_numpy(contexts)), torch.from_numpy(chunks), rng)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimizer.step()
            if step + 1 in stops or step + 1 == steps:
                yield step + 1

    @torch.inference_mode()
    def walk(self, plane: Plane, seed: int, *, greedy: bool = False) -> Walked:
        """In each scene from its start; whoever decides step by step has a few steps more than the demonstrations."""
        rng, n = torch.Generator().manual_seed(seed), len(plane.start)
        at = np.column_stack([np.zeros(n), plane.start])
        paths, began, decisions = [at], time.perf_counter(), 0
        while len(paths) <= (STEPS if self.whole else _MOST):
            context = self.trunk(torch.from_numpy(plane.contexts(at)))
            decisions += 1
            for motion in self.head.sample(context, rng, greedy=greedy).numpy().swapaxes(0, 1).astype(np.float64):
                # Who has arrived stays.
                there = at[:, 0] > 1 - 1e-2 if not self.whole else np.zeros(n, bool)
                at = at + np.where(there[:, None], 0.0, motion)
                paths.append(at)
        seconds = time.perf_counter() - began
        walked = np.stack(paths, axis=1)
        error = np.linalg.norm(at - np.column_stack([np.ones(n), plane.goal]), axis=1)
        middle = walked[np.arange(n), np.abs(walked[..., 0] - 0.5).argmin(1), 1]
        return Walked(
            ~plane.blocked(walked) & (error < ARRIVED), middle > plane.obstacle, 1000 * error, 1000 * seconds / decisions / n
        )


def _practice(n: int, rng: np.random.Generator, above: float, *, whole: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Contexts and chunks of demonstrations: from the start, or one step from anywhere on the way, a little beside it."""
    plane = Plane.sample(n, rng)
    ways = plane.demonstrations(rng.random(n) < above)
    if whole:
        return plane.contexts(ways[:, 0]), np.diff(ways, axis=1).astype(np.float32)
    step = rng.integers(STEPS, size=n)
    rows = np.arange(n)
    at = ways[rows, step] + rng.normal(0, _ASTRAY, (n, 2)) * (step > 0)[:, None]
    bounds = PLANE.action_low, PLANE.action_high
    return plane.contexts(at), np.clip(ways[rows, step + 1] - at, *bounds)[:, None].astype(np.float32)
