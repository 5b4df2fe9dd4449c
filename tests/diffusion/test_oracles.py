from __future__ import annotations

import math

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.diffusion import Gaussian, GaussianMixture, NoiseSchedule

SCHEDULE = NoiseSchedule.cosine()
MIXTURE = GaussianMixture(
    torch.tensor([0.2, 0.5, 0.3]),
    torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -2.0]]),
    torch.stack([0.1 * torch.eye(2), torch.tensor([[0.3, 0.1], [0.1, 0.2]]), torch.diag(torch.tensor([0.5, 0.05]))]),
)


def test_density_agrees_with_torchs_own_mixture() -> None:
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(MIXTURE.weights),
        torch.distributions.MultivariateNormal(MIXTURE.means, MIXTURE.covariances),
    )
    torch.testing.assert_close(MIXTURE.log_prob(x), reference.log_prob(x))


def test_score_is_the_gradient_of_the_noised_density() -> None:
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    for bar in (0.99, 0.5, 0.01):
        alpha, sigma = math.sqrt(bar), math.sqrt(1 - bar)
        (gradient,) = torch.autograd.grad(MIXTURE.log_prob(x, alpha, sigma).sum(), x)
        torch.testing.assert_close(MIXTURE.score(x, alpha, sigma), gradient)


def test_denoiser_is_the_conditional_mean_of_the_noise() -> None:
    """By brute force: the average of ε over many draws whose x_t falls into a small cell."""
    rng = torch.Generator().manual_seed(2)
    n = 400_000
    x_0 = MIXTURE.sample(n, rng)
    eps = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    t = torch.full((n,), 400)
    x_t = SCHEDULE.add_noise(x_0, t, eps)
    for center in (torch.tensor([0.5, 0.3]), torch.tensor([-0.8, 0.9])):
        near = (x_t - center).abs().max(dim=1).values < 0.04
        exact = MIXTURE.denoiser(SCHEDULE, "epsilon")(x_t[near], t[near])
        error = eps[near].std(0) / math.sqrt(int(near.sum()))
        assert ((eps[near].mean(0) - exact.mean(0)).abs() < 4 * error).all()


def test_samples_have_the_mixtures_moments() -> None:
    x = MIXTURE.sample(200_000, torch.Generator().manual_seed(3))
    mean = MIXTURE.weights @ MIXTURE.means
    second = torch.einsum(
        "k,kde->de", MIXTURE.weights, MIXTURE.covariances + torch.einsum("kd,ke->kde", MIXTURE.means, MIXTURE.means)
    )
    torch.testing.assert_close(x.mean(0), mean, atol=0.012, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), second - torch.outer(mean, mean), atol=0.02, rtol=0)


def test_gaussian_flow_carries_the_density_along_and_composes() -> None:
    gaussian = Gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))
    x = torch.randn(10, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    direct = gaussian.flow(x, SCHEDULE, 900, 100)
    torch.testing.assert_close(gaussian.flow(gaussian.flow(x, SCHEDULE, 900, 400), SCHEDULE, 400, 100), direct)
    torch.testing.assert_close(gaussian.flow(direct, SCHEDULE, 100, 900), x)
    # Change of variables: log p_900(x) = log p_100(flow(x)) + log |det d flow / dx|, the map being affine.
    jacobian = torch.stack(
        [gaussian.flow(x[:1] + h, SCHEDULE, 900, 100)[0] - direct[0] for h in torch.eye(2, dtype=torch.float64)]
    )

    def level(t: int) -> tuple[float, float]:
        bar = float(SCHEDULE.alpha_bars[t])
        return math.sqrt(bar), math.sqrt(1 - bar)

    torch.testing.assert_close(
        gaussian.log_prob(x, *level(900)), gaussian.log_prob(direct, *level(100)) + torch.linalg.slogdet(jacobian)[1]
    )


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="sum to 1"):
        GaussianMixture(torch.tensor([0.5, 0.6]), torch.zeros(2, 1), torch.ones(2, 1, 1))
    with pytest.raises(DataError, match=r"\(k, d, d\)"):
        GaussianMixture(torch.tensor([1.0]), torch.zeros(1, 2), torch.ones(1, 1, 1))
    with pytest.raises(DataError, match="negative variance"):
        Gaussian(torch.zeros(1), torch.tensor([[-1.0]]))
    with pytest.raises(DataError, match="flat in no direction"):
        Gaussian(torch.zeros(1), torch.zeros(1, 1)).log_prob(torch.zeros(1, 1))
