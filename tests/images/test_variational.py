"""The ladder VAE's probabilities: bins that sum to one, divergences by another implementation, and a bound that tightens."""

from __future__ import annotations

import math

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.images.variational import importance_weighted_bits, negative_elbo
from ornstein.networks.ladder_vae import LadderVAE, LadderVAEConfig, Normal, discretised_logistic_log_prob, kl_divergence

CONFIG = LadderVAEConfig(resolution=8, channels=(8, 8), blocks=(1, 2), latent_channels=2)


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model() -> LadderVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LadderVAE(CONFIG).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.03)
            model.out.bias[12:] += 2.5  # wide laws: else few draws from the prior would explain a picture
    return model


def _pictures(batch: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, 8, 8), generator=_rng(1)) / 127.5 - 1


def test_the_bins_are_a_distribution_and_by_hand() -> None:
    levels = (torch.arange(256).double() / 127.5 - 1)[:, None]
    mean, log_scale = torch.tensor([[-1.3, 0.2, 0.999, 3.0]]).double(), torch.tensor([[-1.0, -4.5, -6.9, 0.0]]).double()
    logs = discretised_logistic_log_prob(levels, Normal(mean, log_scale))
    torch.testing.assert_close(logs.exp().sum(0), torch.ones(4, dtype=torch.float64))
    cdf = lambda x: torch.sigmoid((x - 0.2) / math.exp(-4.5))  # noqa: E731
    direct = (cdf(levels[150] + 1 / 255) - cdf(levels[150] - 1 / 255)).log()
    torch.testing.assert_close(logs[150, 1], direct[0], rtol=1e-6, atol=0)
    # Far in a tail, where the difference of two sigmoids is 0: log of the density e^{−|x−μ|/s}/s times the bin, to first order.
    far = discretised_logistic_log_prob(torch.zeros(1), Normal(torch.tensor([3.0]), torch.tensor([-4.0])))
    scale = math.exp(-4.0)
    assert math.isclose(float(far), -(3.0 - 1 / 255) / scale + math.log(-math.expm1(-2 / 255 / scale)), rel_tol=1e-5)


def test_divergence_is_torchs_own() -> None:
    a, b = (Normal(*torch.randn(2, 50, generator=_rng(seed), dtype=torch.float64)) for seed in (0, 1))
    q, p = (torch.distributions.Normal(n.mean, n.log_std.exp()) for n in (a, b))
    torch.testing.assert_close(kl_divergence(a, b), torch.distributions.kl_divergence(q, p))
    x = torch.randn(50, generator=_rng(2), dtype=torch.float64)
    torch.testing.assert_close(a.log_prob(x), q.log_prob(x))


def test_at_the_start_the_posterior_is_the_prior() -> None:
    fresh = LadderVAE(CONFIG)
    _, groups = fresh.descend(2, fresh.look(_pictures(2)), lambda k, shape: torch.randn(2, *shape))
    assert [tuple(z.shape[1:]) for _, _, z in groups] == [(2, 2, 2), (2, 2, 2), (2, 4, 4)]
    for prior, posterior, _ in groups:
        torch.testing.assert_close(prior, posterior)
        assert torch.equal(prior.mean, torch.zeros_like(prior.mean))
    _, parts = negative_elbo(fresh, _pictures(), _rng())
    assert float(parts["rate"].detach()) == 0.0


def test_importance_weights_make_the_posterior_agree_with_the_prior(model: LadderVAE) -> None:
    """p(x) does not care from where z is drawn: many draws from the posterior, weighted, and many plain draws from the prior."""
    x = _pictures(1)
    found = importance_weighted_bits(model, x, _rng(), samples=4000)
    with torch.inference_mode():
        rng = _rng(5)
        law, _ = model.descend(20_000, None, lambda k, shape: torch.randn(20_000, *shape, generator=rng))
        logs = discretised_logistic_log_prob(x, law).double().flatten(1).sum(1)
    plain = -(torch.logsumexp(logs, 0) - math.log(20_000)) / (math.log(2) * 192)
    assert abs(float(found - plain)) < 3e-3


def test_the_bound_tightens_with_samples_and_one_sample_is_the_elbo(model: LadderVAE) -> None:
    x = _pictures(64)
    bits = [float(importance_weighted_bits(model, x, _rng(k), samples=k).mean()) for k in (1, 8, 64)]
    assert bits[0] > bits[1] > bits[2]
    with torch.inference_mode():
        elbos = torch.stack([negative_elbo(model, x, _rng(10 + k))[0] for k in range(20)])
    ones = torch.stack([importance_weighted_bits(model, x, _rng(10 + k), samples=1).mean() for k in range(20)])
    assert abs(float(elbos.mean() - ones.mean())) < 4 * float(elbos.std() + ones.std()) / 20**0.5
    total, parts = negative_elbo(model, x, _rng())
    torch.testing.assert_close(total, parts["rate"] + parts["distortion"])
    assert float(parts["rate"].detach()) > 0


def test_mistakes_are_named(model: LadderVAE) -> None:
    for call, message in (
        (lambda: model.look(torch.zeros(1, 3, 4, 4)), r"\(batch, 3, 8, 8\)"),
        (lambda: importance_weighted_bits(model, _pictures(), _rng(), samples=0), "at least one sample"),
        (lambda: LadderVAEConfig(blocks=(1, 1)), "as many numbers of blocks"),
        (lambda: LadderVAEConfig(channels=(0, 8, 8)), r"channels\[0\]"),
        (lambda: LadderVAEConfig(resolution=20), "multiple of 8"),
    ):
        with pytest.raises(DataError, match=message):
            call()
