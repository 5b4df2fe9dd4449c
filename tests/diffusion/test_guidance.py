from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.diffusion import (
    DDIM,
    PREDICTIONS,
    Autoguidance,
    ClassifierFreeGuidance,
    Gaussian,
    GaussianMixture,
    Heun,
    NoiseSchedule,
    convert,
)

SCHEDULE = NoiseSchedule.linear()


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _recorder(seen: list[tuple[int, Any]]) -> Any:
    def denoiser(x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        assert len(x) == len(t) == len(condition)
        seen.append((len(x), condition))
        return x * 0.5 + condition

    return denoiser


@pytest.mark.parametrize(("scale", "evaluated"), [(0.0, 2), (1.0, 2), (0, 2), (1, 2), (0.5, 4), (7.0, 4), (-1.0, 4), (1e-6, 4)])
def test_one_branch_at_zero_and_one_and_both_in_one_batch_elsewhere(scale: float, evaluated: int) -> None:
    seen: list[tuple[int, Any]] = []
    x, t = _randn(2, 3), torch.tensor([5, 5])
    null, given = -torch.ones(2, 3), torch.ones(2, 3)
    result = ClassifierFreeGuidance(_recorder(seen), scale, null)(x, t, given)
    assert [count for count, _ in seen] == [evaluated]
    torch.testing.assert_close(result, x * 0.5 - 1 + scale * 2)


def test_zero_is_the_unconditional_and_one_the_conditional_model_exactly() -> None:
    x, t = _randn(2, 3), torch.tensor([5, 5])
    null, given = _randn(2, 3, seed=1), _randn(2, 3, seed=2)
    model = _recorder([])
    assert torch.equal(ClassifierFreeGuidance(model, 0.0, null)(x, t, given), model(x, t, null))
    assert torch.equal(ClassifierFreeGuidance(model, 1.0, null)(x, t, given), model(x, t, given))


def test_the_result_is_a_straight_line_in_w_through_both_models() -> None:
    x, t = _randn(2, 3).double(), torch.tensor([5, 5])
    null, given = _randn(2, 3, seed=1).double(), _randn(2, 3, seed=2).double()
    model = _recorder([])
    without, within = model(x, t, null), model(x, t, given)
    for scale in (-2.0, 0.0, 0.3, 1.0, 4.0, 15.0):
        guided = ClassifierFreeGuidance(model, scale, null)(x, t, given)
        torch.testing.assert_close(guided, (1 - scale) * without + scale * within)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_guidance_means_the_same_for_every_prediction(kind: str) -> None:
    without, within = (Gaussian(torch.tensor([m]), torch.tensor([[v]])) for m, v in ((0.0, 1.0), (1.0, 0.2)))
    x, t = _randn(4, 1).double(), torch.full((4,), 300)
    alpha, sigma = SCHEDULE.alpha_sigma(t, x)

    def guided(prediction: str) -> torch.Tensor:
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
    without, within = (Gaussian(torch.tensor([m]), torch.tensor([[1.0]])) for m in (0.2, 0.8))

    def denoiser(x_t: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        both = [d.denoiser(SCHEDULE, "epsilon")(x_t, t) for d in (without, within)]
        return torch.where(c[:, None] > 0, both[1], both[0])

    x = _randn(64, 1).double()
    for scale in (0.0, 0.5, 1.0, 2.5):
        guided = ClassifierFreeGuidance(denoiser, scale, torch.zeros(1))
        end = DDIM(SCHEDULE, 250, prediction="epsilon").sample(guided, x, torch.ones(64))
        exact = Gaussian(torch.tensor([0.2 + scale * 0.6]), torch.tensor([[1.0]])).flow(x, SCHEDULE, 1000, 0)
        torch.testing.assert_close(end, exact, atol=0.03, rtol=0)


class _Named(NamedTuple):
    a: torch.Tensor
    b: tuple[torch.Tensor, None]


@dataclass(frozen=True)
class _Record:
    a: torch.Tensor


STRUCTURES = {
    "tensor": lambda v: v,
    "dict": lambda v: {"k": v},
    "list": lambda v: [v, v],
    "named": lambda v: _Named(v, (v, None)),
    "record": lambda v: _Record(v),
    "nested": lambda v: (v, {"k": (v,)}),
}


def _leaves(part: Any) -> list[torch.Tensor]:
    if isinstance(part, torch.Tensor):
        return [part]
    if isinstance(part, _Record):
        return [part.a]
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
    return [leaf for inner in parts for leaf in _leaves(inner)]


@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("null_batch", [1, 2])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_conditions_of_any_structure_reach_the_denoiser(make: Any, null_batch: int, scale: float) -> None:
    """Null first, given second, the structure kept; a null condition of batch one serves every sample."""
    seen: list[Any] = []

    def denoiser(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        seen.append(condition)
        return x

    null, given = _randn(1, 3, seed=1).expand(null_batch, 3), _randn(2, 3, seed=2)
    ClassifierFreeGuidance(denoiser, scale, make(null))(_randn(2, 3), torch.tensor([5, 5]), make(given))
    expected = {0.0: null.expand(2, 3), 1.0: given, 3.0: torch.cat([null.expand(2, 3), given])}[scale]
    (condition,) = seen
    assert type(condition) is type(make(given))
    assert len(_leaves(condition)) == len(_leaves(make(given))) > 0
    for leaf in _leaves(condition):
        assert torch.equal(leaf, expected)


def test_guidance_acts_within_its_interval_only() -> None:
    seen: list[tuple[int, Any]] = []
    x, null, given = _randn(2, 3), torch.zeros(2, 3), torch.ones(2, 3)
    guided = ClassifierFreeGuidance(_recorder(seen), 4.0, null, interval=(100, 600))
    for t, scale in ((99, 1), (100, 4), (600, 4), (601, 1)):
        torch.testing.assert_close(guided(x, torch.tensor([t, t]), given), x * 0.5 + scale)
    assert [count for count, _ in seen] == [2, 4, 4, 2]  # outside, one branch is enough


def test_rescaling_restores_the_spread_of_the_conditional_prediction() -> None:
    x, t = _randn(3, 4, 5).double(), torch.tensor([7, 7, 7])
    null, given = _randn(3, 4, 5, seed=1).double(), _randn(3, 4, 5, seed=2).double()

    def model(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return x + c

    plain = ClassifierFreeGuidance(model, 9.0, null)(x, t, given)
    full = ClassifierFreeGuidance(model, 9.0, null, rescale=1.0)(x, t, given)
    torch.testing.assert_close(full.flatten(1).std(1), (x + given).flatten(1).std(1))
    ratio = full / plain
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))  # a factor a sample, nothing else
    half = ClassifierFreeGuidance(model, 9.0, null, rescale=0.5)(x, t, given)
    torch.testing.assert_close(half, (plain + full) / 2)
    # A sample that is one number has no spread: it stays.
    one = ClassifierFreeGuidance(model, 9.0, torch.zeros(1, 1), rescale=1.0)(torch.ones(2, 1), t[:2], torch.ones(2, 1))
    assert torch.equal(one, torch.full((2, 1), 10.0))


def test_mistakes_are_named() -> None:
    x, t, null = _randn(2, 3), torch.tensor([1, 1]), torch.zeros(2, 3)
    model = _recorder([])

    def guide(null_condition: Any, condition: Any) -> Any:
        return ClassifierFreeGuidance(model, 2.0, null_condition)(x, t, condition)

    for make, message in (
        (lambda: ClassifierFreeGuidance(model, float("nan"), null), "finite"),
        (lambda: ClassifierFreeGuidance(model, 2.0, null, interval=(5, 1)), "interval"),
        (lambda: ClassifierFreeGuidance(model, 2.0, null, rescale=1.5), "between 0"),
        (lambda: guide({"k": null}, null), "dict does not fit one of type Tensor"),
        (lambda: guide(null, None), "Tensor does not fit one of type NoneType"),
        (lambda: guide({"k": null}, {"j": null}), "same keys"),
        (lambda: guide((null,), (null, null)), "number of parts"),
        (lambda: guide("", ""), "made of tensors"),
        (lambda: guide(torch.zeros(3, 3), null), r"batch of 2 first \(or 1\), got shape \(3, 3\)"),
        (lambda: guide(torch.zeros(()), torch.zeros(())), "batch of 2"),
        (
            lambda: ClassifierFreeGuidance(model, 2.0, null, interval=(1, 5))(x, torch.tensor([1, 9]), null),
            "one time step for the whole batch",
        ),
    ):
        with pytest.raises(DataError, match=message):
            make()


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_autoguidance_is_a_straight_line_through_both_models_whatever_they_predict(kind: str) -> None:
    good, bad = (Gaussian(torch.tensor([m]), torch.tensor([[v]])) for m, v in ((0.0, 1.0), (0.3, 1.5)))
    x, t = _randn(4, 1).double(), torch.full((4,), 400)
    alpha, sigma = (float(part[0]) for part in SCHEDULE.alpha_sigma(t, x))
    guided = {
        name: Autoguidance(good.denoiser(SCHEDULE, name), bad.denoiser(SCHEDULE, name), 2.5)(x, t) for name in (kind, "sample")
    }
    torch.testing.assert_close(convert(guided[kind], kind, "sample", x, alpha, sigma), guided["sample"])
    expected = -1.5 * bad.posterior_mean(x, alpha, sigma) + 2.5 * good.posterior_mean(x, alpha, sigma)
    torch.testing.assert_close(guided["sample"], expected)


def test_autoguidance_runs_one_model_where_one_is_enough() -> None:
    calls: list[str] = []

    def named(name: str) -> Any:
        def denoiser(x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
            calls.append(f"{name} {condition}")
            return x

        return denoiser

    x, t = _randn(2, 3), torch.tensor([5, 5])
    for scale, expected in ((1.0, ["good c"]), (0.0, ["bad c"]), (2.0, ["good c", "bad c"])):
        calls.clear()
        Autoguidance(named("good"), named("bad"), scale)(x, t, "c")
        assert calls == expected


def test_autoguidance_undoes_an_error_that_both_models_make() -> None:
    """Both believe the data broader than N(0, 1), the worse one more so: guided samples come closer to the truth than the good model's."""
    good, bad = (Gaussian(torch.zeros(1), torch.tensor([[v]])) for v in (1.2, 1.5))
    noise = _randn(4000, 1).double()
    spread = {}
    for scale in (0.0, 1.0, 1.7):
        guided = Autoguidance(good.denoiser(SCHEDULE, "epsilon"), bad.denoiser(SCHEDULE, "epsilon"), scale)
        spread[scale] = float(DDIM(SCHEDULE, 100, prediction="epsilon").sample(guided, noise).var())
    assert spread[0.0] > 1.4 > spread[1.0] > 1.1
    assert abs(spread[1.7] - 1) < 0.5 * abs(spread[1.0] - 1)


def test_autoguidance_names_mistakes() -> None:
    x, t = _randn(2, 3), torch.tensor([5, 5])
    for scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="finite and not negative"):
            Autoguidance(_recorder([]), _recorder([]), scale)
    with pytest.raises(DataError, match="agree in shape"):
        Autoguidance(lambda x, t, c: x, lambda x, t, c: x[:, :1], 2.0)(x, t)


def test_guidance_samples_the_conditional_at_one_and_not_the_sharpened_density_beyond() -> None:
    """A class of two modes, one of which the rest of the data share: against p(x) p(c | x)^w by quadrature (docs/guidance.svg)."""

    def mixture(weights: list[float], means: list[float]) -> GaussianMixture:
        k = len(means)
        return GaussianMixture(torch.tensor(weights), torch.tensor(means)[:, None], torch.full((k, 1, 1), 0.09))

    schedule, n = NoiseSchedule.cosine(), 4000
    of_class, of_all = mixture([0.5, 0.5], [1.0, -0.2]), mixture([0.25, 0.25, 0.35, 0.15], [1.0, -0.2, -1.2, -0.1])
    given, without = (data.denoiser(schedule, "v_prediction") for data in (of_class, of_all))
    places = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    start = torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distances = {}
    for scale in (0.0, 1.0, 3.0):
        guided = ClassifierFreeGuidance(
            lambda x, t, c: torch.where(c[:, None] > 0, given(x, t), without(x, t)), scale, torch.zeros(1)
        )
        sampler = Heun(schedule, 60, prediction="v_prediction", spacing="log_snr")
        x = sampler.sample(guided, start, torch.ones(n)).flatten().sort().values
        log = (1 - scale) * of_all.log_prob(places[:, None]) + scale * of_class.log_prob(places[:, None])
        cdf = torch.cumulative_trapezoid((log - log.max()).exp(), places)
        exact = np.interp(x, places[1:], cdf / cdf[-1])
        distances[scale] = float(np.abs(exact - (np.arange(n) + 0.5) / n).max())
    assert distances[0.0] < 0.03  # 0.026 is what chance exceeds in one case of a hundred
    assert distances[1.0] < 0.03
    assert distances[3.0] > 0.2
