r"""Few steps: a student that jumps along its teacher's probability flow.

In the angle φ of the schedule, α = cos φ and σ = sin φ, the flow is dx/dφ = E[v | x_φ] (Salimans & Ho 2022, appendix D). A student is
told where it is and where to go, `(x_t, t, s, condition)` → u, and jumps by

    X_{t→s}(x) = cos(φ_t − φ_s) x − sin(φ_t − φ_s) u(x, t, s)                                                  (1)

That is DDIM's step with u in place of v (ibid.), and for s = 0 the consistency function of Lu & Song 2024 (eq. 5). So X_{t→t} is the
identity whatever u is; a student that ignores s and returns the teacher's v is DDIM; and every student runs in `DDIM` or `Euler` as they
are, once it is told each step's goal (`towards`).

The flow map is the one with X_{t→s} = X_{m→s} ∘ X_{t→m} for all t > m > s whose short jumps follow v (Boffi et al. 2024). With two jumps
by u_1 (from t to m, over an angle a) and u_2 (from m to s, over b), one jump that lands where they do has

    u* = (sin a (cos b · u_1 − sin b · x) + sin b · u_2) / sin(a + b)                                          (2)

where nothing large cancels, however short they are. Who makes the two jumps is the method:

    first, second                            method
    teacher, teacher; then frozen students   progressive distillation (Salimans & Ho 2022)
    teacher, student; s = 0                  consistency distillation (Song et al. 2023); any s: Kim et al. 2024
    student, teacher                         Lagrangian map matching, in finite steps (Boffi et al. 2024)
    student, student                         shortcut models (Frans et al. 2025)

`shortcut_loss` is the last one, over the grids of 1, 2, 4, … jumps, with the teacher at the finest: so one network serves all of them.
It is what did best on a mixture whose flow map is known (docs/distillation.md, `benchmarks/distillation.py`).

Guidance is distilled on the way (Meng et al. 2023): the teacher is `GuidedTeacher`, the scale a part of the condition, and one
evaluation of the student stands for two of the teacher.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ornstein.core.errors import DataError
from ornstein.diffusion.guidance import both_branches, map_tensors
from ornstein.diffusion.samplers import DDIM, Euler
from ornstein.diffusion.sampling import time_of_each

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int64, Shaped

    from ornstein.diffusion.sampling import Denoiser, Sampler
    from ornstein.diffusion.schedule import NoiseSchedule

    #: (x_t, t, s, condition) → u of equation (1); t and s have shape (batch,), 0 ≤ s ≤ t ≤ T.
    Student = Callable[[Tensor, Tensor, Tensor, Any], Tensor]


class ShortcutLoss(NamedTuple):
    """loss: the scalar to minimise. per_sample: (batch,), its terms. jumps: (batch,), how many of that length lead from T to 0."""

    loss: Tensor
    per_sample: Tensor
    jumps: Tensor


class Guided(NamedTuple):
    """A condition and how strongly to follow it; `scale` is w of each sample, shape (batch,)."""

    condition: Any
    scale: Tensor


def jump(
    u: Float[Tensor, "batch ..."],
    x_t: Float[Tensor, "batch ..."],
    t: Shaped[Tensor, " batch"],
    s: Shaped[Tensor, " batch"],
    schedule: NoiseSchedule,
) -> Float[Tensor, "batch ..."]:
    """X_{t→s}(x_t), equation (1); each sample between its own two times, whole or not.

    Raises:
        DataError: u has another shape than x_t, or there is not one time a sample, or one is out of range.
    """
    if u.shape != x_t.shape:
        raise DataError(f"a student must return the state's shape {tuple(x_t.shape)}, got {tuple(u.shape)}")
    angle = _angle_between(t, s, schedule, x_t)
    return angle.cos() * x_t - angle.sin() * u


def composed(
    first: Student,
    second: Student,
    x_t: Float[Tensor, "batch ..."],
    times: tuple[Shaped[Tensor, " batch"], Shaped[Tensor, " batch"], Shaped[Tensor, " batch"]],
    schedule: NoiseSchedule,
    condition: Any = None,
) -> Float[Tensor, "batch ..."]:
    """u* of the jump that lands where two do, equation (2). A target: it carries no gradient.

    Args:
        times: t, m and s with t > m > s; `first` jumps from t to m and `second` from m to s.
    """
    t, m, s = times
    a, b = _angle_between(t, m, schedule, x_t), _angle_between(m, s, schedule, x_t)
    with torch.no_grad():
        u_1 = first(x_t, t, m, condition).to(x_t.dtype)
        u_2 = second(jump(u_1, x_t, t, m, schedule), m, s, condition).to(x_t.dtype)
        return (a.sin() * (b.cos() * u_1 - b.sin() * x_t) + b.sin() * u_2) / (a + b).sin()


def shortcut_loss(
    student: Student,
    average: Student,
    teacher: Student,
    x_0: Float[Tensor, "batch ..."],
    condition: Any,
    schedule: NoiseSchedule,
    rng: torch.Generator,
    *,
    finest: int = 32,
    teacher_share: float = 0.25,
) -> ShortcutLoss:
    """One estimate of E ‖u(x_t, t, s) − u*‖² / d over jumps of the grids of 1, 2, 4, … `finest`/2 equal steps of time.

    A jump of one grid is asked to land where two of the next finer one do. The student's average makes those two, but on the finest grid,
    whose two are the teacher's: from there what the teacher knows spreads to ever longer jumps.

    Args:
        student: trained. average: a moving average of it, which makes the targets' jumps: with its own latest weights there,
            training may diverge (docs/lab-notes.md). teacher: `as_student(...)` or `GuidedTeacher`.
        x_0: data, of about unit variance. condition: passed on to both, with the batch first.
        rng: draws the grids' order, the jumps and the noise; a generator on x_0's device.
        finest: steps of the grid that the teacher walks, a power of two. teacher_share: of the batch, on that grid.

    Raises:
        DataError: a number is out of range or the student returns another shape.
    """
    jumps = _jumps(len(x_0), schedule.num_steps, rng, finest, teacher_share)
    place = (torch.rand(len(x_0), generator=rng, device=rng.device) * jumps).long().clamp(max=jumps - 1)
    t, m, s = (_grid_time(2 * place + k, 2 * jumps, schedule.num_steps) for k in range(3))
    alpha, sigma = schedule.alpha_sigma(t, x_0)
    x_t = alpha * x_0 + sigma * torch.randn(x_0.shape, generator=rng, device=x_0.device, dtype=x_0.dtype)
    u = student(x_t, t, s, condition)
    if u.shape != x_0.shape:
        raise DataError(f"a student must return the state's shape {tuple(x_0.shape)}, got {tuple(u.shape)}")
    by_teacher = int((2 * jumps == finest).sum())
    targets = [
        composed(who, who, x_t[rows], (t[rows], m[rows], s[rows]), schedule, _rows(condition, rows))
        for who, rows in ((teacher, slice(0, by_teacher)), (average, slice(by_teacher, None)))
        if len(x_t[rows])
    ]
    # At least float32: under autocast the network's output is half precision, and squares of small errors would vanish.
    precision = torch.promote_types(x_0.dtype, torch.float32)
    per_sample = (u.to(precision) - torch.cat(targets).to(precision)).square().flatten(1).mean(1)
    return ShortcutLoss(per_sample.mean(), per_sample, jumps)


def as_student(denoiser: Denoiser) -> Student:
    """A denoiser that predicts v as a student that ignores where it goes: DDIM."""
    return lambda x_t, t, s, condition: denoiser(x_t, t, condition)


class GuidedTeacher:
    """The guided flow of a denoiser that predicts v, as a student and a denoiser; the condition is `Guided`, each sample with its own w."""

    def __init__(self, denoiser: Denoiser, null_condition: Any) -> None:
        """
        Args:
            null_condition: ∅, see `ClassifierFreeGuidance`.
        """
        self.denoiser, self.null_condition = denoiser, null_condition

    def __call__(
        self, x_t: Float[Tensor, "batch ..."], t: Shaped[Tensor, " batch"], s: Shaped[Tensor, " batch"], condition: Guided
    ) -> Float[Tensor, "batch ..."]:
        """ṽ = v(∅) + w (v(c) − v(∅)), both branches in one batch."""
        if condition.scale.shape != (len(x_t),):
            raise DataError(f"one guidance scale a sample is needed, shape ({len(x_t)},), got {tuple(condition.scale.shape)}")
        without, given = both_branches(self.denoiser, x_t, t, condition.condition, self.null_condition)
        return without + condition.scale.reshape(-1, *[1] * (x_t.ndim - 1)) * (given - without)


def towards(student: Student, sampler: Sampler) -> Denoiser:
    """The student as a denoiser for that sampler: at each step it is told where the step goes.

    Raises:
        DataError: the sampler's step is not a rotation by what predicts v: only DDIM with η = 0 and Euler make such steps.
    """
    if not isinstance(sampler, DDIM | Euler) or sampler.stochastic or sampler.prediction != "v_prediction":
        raise DataError(f"a student jumps by DDIM (eta = 0) or Euler with prediction 'v_prediction', got {sampler}")
    steps = list(pairwise(sampler.levels))

    def denoise(x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        _, goal = min(steps, key=lambda step: abs(step[0].t - t[0].item()))  # nearest: some devices have no float64
        return student(x_t, t, time_of_each(x_t, goal.t), condition)

    return denoise


def _jumps(batch: int, num_steps: int, rng: torch.Generator, finest: int, teacher_share: float) -> Int64[Tensor, " batch"]:
    """For each row the number of jumps on its grid; the teacher's rows first, the others spread evenly over the coarser grids."""
    halvings = finest.bit_length() - 1
    if finest != 2**halvings or not 2 <= finest <= num_steps:
        raise DataError(f"the finest grid has a number of steps that is a power of two within 2 … {num_steps}, got {finest}")
    if not 0 < teacher_share <= 1:
        raise DataError(f"the teacher's share of a batch lies above 0 and up to 1, got {teacher_share}")
    if batch == 0:
        raise DataError("the shortcut loss needs at least one sample")
    row = torch.arange(batch, device=rng.device)
    if halvings == 1:
        return torch.ones_like(row)
    first = torch.randint(halvings - 1, (), generator=rng, device=rng.device)  # a small batch reaches all grids in time
    level = torch.where(row < round(batch * teacher_share), halvings - 1, (row + first) % (halvings - 1))
    return 2**level


def _grid_time(k: Tensor, of: Tensor, num_steps: int) -> Int64[Tensor, " batch"]:
    """Step k of each grid, counted from T: where "trailing" sampling stands; the coarser grids' times are in the finer ones."""
    return torch.round(num_steps - k * num_steps / of).long()


def _rows(condition: Any, rows: slice) -> Any:
    return map_tensors(lambda leaf: leaf[rows] if len(leaf) > 1 else leaf, condition)


def _angle_between(t: Tensor, s: Tensor, schedule: NoiseSchedule, x_t: Tensor) -> Tensor:
    """φ_t − φ_s, shaped to multiply x_t."""
    if t.shape != (len(x_t),) or s.shape != t.shape:
        raise DataError(
            f"one start and one goal a sample are needed, shape ({len(x_t)},), got {tuple(t.shape)} and {tuple(s.shape)}"
        )
    angle = schedule.angle(t) - schedule.angle(s)
    if bool((angle < 0).any()):
        raise DataError("a jump goes from more noise to less, but some goal lies above its start")
    return angle.to(x_t.dtype).to(x_t.device).reshape(-1, *[1] * (x_t.ndim - 1))
