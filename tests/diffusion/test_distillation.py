"""Students and jumps against flow maps that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from ornstein.core.errors import DataError
from ornstein.diffusion import (
    DDIM,
    DDPM,
    ClassifierFreeGuidance,
    Distribution,
    Euler,
    Gaussian,
    GaussianMixture,
    Guided,
    GuidedTeacher,
    NoiseSchedule,
    as_student,
    composed,
    jump,
    shortcut_loss,
    towards,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEDULE = NoiseSchedule.cosine()
T = SCHEDULE.num_steps
GAUSSIAN = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))
MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7]), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), torch.stack([0.2 * torch.eye(2), 0.4 * torch.eye(2)])
)


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(data: Distribution) -> Callable[..., Tensor]:
    """The student whose jumps are the flow map of the data."""

    def student(x_t: Tensor, t: Tensor, s: Tensor, condition: Any = None) -> Tensor:
        ends = [
            data.flow(x[None], SCHEDULE, float(now), float(then), tolerance=1e-8) for x, now, then in zip(x_t, t, s, strict=True)
        ]
        angle = (SCHEDULE.angle(t) - SCHEDULE.angle(s))[:, None]
        return ((angle.cos() * x_t - torch.cat(ends)) / angle.sin()).to(x_t.dtype)

    return student


def _states(n: int) -> Tensor:
    return torch.randn(n, 2, generator=_rng(), dtype=torch.float64)


# --- the jump


def test_a_jump_to_where_it_is_stays_there_whatever_the_student_says() -> None:
    x, t = _states(3), torch.tensor([1000, 500, 0])
    assert torch.equal(jump(1e6 * _states(3), x, t, t, SCHEDULE), x)


def test_a_jump_by_the_exact_pair_is_noising_at_the_goal() -> None:
    """With v of the pair (x_0, ε) itself, α_t x_0 + σ_t ε goes to α_s x_0 + σ_s ε."""
    x_0, eps = _states(4), torch.randn(4, 2, generator=_rng(1), dtype=torch.float64)
    t, s = torch.tensor([1000.0, 700.5, 33.0, 2.0]), torch.tensor([0.0, 10.25, 32.5, 1.0])
    (a_t, s_t), (a_s, s_s) = ((SCHEDULE.angle(time).cos()[:, None], SCHEDULE.angle(time).sin()[:, None]) for time in (t, s))
    there = jump(a_t * eps - s_t * x_0, a_t * x_0 + s_t * eps, t, s, SCHEDULE)
    torch.testing.assert_close(there, a_s * x_0 + s_s * eps)


@pytest.mark.parametrize("kind", [DDIM, Euler])
def test_a_denoiser_as_a_student_is_ddim(kind: type[DDIM | Euler]) -> None:
    denoiser = MIXTURE.denoiser(SCHEDULE, "v_prediction")
    sampler = kind(SCHEDULE, 7, prediction="v_prediction")
    expected = x = _states(5)
    for now, then in zip(sampler.levels[:-1], sampler.levels[1:], strict=True):
        t, s = (torch.full((5,), level.t) for level in (now, then))
        x = jump(as_student(denoiser)(x, t, s, None), x, t, s, SCHEDULE)
    torch.testing.assert_close(x, DDIM(SCHEDULE, 7, prediction="v_prediction").sample(denoiser, expected))
    torch.testing.assert_close(sampler.sample(towards(as_student(denoiser), sampler), expected), x)


def test_wrong_jumps_are_refused() -> None:
    x, t = _states(2), torch.tensor([10, 10])
    with pytest.raises(DataError, match="more noise to less"):
        jump(x, x, t, t + 1, SCHEDULE)
    with pytest.raises(DataError, match="state's shape"):
        jump(x[:1], x, t, t, SCHEDULE)
    with pytest.raises(DataError, match="one goal a sample"):
        jump(x, x, t, t[:1], SCHEDULE)
    with pytest.raises(DataError, match="0 … 1000"):
        jump(x, x, t, t - 11, SCHEDULE)


# --- composition


@pytest.mark.parametrize("data", [GAUSSIAN, MIXTURE])
def test_two_jumps_of_the_flow_map_are_one(data: Distribution) -> None:
    x = _states(4)
    times = torch.tensor([1000, 1000, 400, 20]), torch.tensor([500, 999, 300, 10]), torch.tensor([0, 3, 7, 9])
    student = exact(data)
    found = composed(student, student, x, times, SCHEDULE)
    torch.testing.assert_close(found, student(x, times[0], times[2]), rtol=1e-6, atol=1e-6)


def test_composition_by_any_two_students_lands_where_they_do() -> None:
    """Equation (2) against the two jumps made one after the other; also for jumps too short for float32 to divide by."""

    def first(x: Tensor, t: Tensor, s: Tensor, condition: Any) -> Tensor:
        return x.sin() + t[:, None] / T

    def second(x: Tensor, t: Tensor, s: Tensor, condition: Any) -> Tensor:
        return x**2 - s[:, None] / T

    x, t, m, s = _states(3), torch.tensor([1000.0, 600, 5.002]), torch.tensor([400.0, 599, 5.001]), torch.tensor([0.0, 1, 5])
    there = jump(first(x, t, m, None), x, t, m, SCHEDULE)
    there = jump(second(there, m, s, None), there, m, s, SCHEDULE)
    u = composed(first, second, x, (t, m, s), SCHEDULE)
    torch.testing.assert_close(jump(u, x, t, s, SCHEDULE), there)
    narrow = composed(first, second, x.float(), (t, m, s), SCHEDULE)
    torch.testing.assert_close(narrow.double(), u, rtol=1e-5, atol=1e-5)


def test_a_target_carries_no_gradient() -> None:
    weight = torch.ones((), requires_grad=True)

    def student(x: Tensor, t: Tensor, s: Tensor, condition: Any) -> Tensor:
        return weight * x

    times = torch.tensor([900, 900]), torch.tensor([500, 400]), torch.tensor([0, 1])
    assert not composed(student, student, _states(2), times, SCHEDULE).requires_grad


# --- the loss


def _shortcut(student: Any, average: Any, teacher: Any, n: int = 24, **settings: Any) -> Any:
    return shortcut_loss(student, average, teacher, GAUSSIAN.sample(n, _rng()), None, SCHEDULE, _rng(1), **settings)


def test_the_flow_map_has_no_loss_and_is_a_stationary_point() -> None:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    true = exact(GAUSSIAN)
    result = _shortcut(lambda *where: scale * true(*where), true, true)
    assert float(result.loss.detach()) < 1e-20
    (gradient,) = torch.autograd.grad(result.loss, scale)
    assert abs(float(gradient)) < 1e-10
    # Within reach, but not trivially: 1 % off is seen.
    assert float(_shortcut(lambda *where: 1.01 * true(*where), true, true).loss) > 1e-6


def test_ddim_is_the_map_of_no_gaussian() -> None:
    """A student that ignores its goal has no loss against the teacher's short steps only as far as these are nearly one."""
    teacher = as_student(GAUSSIAN.denoiser(SCHEDULE, "v_prediction"))
    result = _shortcut(teacher, teacher, teacher, n=400)
    by_jumps = {n: float(result.per_sample[result.jumps == n].mean()) for n in (1, 4, 16)}
    assert by_jumps[1] > 4 * by_jumps[4] > 16 * by_jumps[16]


