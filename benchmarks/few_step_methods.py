"""Few-step methods as losses of a small student in the plane: what benchmarks/distillation.py compares."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ornstein.claims.small_models import PointDenoiser, mixture
from ornstein.diffusion import DPMSolverPP2M, NoiseSchedule, as_student, composed, jump, shortcut_loss
from ornstein.networks.dit import time_embedding
from ornstein.training import initialise

BATCH, BUDGET, FINEST = 128, 6000, 32
TRAINED = 3  # evaluations that one with its backward pass counts
RATE, AVERAGE = 1e-3, 0.99
PREPARATION = 2000
STEPS = (1, 2, 4)
HIGHEST_SCALE, NULL = 7.0, 2
SCHEDULE = NoiseSchedule.cosine()
T = SCHEDULE.num_steps
DATA = mixture()
TEACHER = as_student(DATA.denoiser(SCHEDULE, "v_prediction"))


class PointStudent(PointDenoiser):
    """`(x_t, t, s, condition)` → u: told the goal, and with `Guided` a class and a scale; none has an effect at first.

    pace: of the time code. At 1 it is the library's, whose fastest wave turns once in six steps; at 0.003 its fastest makes half a turn from 0 to T.
    """

    def __init__(self, pace: float = 1.0) -> None:
        super().__init__(2, 128, 3)
        self.pace = pace
        self.goal_in, self.asked_in = (
            nn.Sequential(nn.Linear(size, 128), nn.SiLU(), nn.Linear(128, 128)) for size in (64, NULL + 2)
        )
        for added in (self.goal_in, self.asked_in):
            for parameter in added.get_submodule("2").parameters():
                nn.init.zeros_(parameter)

    def forward(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Any = None) -> Tensor:  # type: ignore[override]
        h = self.point_in(x_t) + self.time_in(time_embedding(t * self.pace, 64)) + self.goal_in(time_embedding(s * self.pace, 64))
        if condition is not None:
            label = nn.functional.one_hot(condition.condition, NULL + 1).float()
            h = h + self.asked_in(torch.cat([label, condition.scale[:, None] / HIGHEST_SCALE], 1))
        for layer in self.layers:
            h = h + layer(h)
        return self.out(h)


@dataclass
class Run:
    """A student in training, its moving average, and what its method remembers."""

    student: PointStudent
    rng: torch.Generator
    updates: int = 0
    memory: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.student)

    def integers(self, high: int | Tensor) -> Tensor:
        return (torch.rand(BATCH, generator=self.rng) * high).long()

    def data(self) -> Tensor:
        return DATA.sample(BATCH, self.rng).float()

    def at(self, t: Tensor) -> Tensor:
        alpha, sigma = _level(t)
        return alpha * self.data() + sigma * torch.randn(BATCH, 2, generator=self.rng)


Loss = Callable[[Run, int], Tensor]


@dataclass(frozen=True)
class Method:
    """cost: evaluations a sample of an update. prepared: share of the budget that goes before the first. restarts: jumps to 0 and back to
    noise, instead of on along the flow. pace: see `PointStudent`."""

    loss: Loss
    cost: float
    prepared: float = 0.0
    restarts: bool = False
    pace: float = 1.0


def consistency(any_goal: bool) -> Loss:
    """The teacher's step from t, then the average's jump on: to 0, or to any goal on the way."""

    def loss(run: Run, i: int) -> Tensor:
        k = run.integers(FINEST)
        goal = k + 1 + run.integers(FINEST - k) if any_goal else torch.full_like(k, FINEST)
        t, m, s = (_grid(step, FINEST) for step in (k, k + 1, goal))
        x = run.at(t)
        return _square(run.student(x, t, s), composed(TEACHER, run.average, x, (t, m, s), SCHEDULE))

    return loss


def lagrangian(run: Run, i: int) -> Tensor:
    """The average's jump from t, then the teacher's step to the goal."""
    k = run.integers(FINEST)
    goal = k + 1 + run.integers(FINEST - k)
    t, m, s = (_grid(step, FINEST) for step in (k, goal - 1, goal))
    x = run.at(t)
    return _square(run.student(x, t, s), composed(run.average, TEACHER, x, (t, m, s), SCHEDULE))


def shortcut(run: Run, i: int) -> Tensor:
    """Two jumps of the average, or two steps of the teacher on the finest grid."""
    return shortcut_loss(run.student, run.average, TEACHER, run.data(), None, SCHEDULE, run.rng, finest=FINEST).loss


def progressive(run: Run, i: int) -> Tensor:
    """Two jumps of the stage before, frozen; 16 jumps in the first stage, one in the last. Each of 4, 2 and 1 keeps its own student."""
    stages = FINEST.bit_length() - 1
    stage = i * stages // run.updates
    n = FINEST >> (stage + 1)
    if run.memory.get("stage") != stage:
        run.memory |= {"stage": stage, "students": run.memory.get("students", {}) | {2 * n: copy.deepcopy(run.average)}}
        run.student.load_state_dict(run.average.state_dict())
    before = run.memory["students"][2 * n] if stage else TEACHER
    k = run.integers(n)
    t, m, s = (_grid(2 * k + step, 2 * n) for step in range(3))
    x = run.at(t)
    return _square(run.student(x, t, s), composed(before, before, x, (t, m, s), SCHEDULE))


def regression(run: Run, i: int) -> Tensor:
    """Pairs of times of trajectories that a solver has followed before: their ends in place of any composition."""
    if i == 0:
        solver = DPMSolverPP2M(SCHEDULE, 16, prediction="v_prediction")
        x = torch.randn(int(BUDGET * BATCH / 2 / 16), 2, generator=run.rng)
        states = [x] + [step.x for step in solver.iterate(DATA.denoiser(SCHEDULE, "v_prediction"), x)]
        run.memory = {"states": torch.stack(states), "times": torch.tensor([level.t for level in solver.levels])}
    states, times = run.memory["states"], run.memory["times"]
    k, row = run.integers(16), run.integers(states.shape[1])
    goal = k + 1 + run.integers(16 - k)
    x, t, s = states[k, row], times[k], times[goal]
    return _square(jump(run.student(x, t, s), x, t, s, SCHEDULE), states[goal, row])


def continuous(any_goal: bool) -> Loss:
    """The limit of `consistency` for short steps: along the flow, cos a · (u − v) + sin a · (x + du/dφ) = 0, with a = φ_t − φ_s.

    For s = 0 that is sCM (Lu & Song 2024, eq. 6 and 8), for any s MeanFlow's identity (Geng et al. 2025) turned into the angle; the
    tangent is warmed up and normalised as in sCM.
    """

    def loss(run: Run, i: int) -> Tensor:
        t = T * (0.02 + 0.98 * torch.rand(BATCH, generator=run.rng, dtype=torch.float64))
        s = t * torch.rand(BATCH, generator=run.rng, dtype=torch.float64) if any_goal else torch.zeros_like(t)
        x, goal = run.at(t), s.float()
        v = TEACHER(x, t, s, None)
        a = (SCHEDULE.angle(t) - SCHEDULE.angle(s)).float()[:, None]
        steps_an_angle = 1 / (SCHEDULE.angle(t.ceil()) - SCHEDULE.angle(t.ceil() - 1)).float()
        u, du = torch.func.jvp(lambda x, t: run.student(x, t, goal), (x, t.float()), (v, steps_an_angle))
        warm = min(1.0, 5 * i / run.updates)
        tangent = (a.cos() * (u - v) + warm * a.sin() * (x + du)).detach()
        tangent = tangent / (tangent.norm(dim=1, keepdim=True) / 2**0.5 + 0.1)
        return _square(run.student(x, t.float(), goal), u.detach() - tangent)

    return loss


def distribution_matching(run: Run, i: int) -> Tensor:
    """The gradient of KL between the student's noised samples and the data's; a second network learns the student's score.

    Yin et al. 2024b (DMD2): 1, 2 or 4 steps with restarts, as when drawing. Without their
    adversarial part.
    """
    if i == 0:
        fake = copy.deepcopy(run.student)
        run.memory = {
            "fake": fake,
            "optimizer": torch.optim.AdamW(fake.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.0),
        }
    fake = run.memory["fake"]
    steps = STEPS[int(torch.randint(len(STEPS), (), generator=run.rng))]
    step = int(torch.randint(steps, (), generator=run.rng))
    x_0 = draw_restarting(run.student, torch.randn(BATCH, 2, generator=run.rng), steps, run.rng, until=step)
    t = T * (0.02 + 0.96 * torch.rand(BATCH, generator=run.rng))
    (alpha, sigma), eps = _level(t), torch.randn(BATCH, 2, generator=run.rng)
    x_t = alpha * x_0.detach() + sigma * eps
    run.memory["optimizer"].zero_grad()
    _square(fake(x_t, t, t), alpha * eps - sigma * x_0.detach()).backward()
    run.memory["optimizer"].step()
    with torch.no_grad():
        real, imagined = (alpha * x_t - sigma * v for v in (TEACHER(x_t, t, t, None), fake(x_t, t, t)))
        difference = (imagined - real) / ((x_0 - real).abs().mean(1, keepdim=True) + 1e-3)
    return (x_0 * difference).sum(1).mean()


METHODS = {
    "progressive": Method(progressive, TRAINED + 2),
    "shortcut": Method(shortcut, TRAINED + 2),
    "consistency": Method(consistency(any_goal=False), TRAINED + 2, restarts=True),
    "consistency, any goal": Method(consistency(any_goal=True), TRAINED + 2),
    "Lagrangian": Method(lagrangian, TRAINED + 2),
    "regression on trajectories": Method(regression, TRAINED, prepared=0.5),
    "continuous consistency": Method(continuous(any_goal=False), TRAINED + 3, restarts=True),
    "continuous consistency, slow time code": Method(continuous(any_goal=False), TRAINED + 3, restarts=True, pace=0.003),
    "continuous, any goal": Method(continuous(any_goal=True), TRAINED + 3),
    "continuous, any goal, slow time code": Method(continuous(any_goal=True), TRAINED + 3, pace=0.003),
    "distribution matching": Method(distribution_matching, 2 * TRAINED + 3, restarts=True),
}


def trained(method: Method, start: PointStudent, seed: int) -> Run:
    run = Run(copy.deepcopy(start), torch.Generator().manual_seed(seed))
    run.updates = int(BUDGET * (1 - method.prepared) / method.cost)
    cycles = FINEST.bit_length() - 1 if method.loss is progressive else 1  # each stage starts and ends by itself
    descend(run.student, lambda i: method.loss(run, i), run.updates, RATE, run.average, cycles)
    return run


def descend(
    network: nn.Module,
    loss_of: Callable[[int], Tensor],
    updates: int,
    rate: float,
    average: nn.Module | None = None,
    cycles: int = 1,
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    for i in range(updates):
        loss = loss_of(i)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (i + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * (i * cycles / updates % 1)))
        optimizer.step()
        if average is not None:
            with torch.no_grad():
                torch._foreach_lerp_([*average.parameters()], [*network.parameters()], 1 - AVERAGE)


def prepared(seed: int, pace: float) -> PointStudent:
    """The common start: a denoiser, taught the exact v."""
    run = Run(initialise(lambda: PointStudent(pace), seed), torch.Generator().manual_seed(seed + 10))

    def loss(i: int) -> Tensor:
        t = (T * torch.rand(BATCH, generator=run.rng)).clamp(min=1e-3)
        x = run.at(t)
        return _square(run.student(x, t, torch.zeros_like(t)), TEACHER(x, t, t, None))

    descend(run.student, loss, PREPARATION, 2 * RATE)
    return run.student


def _level(t: Tensor) -> tuple[Tensor, Tensor]:
    angle = SCHEDULE.angle(t).float()[:, None]
    return angle.cos(), angle.sin()


def _grid(k: Tensor, n: int) -> Tensor:
    return torch.round(T - k * T / n).long()


def _square(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).square().mean()


def draw_restarting(student: Any, x: Tensor, steps: int, rng: torch.Generator, until: int | None = None) -> Tensor:
    """x̂_0 after jumps to 0 from each time of the grid, with new noise in between (Song et al. 2023, algorithm 1)."""
    x_0, last = x, steps - 1 if until is None else until
    for k in range(last + 1):
        t = torch.full((len(x),), round(T - k * T / steps))
        if k:
            alpha, sigma = _level(t)
            x = alpha * x_0.detach() + sigma * torch.randn(x.shape, generator=rng)
        x_0 = jump(student(x, t, torch.zeros_like(t)), x, t, torch.zeros_like(t), SCHEDULE)
    return x_0
