"""Against exact velocities of mixtures, and the probability flow of the variance-preserving path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ornstein.core.errors import DataError, DivergenceError, UnknownNameError
from ornstein.diffusion import GaussianMixture, NoiseSchedule, flow, flow_matching_loss

MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.0, 0.5], [0.8, -0.4]], dtype=torch.float64),
    torch.stack([torch.eye(2, dtype=torch.float64) * 0.04, torch.tensor([[0.09, 0.03], [0.03, 0.05]], dtype=torch.float64)]),
)


def _exact(x: Tensor, tau: Tensor, condition: object = None) -> Tensor:
    """E[x − ε | x_τ], from the mixture's posterior mean."""
    clean = MIXTURE.posterior_mean(x.double(), tau.double(), 1 - tau.double())
    at = tau.double()[:, None]
    return (clean - (x.double() - at * clean) / (1 - at)).to(x.dtype)


def _noise(n: int) -> Tensor:
    return torch.randn((n, 2), generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_both_paths_lead_from_the_same_noise_to_the_same_data() -> None:
    """The straight path and the variance-preserving one are one flow in other clothes."""
    noise = _noise(64)
    schedule = NoiseSchedule.cosine(num_steps=100).with_zero_terminal_snr()
    expected = MIXTURE.flow(noise, schedule, 100, 0)
    torch.testing.assert_close(flow(_exact, noise, 1000, method="midpoint"), expected, atol=2e-5, rtol=0)


def test_each_method_converges_at_its_order() -> None:
    noise = _noise(200)
    exact = flow(_exact, noise, 4000, method="midpoint")

    def error(method: str, steps: int) -> float:
        return float((flow(_exact, noise, steps, method=method) - exact).abs().mean())  # type: ignore[arg-type]

    assert error("euler", 40) / error("euler", 80) == pytest.approx(2, rel=0.15)
    assert error("midpoint", 40) / error("midpoint", 80) == pytest.approx(4, rel=0.25)


def test_heun_is_exact_where_the_velocity_is_linear_in_time() -> None:
    x = flow(lambda x, tau, _: tau[:, None].to(x.dtype).expand_as(x), torch.zeros(3, 2), 1, method="heun")
    torch.testing.assert_close(x, torch.full((3, 2), 0.5))


@pytest.mark.parametrize("early", [0.0, 1.5])
def test_the_exact_velocity_has_the_least_loss(early: float) -> None:
    """The same draws, so that the difference is the bias alone; and times follow 1 − u^(1/(1+early))."""
    data = MIXTURE.sample(20_000, torch.Generator().manual_seed(1))
    times = []

    def loss(bias: float) -> float:
        def velocity(x: Tensor, tau: Tensor, condition: object) -> Tensor:
            times.append(tau)
            return _exact(x, tau) + bias

        return float(flow_matching_loss(velocity, data, None, torch.Generator().manual_seed(2), early=early))

    assert loss(0.0) < min(loss(0.1), loss(-0.1))
    assert loss(0.1) - loss(0.0) == pytest.approx(0.01, rel=0.5)
    assert float(times[0].mean()) == pytest.approx(1 / (2 + early), abs=0.01)


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="at least one step"):
        flow(_exact, _noise(2), 0)
    with pytest.raises(UnknownNameError, match="midpoint"):
        flow(_exact, _noise(2), 2, method="midpiont")  # type: ignore[arg-type]
    with pytest.raises(DivergenceError, match="step 1 of 2"):
        flow(lambda x, _t, _c: x / 0, _noise(2), 2)
    with pytest.raises(DataError, match="at least one sample"):
        flow_matching_loss(_exact, _noise(0), None, torch.Generator())
    with pytest.raises(DataError, match=r"\(2, 2\), got \(2, 1\)"):
        flow_matching_loss(lambda x, _t, _c: x[:, :1], _noise(2), None, torch.Generator())