def test_who_makes_the_targets_on_which_grid_and_where() -> None:
    asked: dict[str, list[tuple[int, int]]] = {"student": [], "average": [], "teacher": []}

    def who(name: str) -> Callable[..., Tensor]:
        def student(x: Tensor, t: Tensor, s: Tensor, condition: Any) -> Tensor:
            assert t.dtype == s.dtype == torch.int64
            asked[name] += list(zip(t.tolist(), s.tolist(), strict=True))
            return torch.zeros_like(x, requires_grad=name == "student")

        return student

    result = _shortcut(who("student"), who("average"), who("teacher"), n=400, finest=8, teacher_share=0.25)
    grids = {n: [round(T - k * T / n) for k in range(n + 1)] for n in (1, 2, 4, 8)}
    steps = {n: set(zip(times[:-1], times[1:], strict=True)) for n, times in grids.items()}
    assert set(asked["teacher"]) == steps[8]
    assert set(asked["average"]) == steps[2] | steps[4]
    assert set(asked["student"]) == steps[1] | steps[2] | steps[4]
    assert (result.jumps == 4).sum() == 100
    assert (result.jumps[100:] == 1).sum() == (result.jumps[100:] == 2).sum() == 150


def test_trailing_sampling_stands_on_the_grids_of_training() -> None:
    """Also where T is not divisible: what is drawn in n = 1, 2, 4, … steps is what was trained."""
    schedule = NoiseSchedule.cosine(num_steps=333)
    seen: set[tuple[int, int]] = set()

    def student(x: Tensor, t: Tensor, s: Tensor, condition: Any) -> Tensor:
        seen.update(zip(t.tolist(), s.tolist(), strict=True))
        return torch.zeros_like(x, requires_grad=True)

    shortcut_loss(student, student, student, torch.zeros(2000, 2), None, schedule, _rng())
    drawn: set[tuple[int, int]] = set()
    for n in (1, 2, 4, 8, 16, 32):
        times = [int(level.t) for level in DDIM(schedule, n, prediction="v_prediction").levels]
        drawn.update(zip(times[:-1], times[1:], strict=True))
    assert seen == drawn


