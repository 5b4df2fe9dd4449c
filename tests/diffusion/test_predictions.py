from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ornstein.core.errors import DataError, UnknownNameError
from ornstein.diffusion import PREDICTIONS, convert, from_pair, to_pair

numbers = st.floats(-3, 3)
levels = st.floats(0.02, 0.98)


def _level(alpha_bar: float) -> tuple[torch.Tensor, torch.Tensor]:
    bar = torch.tensor(alpha_bar, dtype=torch.float64)
    return bar.sqrt(), (1 - bar).sqrt()


@given(x_0=numbers, eps=numbers, alpha_bar=levels)
def test_all_twelve_directions_recover_the_truth(x_0: float, eps: float, alpha_bar: float) -> None:
    """From the definitions: the four targets of one (x_0, ε), each turned into each other."""
    alpha, sigma = _level(alpha_bar)
    x_0_, eps_ = torch.tensor([x_0], dtype=torch.float64), torch.tensor([eps], dtype=torch.float64)
    x_t = alpha * x_0_ + sigma * eps_
    truth = {"epsilon": eps_, "sample": x_0_, "v_prediction": alpha * eps_ - sigma * x_0_, "score": -eps_ / sigma}
    for source, target in permutations(PREDICTIONS, 2):
        converted = convert(truth[source], source, target, x_t, alpha, sigma)
        torch.testing.assert_close(converted, truth[target], rtol=1e-9, atol=1e-10)
    for kind in PREDICTIONS:
        assert torch.equal(from_pair(x_0_, eps_, kind, alpha, sigma), truth[kind])


@given(guess=numbers, x=numbers, alpha_bar=levels)
def test_cycles_return_to_any_guess_and_stay_consistent_with_x_t(guess: float, x: float, alpha_bar: float) -> None:
    alpha, sigma = _level(alpha_bar)
    p, x_t = torch.tensor([guess], dtype=torch.float64), torch.tensor([x], dtype=torch.float64)
    for cycle in permutations(PREDICTIONS):
        value = p
        for source, target in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            value = convert(value, source, target, x_t, alpha, sigma)
        torch.testing.assert_close(value, p, rtol=1e-8, atol=1e-9)
    for kind in PREDICTIONS:
        x_0, eps = to_pair(p, kind, x_t, alpha, sigma)
        torch.testing.assert_close(alpha * x_0 + sigma * eps, x_t, rtol=1e-9, atol=1e-9)


def test_divisions_by_zero_are_refused() -> None:
    x = torch.zeros(1)
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    for source, alpha, sigma in (("epsilon", zero, one), ("score", zero, one), ("sample", one, zero)):
        with pytest.raises(DataError, match="cannot be told"):
            convert(x, source, "v_prediction", x, alpha, sigma)
    with pytest.raises(DataError, match="no score"):
        convert(x, "v_prediction", "score", x, one, zero)
    with pytest.raises(UnknownNameError, match="v_prediction"):
        convert(x, "v-prediction", "epsilon", x, one, one)  # type: ignore[arg-type]
