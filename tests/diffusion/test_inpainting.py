from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.diffusion import (
    DDIM,
    PREDICTIONS,
    DPMSolverPP2M,
    DPMSolverPP3M,
    Euler,
    Gaussian,
    Heun,
    KnownData,
    NoiseSchedule,
    Sampler,
)

SCHEDULE = NoiseSchedule.linear()
SPREAD = Gaussian(torch.tensor([0.5, -1.0, 0.2]), torch.diag(torch.tensor([0.5, 0.3, 1.2])))
KNOWN = torch.tensor([[0.7, -0.4, 2.0]], dtype=torch.float64).expand(4, -1)
DRAWN = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)


def _noise(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("sampler", [DDIM, Euler, Heun, DPMSolverPP2M, DPMSolverPP3M])
def test_the_known_part_is_kept_and_independent_ones_are_drawn_as_if_alone(sampler: type[Sampler], kind: str) -> None:
    """Of independent dimensions one is known: it comes out exactly, and the others as they would without it."""
    denoiser = SPREAD.denoiser(SCHEDULE, kind)
    stepper = sampler(SCHEDULE, 40, prediction=kind)
    found = stepper.sample(KnownData(denoiser, SCHEDULE, kind, KNOWN, DRAWN), _noise())
    torch.testing.assert_close(found[:, 1], KNOWN[:, 1], rtol=1e-9, atol=1e-9)
    alone = stepper.sample(denoiser, _noise())
    torch.testing.assert_close(found[:, [0, 2]], alone[:, [0, 2]], rtol=1e-9, atol=1e-9)


def test_on_the_way_the_known_part_is_the_noised_data() -> None:
    """x_t = α_t x_known + σ_t ε with the ε that the walk implies at its start, at every step."""
    start = SCHEDULE.add_noise(KNOWN, torch.full((4,), 700), _noise())
    stepper = DDIM(SCHEDULE, 5, prediction="epsilon", spacing=[700, 500, 333, 200, 10])
    for step in stepper.iterate(KnownData(SPREAD.denoiser(SCHEDULE, "epsilon"), SCHEDULE, "epsilon", KNOWN, DRAWN), start):
        level = SCHEDULE.level(step.t_prev)
        torch.testing.assert_close(step.x[:, 1], level.alpha * KNOWN[:, 1] + level.sigma * _noise()[:, 1], rtol=1e-9, atol=1e-9)


def test_what_is_known_steers_what_depends_on_it() -> None:
    """Two dimensions that are nearly the same number: knowing one pulls the other there, not exactly (the method is not)."""
    twins = Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.995], [0.995, 1.0]]))
    known = torch.tensor([[1.3, 0.0]], dtype=torch.float64).expand(400, -1)
    inner = twins.denoiser(SCHEDULE, "v_prediction")
    denoiser = KnownData(inner, SCHEDULE, "v_prediction", known, torch.tensor([0.0, 1.0], dtype=torch.float64))
    stepper = DDIM(SCHEDULE, 200, prediction="v_prediction")
    found, alone = (stepper.sample(d, _noise(400)[:, :2])[:, 1] for d in (denoiser, inner))
    assert (found - 1.3).abs().mean() < (alone - 1.3).abs().mean() / 3
    assert found.std() < alone.std() / 2


def test_soft_edges_lie_between_and_times_between_steps_are_exact() -> None:
    def at(drawn: float, t: Any) -> torch.Tensor:
        mask = torch.full((3,), drawn, dtype=torch.float64)
        return KnownData(SPREAD.denoiser(SCHEDULE, "sample"), SCHEDULE, "sample", KNOWN, mask)(_noise(), t)

    for t in (torch.full((4,), 300), torch.full((4,), 300.25, dtype=torch.float64)):
        torch.testing.assert_close(at(0.0, t), KNOWN)
        torch.testing.assert_close(at(0.25, t), 0.75 * at(0.0, t) + 0.25 * at(1.0, t))
        torch.testing.assert_close(at(1.0, t), SPREAD.denoiser(SCHEDULE, "sample")(_noise(), t))


def test_what_is_unknown_may_be_anything() -> None:
    """Numbers under the drawn part, NaN among them, change nothing."""
    denoiser = SPREAD.denoiser(SCHEDULE, "sample")
    holes = torch.where(DRAWN == 1, math.nan, KNOWN)
    t = torch.full((4,), 300)
    found, wanted = (KnownData(denoiser, SCHEDULE, "sample", known, DRAWN)(_noise(), t) for known in (holes, KNOWN))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("drawn", "message"),
    [(torch.tensor([0.5, 1.5, 0.0]), "between 0"), (torch.tensor([float("nan")]), "between 0"), (torch.zeros(2), "broadcast")],
)
def test_wrong_masks_are_refused(drawn: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        KnownData(SPREAD.denoiser(SCHEDULE, "sample"), SCHEDULE, "sample", KNOWN, drawn)


def test_another_batch_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(4, 3\), x_t has \(2, 3\)"):
        KnownData(SPREAD.denoiser(SCHEDULE, "sample"), SCHEDULE, "sample", KNOWN, DRAWN)(_noise(2), torch.tensor([5, 5]))