def test_half_precision_does_not_cost_the_student_its_gradient() -> None:
    """Under autocast with one network on both sides: the copies of its weights that targets are made with have no gradient."""
    layer = nn.Linear(2, 2)

    def student(x: Tensor, t: Tensor, s: Tensor, condition: Any) -> Tensor:
        return layer(x)

    with torch.autocast("cpu", torch.bfloat16):
        result = shortcut_loss(student, student, student, torch.randn(16, 2, generator=_rng()), None, SCHEDULE, _rng())
    result.loss.backward()
    assert result.loss.dtype == torch.float32
    assert layer.weight.grad is not None
    assert float(layer.weight.grad.abs().min()) > 0


def test_the_same_seed_gives_the_same_loss() -> None:
    teacher = as_student(GAUSSIAN.denoiser(SCHEDULE, "v_prediction"))
    one, two = (_shortcut(teacher, teacher, teacher) for _ in range(2))
    assert torch.equal(one.per_sample, two.per_sample)
    assert float(one.loss) == pytest.approx(float(one.per_sample.mean()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"finest": 12}, "power of two"),
        ({"finest": 1}, "power of two"),
        ({"finest": 1024}, "2 … 1000"),
        ({"teacher_share": 0.0}, "share"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    teacher = as_student(GAUSSIAN.denoiser(SCHEDULE, "v_prediction"))
    with pytest.raises(DataError, match=message):
        _shortcut(teacher, teacher, teacher, **settings)


def test_a_batch_of_any_size() -> None:
    teacher = as_student(GAUSSIAN.denoiser(SCHEDULE, "v_prediction"))
    for n in (1, 2, 3):
        assert _shortcut(teacher, teacher, teacher, n=n).per_sample.shape == (n,)
    rng, x_0 = _rng(), torch.zeros(3, 2, dtype=torch.float64)
    seen = torch.cat([shortcut_loss(teacher, teacher, teacher, x_0, None, SCHEDULE, rng).jumps for _ in range(30)])
    assert set(seen.tolist()) == {1, 2, 4, 8, 16}
    assert set(_shortcut(teacher, teacher, teacher, n=8, finest=2).jumps.tolist()) == {1}
    assert set(_shortcut(teacher, teacher, teacher, n=8, teacher_share=1.0).jumps.tolist()) == {16}
    with pytest.raises(DataError, match="at least one"):
        shortcut_loss(teacher, teacher, teacher, torch.zeros(0, 2), None, SCHEDULE, _rng())


# --- training


class Affine(nn.Module):
    """u = A x + b for each pair of times of the grids of 1, 2, 4, … 16 jumps: what the flow map of a Gaussian needs, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.matrices = nn.Parameter(torch.zeros(17, 17, 2, 3, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, s: Tensor, condition: Any = None) -> Tensor:
        matrix = self.matrices[(t * 16 / T).round().long(), (s * 16 / T).round().long()]
        return torch.einsum("nij,nj->ni", matrix, torch.cat([x, torch.ones_like(x[:, :1])], 1))


def test_a_student_of_a_gaussian_reaches_the_closed_form() -> None:
    student, average = Affine(), Affine()
    teacher, rng = exact_gaussian(), _rng(3)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    for i in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - i / 200)
        loss = shortcut_loss(student, average, teacher, GAUSSIAN.sample(128, rng), None, SCHEDULE, rng).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            average.matrices.lerp_(student.matrices, 0.1)
    x = _states(200)
    ends = GAUSSIAN.flow(x, SCHEDULE, T, 0)
    errors = []
    for n in (1, 2, 4):
        sampler = DDIM(SCHEDULE, n, prediction="v_prediction")
        with torch.inference_mode():
            errors.append(float((sampler.sample(towards(student, sampler), x) - ends).norm(dim=1).mean()))
    assert max(errors) < 0.02
    sampler = DDIM(SCHEDULE, 1, prediction="v_prediction")
    without = sampler.sample(GAUSSIAN.denoiser(SCHEDULE, "v_prediction"), x)
    assert float((without - ends).norm(dim=1).mean()) > 0.5


def exact_gaussian() -> Callable[..., Tensor]:
    """`exact(GAUSSIAN)`, all rows at once: x_s − α_s μ = R (x_t − α_t μ), along each axis by the ratio of the spreads."""
    variances, axes = torch.linalg.eigh(GAUSSIAN.covariances[0])
    mean = GAUSSIAN.means[0]

    def student(x_t: Tensor, t: Tensor, s: Tensor, condition: Any = None) -> Tensor:
        (a_t, s_t), (a_s, s_s) = ((SCHEDULE.angle(time).cos()[:, None], SCHEDULE.angle(time).sin()[:, None]) for time in (t, s))
        ratio = ((a_s**2 * variances + s_s**2) / (a_t**2 * variances + s_t**2)).sqrt()
        end = a_s * mean + (((x_t - a_t * mean) @ axes) * ratio) @ axes.T
        angle = (SCHEDULE.angle(t) - SCHEDULE.angle(s))[:, None]
        return (angle.cos() * x_t - end) / angle.sin()

    return student


# --- guidance


def _denoiser_of_classes(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """Class 0 is the Gaussian, class 1 the mixture, class 2 (∅) neither: it is what guidance leads away from."""
    shifted = Gaussian(torch.zeros(2), torch.eye(2))
    every = [data.denoiser(SCHEDULE, "v_prediction")(x, t) for data in (GAUSSIAN, MIXTURE, shifted)]
    return torch.stack(every)[condition, torch.arange(len(x))]


def test_the_guided_teacher_is_guidance_with_a_scale_a_sample() -> None:
    x, t, classes = _states(6), torch.full((6,), 400), torch.tensor([0, 1, 0, 1, 0, 1])
    scale = torch.tensor([0.0, 1.0, 2.5, 4.0, 7.0, -1.0], dtype=torch.float64)
    teacher = GuidedTeacher(_denoiser_of_classes, torch.tensor([2]))
    found = teacher(x, t, t - 1, Guided(classes, scale))
    for row, w in enumerate(scale.tolist()):
        one = slice(row, row + 1)
        guided = ClassifierFreeGuidance(_denoiser_of_classes, w, torch.tensor([2]))
        torch.testing.assert_close(found[one], guided(x[one], t[one], classes[one]))


def test_the_guided_teacher_needs_a_scale_a_sample() -> None:
    teacher = GuidedTeacher(_denoiser_of_classes, torch.tensor([2]))
    with pytest.raises(DataError, match="one guidance scale a sample"):
        teacher(_states(2), torch.tensor([5, 5]), torch.tensor([4, 4]), Guided(torch.tensor([0, 1]), torch.tensor(4.0)))


def test_conditions_go_with_their_rows() -> None:
    """Teacher's and average's parts of the batch are told their own classes and scales."""
    x_0, asked = torch.zeros(40, 1), Guided(torch.arange(40), 100.0 + torch.arange(40))
    seen: dict[str, list[float]] = {"average": [], "teacher": []}

    def who(name: str) -> Callable[..., Tensor]:
        def student(x: Tensor, t: Tensor, s: Tensor, condition: Guided) -> Tensor:
            assert torch.equal(condition.condition + 100.0, condition.scale)
            seen.setdefault(name, []).extend(condition.scale.tolist())
            return torch.zeros_like(x, requires_grad=True)

        return student

    shortcut_loss(who("student"), who("average"), who("teacher"), x_0, asked, SCHEDULE, _rng())
    assert seen["teacher"] == 2 * asked.scale[:10].tolist()
    assert seen["average"] == 2 * asked.scale[10:].tolist()
    assert seen["student"] == asked.scale.tolist()


# --- samplers


def test_only_rotations_by_v_carry_a_student() -> None:
    student = as_student(MIXTURE.denoiser(SCHEDULE, "v_prediction"))
    for sampler in (
        DDPM(SCHEDULE, 4, prediction="v_prediction"),
        DDIM(SCHEDULE, 4, prediction="epsilon"),
        DDIM(SCHEDULE, 4, prediction="v_prediction", eta=0.5),
    ):
        with pytest.raises(DataError, match="DDIM"):
            towards(student, sampler)


def test_the_flow_map_draws_exactly_in_any_number_of_steps() -> None:
    x = _states(3)
    ends = MIXTURE.flow(x, SCHEDULE, T, 0)
    for n in (1, 2, 3):
        sampler = DDIM(SCHEDULE, n, prediction="v_prediction")
        torch.testing.assert_close(sampler.sample(towards(exact(MIXTURE), sampler), x), ends, rtol=1e-6, atol=1e-6)


def test_goals_between_two_steps_are_told_as_they_are() -> None:
    for settings in ({"end": 0.5}, {"spacing": "log_snr", "end": 20.3}):
        sampler = DDIM(SCHEDULE, 3, prediction="v_prediction", **settings)  # type: ignore[arg-type]
        told: list[tuple[float, float]] = []

        def student(x: Tensor, t: Tensor, s: Tensor, condition: Any, told: list[tuple[float, float]] = told) -> Tensor:
            told += zip(t.tolist(), s.tolist(), strict=True)
            return torch.zeros_like(x)

        sampler.sample(towards(student, sampler), _states(1))
        times = [level.t for level in sampler.levels]
        assert told == list(zip(times[:-1], times[1:], strict=True))
