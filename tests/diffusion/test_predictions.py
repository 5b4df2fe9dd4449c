from __future__ import annotations

import math
from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.core.errors import DataError, UnknownNameError
from ornstein.diffusion import PREDICTIONS, coefficients, convert, from_pair

numbers = st.floats(-3, 3)
#: α̅ / (1 − α̅) over ten orders of magnitude, on both sides of one.
log_snrs = st.floats(-11.5, 11.5)
DIRECTIONS = list(permutations(PREDICTIONS, 2))


def _level(log_snr: float) -> tuple[torch.Tensor, torch.Tensor]:
    log_snr_ = torch.tensor(log_snr, dtype=torch.float64)
    return torch.sigmoid(log_snr_).sqrt(), torch.sigmoid(-log_snr_).sqrt()


def _truth(x_0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
    """The definitions."""
    return {"epsilon": eps, "sample": x_0, "v_prediction": alpha * eps - sigma * x_0, "score": -eps / sigma}


def _scale(source: str, target: str, alpha: float, sigma: float) -> float:
    """How much a rounding error of the inputs grows: the size of the coefficients."""
    of_x, of_prediction = coefficients(source, target, alpha, sigma)
    return 1.0 + abs(of_x) + abs(of_prediction)


def test_there_are_twelve_directions() -> None:
    assert len(DIRECTIONS) == 12


@settings(deadline=None)
@given(x_0=numbers, eps=numbers, log_snr=log_snrs)
def test_all_twelve_directions_recover_the_truth(x_0: float, eps: float, log_snr: float) -> None:
    """From the definitions: the four targets of one (x_0, ε), each turned into each other."""
    alpha, sigma = _level(log_snr)
    x_0_, eps_ = torch.tensor([x_0], dtype=torch.float64), torch.tensor([eps], dtype=torch.float64)
    x_t = alpha * x_0_ + sigma * eps_
    truth = _truth(x_0_, eps_, alpha, sigma)
    for source, target in DIRECTIONS:
        size = max(1.0, float(truth[source].abs()), float(x_t.abs()))
        tolerance = 2e-15 * size * _scale(source, target, float(alpha), float(sigma))
        torch.testing.assert_close(
            convert(truth[source], source, target, x_t, alpha, sigma), truth[target], rtol=1e-14, atol=tolerance
        )
    for kind in PREDICTIONS:
        assert torch.equal(from_pair(x_0_, eps_, kind, alpha, sigma), truth[kind])


@settings(deadline=None)
@given(guess=numbers, x=numbers, log_snr=st.floats(-4, 4))
def test_cycles_return_to_any_guess(guess: float, x: float, log_snr: float) -> None:
    """Also for guesses that no (x_0, ε) explains: the table is a group, not four formulas that meet at the truth."""
    alpha, sigma = _level(log_snr)
    p, x_t = torch.tensor([guess], dtype=torch.float64), torch.tensor([x], dtype=torch.float64)
    for cycle in permutations(PREDICTIONS):
        value = p
        for source, target in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            value = convert(value, source, target, x_t, alpha, sigma)
        torch.testing.assert_close(value, p, rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(log_snr=st.floats(-4, 4))
def test_two_conversions_make_the_third(log_snr: float) -> None:
    """Exact as affine maps: y = a x + b (c x + d p) has the coefficients a + bc and bd."""
    alpha, sigma = map(float, _level(log_snr))
    for first, second, third in product(PREDICTIONS, repeat=3):
        c, d = coefficients(first, second, alpha, sigma)
        a, b = coefficients(second, third, alpha, sigma)
        whole = coefficients(first, third, alpha, sigma)
        size = abs(a) + abs(b * c) + abs(b * d)
        assert math.isclose(a + b * c, whole.of_x, rel_tol=1e-12, abs_tol=1e-13 * size)
        assert math.isclose(b * d, whole.of_prediction, rel_tol=1e-12)


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_exactly_the_undetermined_conversions_are_refused(source: str, target: str) -> None:
    """At α = 0, x_t = ε tells nothing of x_0; at σ = 0 it is x_0 and tells nothing of ε. What remains must be right there."""
    knows_signal, knows_noise = {"sample", "v_prediction"}, {"epsilon", "v_prediction", "score"}
    needs_signal, needs_noise = {"sample", "v_prediction"}, {"epsilon", "v_prediction", "score"}
    x_0, eps = torch.tensor([0.7], dtype=torch.float64), torch.tensor([-0.3], dtype=torch.float64)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for alpha, sigma, undetermined in (
        (zero, one, target in needs_signal and source not in knows_signal),
        (one, zero, target in needs_noise and source not in knows_noise),
    ):
        x_t = alpha * x_0 + sigma * eps
        truth = _truth(x_0, eps, alpha, sigma)
        for a, s in ((alpha, sigma), (float(alpha), float(sigma))):
            no_score = "score" in (source, target) and float(s) == 0
            if undetermined or (no_score and target == "score"):
                with pytest.raises(DataError, match="cannot be told from"):
                    convert(truth[source], source, target, x_t, a, s)
            elif not no_score:  # a score at σ = 0 is infinite: nothing to start from
                torch.testing.assert_close(convert(truth[source], source, target, x_t, a, s), truth[target])


def test_one_bad_row_is_enough_to_refuse() -> None:
    x = torch.zeros(3, 2)
    alpha = torch.tensor([[0.5], [0.0], [0.1]])
    with pytest.raises(DataError, match=r"alpha = 0\): let the denoiser predict"):
        convert(x, "epsilon", "sample", x, alpha, (1 - alpha**2).sqrt())


def test_levels_may_differ_by_row_and_types_are_kept() -> None:
    rng = torch.Generator().manual_seed(0)
    x, p = torch.randn(4, 3, generator=rng), torch.randn(4, 3, generator=rng)
    alpha = torch.tensor([0.1, 0.5, 0.9, 0.99])[:, None]
    sigma = (1 - alpha**2).sqrt()
    for source, target in DIRECTIONS:
        together = convert(p, source, target, x, alpha, sigma)
        assert together.dtype == torch.float32
        for row in range(4):
            alone = convert(p[row], source, target, x[row], float(alpha[row]), float(sigma[row]))
            torch.testing.assert_close(together[row], alone, rtol=1e-5, atol=1e-5)


def test_the_same_kind_is_returned_as_it_is() -> None:
    p = torch.randn(2, generator=torch.Generator().manual_seed(0))
    for kind in PREDICTIONS:
        assert convert(p, kind, kind, p, 0.0, 1.0) is p


def test_mistakes_are_named() -> None:
    x = torch.zeros(1)
    with pytest.raises(UnknownNameError, match="v_prediction"):
        convert(x, "v-prediction", "epsilon", x, 0.6, 0.8)
    with pytest.raises(UnknownNameError, match="'epsilon'"):
        convert(x, "sample", "epsilo", x, 0.6, 0.8)
    with pytest.raises(UnknownNameError, match="noise"):
        from_pair(x, x, "noise", x, x)
    with pytest.raises(DataError, match=r"shape \(1,\), got \(2,\)"):
        convert(torch.zeros(2), "sample", "epsilon", x, 0.6, 0.8)
    with pytest.raises(DataError, match="no score where there is no noise"):
        from_pair(x, x, "score", torch.ones(1), torch.zeros(1))
