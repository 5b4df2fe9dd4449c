"""What all samplers share: the time steps, the loop and its refusals."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.core.errors import DataError, OrnsteinError, UnknownNameError
from ornstein.diffusion import (
    DDIM,
    DDPM,
    PREDICTIONS,
    DPMSolverPP2M,
    DPMSolverPP2MSDE,
    DPMSolverPP3M,
    Euler,
    Gaussian,
    Heun,
    KeyedNoise,
    NoiseSchedule,
    Sampler,
    time_steps,
)

SCHEDULE = NoiseSchedule.linear()
GAUSSIAN = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))
DENOISER = GAUSSIAN.denoiser(SCHEDULE, "epsilon")
ALL = (DDIM, DDPM, Euler, Heun, DPMSolverPP2M, DPMSolverPP2MSDE, DPMSolverPP3M)


def _noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _broken(value: float) -> Any:
    """A denoiser whose second row turns `value` at and below t = 500."""

    def denoiser(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        row = torch.arange(len(x))[:, None]
        return torch.where((row == 1) & (t[:, None] <= 500), value, 0.0 * x)

    return denoiser


@settings(deadline=None)
@given(num_train=st.integers(1, 1200), data=st.data())
def test_spacings_are_distinct_even_and_inside_for_any_count(num_train: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, num_train))
    for spacing in ("trailing", "leading", "linspace"):
        times = time_steps(num_train, n, spacing)
        assert len(times) == n
        gaps = [a - b for a, b in pairwise(times)]
        assert not gaps or min(gaps) >= 1
        assert not gaps or max(gaps) - min(gaps) <= 1
        assert 1 <= times[-1] <= times[0] <= num_train
        if spacing != "leading":
            assert times[0] == num_train
        if spacing == "trailing":  # the jump to the data is as long as the others
            assert abs(times[-1] - num_train / n) <= 0.5
        if spacing == "leading" or (spacing == "linspace" and n > 1):
            assert times[-1] == 1
        if n == num_train:
            assert times == list(range(num_train, 0, -1))


def test_spacings_by_hand() -> None:
    assert time_steps(1000, 4, "trailing") == [1000, 750, 500, 250]
    assert time_steps(1000, 4, "leading") == [751, 501, 251, 1]
    assert time_steps(1000, 4, "linspace") == [1000, 667, 334, 1]
    # Counts that do not divide T: 1000/7 = 142.86, 1000/3 = 333.3.
    assert time_steps(1000, 7, "trailing") == [1000, 857, 714, 571, 429, 286, 143]
    assert time_steps(1000, 7, "leading") == [858, 715, 572, 429, 286, 143, 1]
    assert time_steps(1000, 3, "trailing") == [1000, 667, 333]
    assert time_steps(10, 1, "linspace") == [10]


@pytest.mark.parametrize("n", [1, 2, 7, 12])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_every_sampler_ends_at_the_data_and_calls_once_a_step(n: int, spacing: Any) -> None:
    for sampler in ALL:
        seen: list[int] = []

        def denoiser(x: torch.Tensor, t: torch.Tensor, condition: Any, seen: list[int] = seen) -> torch.Tensor:
            assert (t.shape, t.dtype) == ((len(x),), torch.int64)
            assert condition == "c"
            seen.append(int(t.unique()))
            return DENOISER(x, t)

        steps = list(
            sampler(SCHEDULE, n, prediction="epsilon", spacing=spacing).iterate(denoiser, _noise(2), "c", KeyedNoise(0, [0, 1]))
        )
        times = time_steps(1000, n, spacing)
        assert [(s.index, s.t, s.t_prev) for s in steps] == list(zip(range(n), times, [*times[1:], 0], strict=True))
        more = {Heun: n - 1, DPMSolverPP3M: min(n - 1, 1)}.get(sampler, 0)
        assert len(seen) == n + more
        assert set(seen) == set(times)


def test_even_log_snr_spacing() -> None:
    for end, last in ((0, 1), (25, 25), (10.5, 10.5)):
        sampler = DDIM(SCHEDULE, 7, prediction="epsilon", spacing="log_snr", end=end)
        levels = sampler.levels if end else sampler.levels[:-1]
        lambdas = [math.log(level.alpha / level.sigma) for level in levels]
        gaps = torch.tensor([b - a for a, b in pairwise(lambdas)], dtype=torch.float64)
        torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps), rtol=1e-6, atol=0)
        assert levels[0].t == 1000
        assert levels[-1].t == last if end == 0 else math.isclose(levels[-1].t, last, rel_tol=1e-9)
    assert [level.t for level in DDIM(SCHEDULE, 1, prediction="epsilon", spacing="log_snr").levels] == [1000, 0]
    with pytest.raises(DataError, match="descend"):  # one time only, and two steps to take
        DDIM(NoiseSchedule([0.5]), 2, prediction="epsilon", spacing="log_snr")
    with pytest.raises(DataError, match="choose another spacing"):
        DDIM(SCHEDULE.with_zero_terminal_snr(), 5, prediction="sample", spacing="log_snr")


@pytest.mark.parametrize("sampler", ALL)
def test_times_between_steps_reach_the_denoiser_as_they_are(sampler: type[Sampler]) -> None:
    seen: list[float] = []

    def denoiser(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        seen.append(float(t[0]))
        assert t.dtype == (torch.int64 if seen[-1] == int(seen[-1]) else torch.float64)
        return DENOISER(x, t)

    run = sampler(SCHEDULE, 3, prediction="epsilon", spacing=[1000, 500.25, 33.125], end=2.5)
    steps = list(run.iterate(denoiser, _noise(2), None, KeyedNoise(0, [0, 1])))
    assert [(s.t, s.t_prev) for s in steps] == [(1000, 500.25), (500.25, 33.125), (33.125, 2.5)]
    assert {1000.0, 500.25, 33.125} <= set(seen) <= {1000.0, 500.25, 33.125, 2.5}


@pytest.mark.parametrize("sampler", ALL)
def test_stopping_early_is_the_law_of_that_time(sampler: type[Sampler]) -> None:
    """Mean and variance of a Gaussian's x_t, from a fine walk that ends at t = 300.5."""
    n = 20_000
    run = sampler(SCHEDULE, 120, prediction="epsilon", spacing="log_snr", end=300.5)
    x = run.sample(DENOISER, _noise(n), None, _Stream(n))
    level = SCHEDULE.level(300.5)
    torch.testing.assert_close(x.mean(0), level.alpha * GAUSSIAN.means[0], atol=0.03, rtol=0)
    wanted = level.alpha**2 * GAUSSIAN.covariances[0] + level.sigma**2 * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(torch.cov(x.T), wanted, atol=0.03, rtol=0)


