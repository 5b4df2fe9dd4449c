from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ornstein.core.errors import DataError
from ornstein.diffusion import DDIM, PREDICTIONS, ClassifierFreeGuidance, Gaussian, KeyedNoise, NoiseSchedule, convert

SCHEDULE = NoiseSchedule.linear()


@given(order=st.permutations(list(range(5))), seed=st.integers(0, 2**40))
def test_noise_follows_its_sample_bit_for_bit(order: list[int], seed: int) -> None:
    together = KeyedNoise(seed, range(5))
    shuffled = KeyedNoise(seed, order)
    for draw in (lambda n: n.initial((3, 2)), lambda n: n.at(0, (3, 2)), lambda n: n.at(7, (3, 2))):
        assert torch.equal(draw(shuffled), draw(together)[order])
        assert torch.equal(draw(KeyedNoise(seed, [order[0]])), draw(together)[order[0]][None])


def test_noise_is_standard_normal_and_independent_over_all_keys() -> None:
    draws = torch.stack(
        [KeyedNoise(seed, range(50)).at(step, (40,)) for seed in (0, 1) for step in range(10)]
        + [KeyedNoise(2, range(50)).initial((40,))]
    )
    n = draws.numel()
    assert abs(float(draws.mean())) < 4 / n**0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / n) ** 0.5
    rows = draws.flatten(0, 1)
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlation.abs().max() < 6 / 40**0.5


def _recorder(seen: list[tuple[int, Any]]) -> Any:
    def denoiser(x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        seen.append((len(x), condition))
        return x * 0.5 + condition

    return denoiser


@pytest.mark.parametrize(("scale", "evaluated"), [(0.0, 2), (1.0, 2), (0.5, 4), (7.0, 4), (-1.0, 4)])
def test_one_branch_at_zero_and_one_and_both_in_one_batch_elsewhere(scale: float, evaluated: int) -> None:
    seen: list[tuple[int, Any]] = []
    x, t = torch.randn(2, 3), torch.tensor([5, 5])
    null, given_ = torch.zeros(2, 3), torch.ones(2, 3)
    result = ClassifierFreeGuidance(_recorder(seen), scale, null)(x, t, given_)
    assert [count for count, _ in seen] == [evaluated]
    torch.testing.assert_close(result, x * 0.5 + scale * given_)


def test_zero_is_the_unconditional_and_one_the_conditional_model_exactly() -> None:
    x, t = torch.randn(2, 3), torch.tensor([5, 5])
    null, given_ = torch.randn(2, 3), torch.randn(2, 3)
    model = _recorder([])
    assert torch.equal(ClassifierFreeGuidance(model, 0.0, null)(x, t, given_), model(x, t, null))
    assert torch.equal(ClassifierFreeGuidance(model, 1.0, null)(x, t, given_), model(x, t, given_))


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_guidance_means_the_same_for_every_prediction(kind: str) -> None:
    without, within = (Gaussian(torch.tensor([m]), torch.tensor([[v]])) for m, v in ((0.0, 1.0), (1.0, 0.2)))
    x, t = torch.randn(4, 1, dtype=torch.float64), torch.full((4,), 300)
    alpha, sigma = SCHEDULE.alpha_sigma(t, x)

    def guided(prediction: Any) -> torch.Tensor:
        def denoiser(x_t: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            half = len(x_t) // 2
            parts = [
                d.denoiser(SCHEDULE, prediction)(p, s)
                for d, p, s in ((without, x_t[:half], t[:half]), (within, x_t[half:], t[half:]))
            ]
            return torch.cat(parts)

        return ClassifierFreeGuidance(denoiser, 3.0, torch.zeros(4))(x, t, torch.ones(4))

    torch.testing.assert_close(convert(guided(kind), kind, "epsilon", x, alpha, sigma), guided("epsilon"))


def test_guided_gaussians_have_the_score_that_the_formula_promises() -> None:
    """With both at N(·, 1) under the data, ∇ log p(c | x)^(w−1) shifts the mean: the flow must end at μ₀ + w (μ₁ − μ₀)."""
    without, within = (Gaussian(torch.tensor([m]), torch.tensor([[1.0]])) for m in (0.0, 0.6))

    def denoiser(x_t: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        both = [d.denoiser(SCHEDULE, "epsilon")(x_t, t) for d in (without, within)]
        return torch.where(c[:, None] > 0, both[1], both[0])

    x = torch.randn(64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    guided = ClassifierFreeGuidance(denoiser, 2.5, torch.zeros(64))
    end = DDIM(SCHEDULE, 1000, prediction="epsilon").sample(guided, x, torch.ones(64))
    exact = Gaussian(torch.tensor([2.5 * 0.6]), torch.tensor([[1.0]])).flow(x, SCHEDULE, 1000, 0)
    torch.testing.assert_close(end, exact, atol=0.02, rtol=0)


class _Named(NamedTuple):
    a: torch.Tensor
    b: tuple[torch.Tensor, None]


@dataclass(frozen=True)
class _Record:
    a: torch.Tensor


@pytest.mark.parametrize(
    "make",
    [lambda v: v, lambda v: {"k": v}, lambda v: _Named(v, (v, None)), lambda v: _Record(v), lambda v: (v, {"k": (v,)})],
    ids=["tensor", "dict", "named", "record", "nested"],
)
def test_conditions_of_any_structure_are_stacked(make: Any) -> None:
    from ornstein.diffusion.guidance import stack

    zeros, ones = torch.zeros(2, 3), torch.ones(2, 3)
    flat: list[torch.Tensor] = []

    def collect(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            flat.append(part)
        elif isinstance(part, dict):
            [collect(v) for v in part.values()]
        elif isinstance(part, tuple):
            [collect(v) for v in part]
        elif isinstance(part, _Record):
            collect(part.a)

    stacked = stack(make(zeros), make(ones))
    assert type(stacked) is type(make(zeros))
    collect(stacked)
    assert flat
    for leaf in flat:
        assert torch.equal(leaf, torch.cat([zeros, ones]))


def test_guidance_interval_and_mistakes() -> None:
    x, null, given_ = torch.randn(2, 3), torch.zeros(2, 3), torch.ones(2, 3)
    guided = ClassifierFreeGuidance(_recorder([]), 4.0, null, interval=(100, 600))
    torch.testing.assert_close(guided(x, torch.tensor([100, 100]), given_), x * 0.5 + 4)
    torch.testing.assert_close(guided(x, torch.tensor([99, 99]), given_), x * 0.5 + 1)
    for make, message in (
        (lambda: ClassifierFreeGuidance(_recorder([]), float("nan"), null), "finite"),
        (lambda: ClassifierFreeGuidance(_recorder([]), 2.0, null, interval=(5, 1)), "interval"),
        (lambda: ClassifierFreeGuidance(_recorder([]), 2.0, {"k": null})(x, torch.tensor([1, 1]), null), "cannot stack"),
        (lambda: KeyedNoise(-1, [0]), "≥ 0"),
    ):
        with pytest.raises(DataError, match=message):
            make()