class _Stream:
    """A noise source from one generator, where keys do not matter."""

    def __init__(self, n: int) -> None:
        self.n, self.rng = n, torch.Generator().manual_seed(1)

    def at(self, step: int, shape: Any) -> torch.Tensor:
        return torch.randn(self.n, *shape, generator=self.rng, dtype=torch.float64)


def test_ends_and_times_out_of_range_are_refused() -> None:
    for end in (-1, 1000, math.nan):
        with pytest.raises(DataError, match="0 ≤ end < 1000"):
            DDIM(SCHEDULE, 5, prediction="epsilon", end=end)
    for times in ([900, 30, 7], [900, math.nan, 40], [1000.5, 500, 400], [math.inf, 500, 400]):
        with pytest.raises(DataError, match="3 descending numbers within 30"):
            DDIM(SCHEDULE, 3, prediction="epsilon", spacing=times, end=30)


def test_explicit_steps_are_taken_as_given() -> None:
    steps = list(DDIM(SCHEDULE, 3, prediction="epsilon", spacing=[900, 44, 7]).iterate(DENOISER, _noise(1)))
    assert [(s.t, s.t_prev) for s in steps] == [(900, 44), (44, 7), (7, 0)]


def test_the_last_state_is_what_sample_returns_and_the_input_is_left_alone() -> None:
    for sampler in ALL:
        x, source = _noise(3), KeyedNoise(1, range(3))
        before = x.clone()
        stepper = sampler(SCHEDULE, 9, prediction="epsilon")
        steps = list(stepper.iterate(DENOISER, x, None, source))
        states = [s.x.clone() for s in steps]
        assert torch.equal(stepper.sample(DENOISER, x, None, source), steps[-1].x)
        assert torch.equal(x, before)
        for step, state in zip(steps, states, strict=True):  # no later step writes into an earlier state
            assert torch.equal(step.x, state)


def test_the_estimate_of_the_data_is_the_oracles() -> None:
    for kind in PREDICTIONS:
        for sampler in ALL:
            x = _noise(4)
            stepper = sampler(SCHEDULE, 5, prediction=kind)
            for step in stepper.iterate(GAUSSIAN.denoiser(SCHEDULE, kind), x, None, KeyedNoise(2, range(4))):
                level = SCHEDULE.level(step.t)
                torch.testing.assert_close(
                    step.x_0_hat, GAUSSIAN.posterior_mean(x, level.alpha, level.sigma), rtol=1e-8, atol=1e-9
                )
                x = step.x


def test_one_sampler_serves_trajectories_that_interleave() -> None:
    """DPM-Solver++ remembers its last estimate, Heun calls the denoiser again: neither may be shared between runs."""
    other = Gaussian(torch.tensor([-2.0, 2.0]), torch.eye(2)).denoiser(SCHEDULE, "epsilon")
    for sampler in ALL:
        stepper = sampler(SCHEDULE, 8, prediction="epsilon")
        runs = [(DENOISER, _noise(2), KeyedNoise(0, [0, 1])), (other, _noise(2, 1), KeyedNoise(1, [0, 1]))]
        alone = [stepper.sample(d, x, None, source) for d, x, source in runs]
        together = list(zip(*(stepper.iterate(d, x, None, source) for d, x, source in runs), strict=True))
        for expected, step in zip(alone, together[-1], strict=True):
            assert torch.equal(step.x, expected)


def test_clipping_bounds_the_data_estimate_and_keeps_the_state_consistent() -> None:
    wild = Gaussian(torch.tensor([5.0, -5.0]), 0.01 * torch.eye(2)).denoiser(SCHEDULE, "epsilon")
    clipped = torch.tensor([[1.0, -1.0]], dtype=torch.float64).expand(4, 2)
    for sampler in ALL:
        x = _noise(4)
        steps = list(sampler(SCHEDULE, 10, prediction="epsilon", clip=1.0).iterate(wild, x, None, KeyedNoise(0, range(4))))
        for step in steps:
            torch.testing.assert_close(step.x_0_hat, clipped)
        torch.testing.assert_close(steps[-1].x, clipped)
        if sampler is DDIM:  # ε̂ is the one that leads from the clipped estimate to the state
            now, then = SCHEDULE.level(1000), SCHEDULE.level(900)
            eps = (x - now.alpha * clipped) / now.sigma
            torch.testing.assert_close(steps[0].x, then.alpha * clipped + then.sigma * eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_state_is_float32_at_least(dtype: torch.dtype) -> None:
    """And as exact as that: a half-precision state would be off by a thousandth."""
    x = _noise(4).to(dtype)
    for sampler in ALL:
        stepper = sampler(SCHEDULE, 20, prediction="epsilon")
        result = stepper.sample(DENOISER, x, None, KeyedNoise(0, range(4)))
        assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        reference = stepper.sample(DENOISER, x.double(), None, KeyedNoise(0, range(4)))
        torch.testing.assert_close(result.double(), reference, rtol=2e-5, atol=2e-5)


def test_a_half_precision_denoiser_costs_its_own_rounding_and_no_more() -> None:
    """Autocast returns half precision: from there on all is float32, as if the rounded numbers had come as such."""

    def half(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        assert x.dtype == torch.float32
        return DENOISER(x, t).bfloat16()

    def widened(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        return half(x, t, condition).float()

    for sampler in ALL:
        stepper = sampler(SCHEDULE, 5, prediction="epsilon")
        a, b = (stepper.sample(denoiser, _noise(2).float(), None, KeyedNoise(0, range(2))) for denoiser in (half, widened))
        assert torch.equal(a, b)
        assert a.dtype == torch.float32


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_state_that_is_not_finite_stops_at_its_step_and_names_the_sample(value: float, clip: float | None) -> None:
    for sampler in ALL:
        stepper = sampler(SCHEDULE, 4, prediction="v_prediction", clip=clip)
        made = []
        # Heun looks ahead to t = 500 within its second step.
        where = "after step 2 of 4" if sampler is Heun else r"after step 3 of 4 \(t = 500 → 250\)"
        with pytest.raises(
            OrnsteinError, match="at t = 500, in sample 1 of" if clip else f"{where}.*in sample 1 of the batch of 3"
        ):
            made.extend(stepper.iterate(_broken(value), _noise(3), None, KeyedNoise(0, range(3))))
        assert len(made) == (1 if sampler is Heun else 2)


def test_large_finite_states_are_not_mistaken_for_divergence() -> None:
    """Their sum overflows; they do not."""
    x = torch.full((2, 4), 3e38)
    steps = list(DDIM(SCHEDULE, 3, prediction="sample").iterate(lambda x, t, c: 0 * x, x))
    assert torch.equal(steps[-1].x, torch.zeros(2, 4))


def test_no_signal_at_the_first_step() -> None:
    """A schedule that ends in pure noise: v and x_0 still tell where to go; ε and the score cannot, and it is said."""
    schedule = NoiseSchedule([*NoiseSchedule.linear(num_steps=19, beta_end=0.3).betas[1:].tolist(), 1.0])
    data = Gaussian(torch.tensor([0.5]), torch.tensor([[0.3]]))
    x = _noise(5)[:, :1]
    for kind in ("v_prediction", "sample"):
        for sampler in (DDIM, DDPM, DPMSolverPP2M):
            first = next(iter(sampler(schedule, 10, prediction=kind).iterate(data.denoiser(schedule, kind), x, None, _Zero())))
            torch.testing.assert_close(first.x_0_hat, torch.full_like(x, 0.5))  # the data's mean: x_T says nothing
            then = schedule.level(first.t_prev)
            kept = 0.0 if sampler is DDPM else then.sigma  # DDPM's posterior forgets x_T, the others carry it along
            torch.testing.assert_close(first.x, then.alpha * first.x_0_hat + kept * x)
    for kind in ("epsilon", "score"):
        with pytest.raises(DataError, match="no signal is left"):
            DDIM(schedule, 10, prediction=kind)
    for sampler in (Euler, Heun):
        with pytest.raises(DataError, match=f"{sampler.__name__} divides by alpha.*t = 20: use DDIM"):
            sampler(schedule, 10, prediction="v_prediction")


class _Zero:
    def at(self, step: int, shape: Any) -> torch.Tensor:
        return torch.zeros(5, *shape)


def test_mistakes_are_named_before_anything_is_computed() -> None:
    def refuse(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        raise AssertionError("the denoiser was called")

    x = _noise(2)
    ddim, ddpm = DDIM(SCHEDULE, 2, prediction="epsilon"), DDPM(SCHEDULE, 2, prediction="epsilon")
    for make, message in (
        (lambda: DDIM(SCHEDULE, 1001, prediction="epsilon"), "between 1 and 1000, got 1001"),
        (lambda: DDIM(SCHEDULE, 0, prediction="epsilon"), "between 1 and 1000, got 0"),
        (
            lambda: DDIM(SCHEDULE, 2, prediction="epsilon", spacing="even"),
            "one of trailing, leading, linspace, log_snr or a list of times",
        ),
        (lambda: DDIM(SCHEDULE, 2, prediction="epsilon", spacing=[5, 5]), "descending"),
        (lambda: DDIM(SCHEDULE, 2, prediction="epsilon", spacing=[5, 0]), r"within 0 \(excluded\) … 1000"),
        (lambda: DDIM(SCHEDULE, 2, prediction="epsilon", spacing=[1001, 5]), r"within 0 \(excluded\) … 1000"),
        (lambda: DDIM(SCHEDULE, 3, prediction="epsilon", spacing=[9, 5]), "3 descending numbers"),
        (lambda: DDIM(SCHEDULE, 2, prediction="epsilon", clip=0.0), "clip must be positive"),
        (lambda: DDIM(SCHEDULE, 2, prediction="epsilon", eta=2.0), "eta"),
        (lambda: DDIM(SCHEDULE, 2, prediction="epsilon", eta=math.nan), "eta"),
        (lambda: DDPM(SCHEDULE, 2, prediction="epsilon", variance="medium"), "'small' or 'large', got 'medium'"),
        (lambda: ddpm.iterate(refuse, x), "pass a noise source"),
        (lambda: ddim.iterate(refuse, torch.zeros(2, 2, dtype=torch.int64)), "floating point, got torch.int64"),
        (lambda: ddim.iterate(refuse, torch.tensor(1.0)), r"shape \(batch, …\)"),
    ):
        with pytest.raises(DataError, match=message):
            make()
    with pytest.raises(UnknownNameError, match="epsilon"):
        DDIM(SCHEDULE, 2, prediction="noise")
    with pytest.raises(TypeError, match="abstract"):
        Sampler(SCHEDULE, 2, prediction="epsilon")  # type: ignore[abstract]


def test_wrong_shapes_are_named() -> None:
    x = _noise(2)
    with pytest.raises(DataError, match=r"denoiser must return the state's shape \(2, 2\), got \(2, 1\)"):
        DDIM(SCHEDULE, 2, prediction="epsilon").sample(lambda x, t, c: x[:, :1], x)
    for indices in ([0], [0, 1, 2]):  # one row would otherwise be spread over the batch, silently
        with pytest.raises(DataError, match=r"noise source must return the state's shape \(2, 2\)"):
            DDPM(SCHEDULE, 2, prediction="epsilon").sample(DENOISER, x, None, KeyedNoise(0, indices))
