"""The VAE's probabilities: bins that sum to one, divergences by another implementation, and a bound beside the exact sum over all choices."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.images.variational import importance_weighted_bits, negative_elbo
from ornstein.networks.categorical_vae import CategoricalVAE, CategoricalVAEConfig, Logistic, discretised_logistic_log_prob

CONFIG = CategoricalVAEConfig(
    resolution=8, encoder_channels=(8, 8), width=16, groups=2, variables=2, values=3, hidden=16, decoder_channels=8,
    decoder_blocks=1, unfolded_channels=4, unfolded_hidden=16,
)  # fmt: skip


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model() -> CategoricalVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CategoricalVAE(CONFIG).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
            model.out.bias[12:] += 2.5  # wide laws: else one choice explains all of a picture
    return model


def _pictures(batch: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, 8, 8), generator=_rng(1)) / 127.5 - 1


def _exact_bits(model: CategoricalVAE, picture: torch.Tensor) -> float:
    """−log₂ Σ_z p(z) p(x | z) a dimension, over all 3⁴ choices, each forced by noise that outweighs every law."""
    combinations = list(itertools.product(range(3), repeat=4))
    forced = torch.nn.functional.one_hot(torch.tensor(combinations), 3).float().unflatten(1, (2, 2)) * 10 - 5
    with torch.inference_mode():
        law, choices = model.describe(len(combinations), None, lambda number, _: forced[:, number])
        logs = discretised_logistic_log_prob(picture, law).double().flatten(1).sum(1)
        for number, choice in enumerate(choices):
            assert torch.equal(choice.drawn, (forced[:, number] > 0).float())
            logs += (choice.drawn * choice.log_prior).sum((1, 2)).double()
    return float(-torch.logsumexp(logs, 0) / (math.log(2) * 192))


def test_the_bins_are_a_distribution_and_by_hand() -> None:
    levels = (torch.arange(256).double() / 127.5 - 1)[:, None]
    mean, log_scale = torch.tensor([[-1.3, 0.2, 0.999, 3.0]]).double(), torch.tensor([[-1.0, -4.5, -6.9, 0.0]]).double()
    logs = discretised_logistic_log_prob(levels, Logistic(mean, log_scale))
    torch.testing.assert_close(logs.exp().sum(0), torch.ones(4, dtype=torch.float64))
    cdf = lambda x: torch.sigmoid((x - 0.2) / math.exp(-4.5))  # noqa: E731
    direct = (cdf(levels[150] + 1 / 255) - cdf(levels[150] - 1 / 255)).log()
    torch.testing.assert_close(logs[150, 1], direct[0], rtol=1e-6, atol=0)
    # Far in a tail, where the difference of two sigmoids is 0: log of the density e^{−|x−μ|/s}/s times the bin, to first order.
    far = discretised_logistic_log_prob(torch.zeros(1), Logistic(torch.tensor([3.0]), torch.tensor([-4.0])))
    scale = math.exp(-4.0)
    assert math.isclose(float(far), -(3.0 - 1 / 255) / scale + math.log(-math.expm1(-2 / 255 / scale)), rel_tol=1e-5)


def test_divergence_is_torchs_own_and_the_untrained_prior_uniform(model: CategoricalVAE) -> None:
    noise = torch.randn(2, 3, 2, 3, generator=_rng())
    _, choices = model.describe(3, model.look(_pictures()), lambda number, _: noise[number])
    for choice in choices:
        q, p = (torch.distributions.Categorical(logits=logs) for logs in (choice.log_posterior, choice.log_prior))
        torch.testing.assert_close(choice.divergence(), torch.distributions.kl_divergence(q, p))
        drawn = choice.drawn.argmax(-1)
        torch.testing.assert_close(choice.log_ratio(), (p.log_prob(drawn) - q.log_prob(drawn)).sum(1))
    _, fresh = CategoricalVAE(CONFIG).describe(3, None, lambda number, _: noise[number])
    assert all(torch.allclose(choice.log_prior.exp(), torch.full((3, 2, 3), 1 / 3)) for choice in fresh)


def test_draws_follow_their_law(model: CategoricalVAE) -> None:
    n = 40_000
    noise = torch.randn(n, 2, 3, generator=_rng(3))
    with torch.inference_mode():
        _, choice = model.groups[0](model.start.expand(n, -1), None, noise)
    p = choice.log_prior[0].exp()
    z = (choice.drawn.mean(0) - p) / (p * (1 - p) / n).sqrt()
    assert float(z.abs().max()) < 4
    assert float((p - 1 / 3).abs().max()) > 0.02


def test_many_samples_give_the_exact_sum_over_all_choices(model: CategoricalVAE) -> None:
    for picture in _pictures():
        exact = _exact_bits(model, picture[None])
        assert abs(float(importance_weighted_bits(model, picture[None], _rng(), samples=4000)) - exact) < 3e-3


def test_the_bound_never_promises_more_and_tightens_with_samples(model: CategoricalVAE) -> None:
    x = _pictures(64)
    bits = [float(importance_weighted_bits(model, x, _rng(k), samples=k).mean()) for k in (1, 8, 64)]
    assert bits[0] > bits[1] > bits[2]
    with torch.inference_mode():
        elbos = torch.stack([negative_elbo(model, x, _rng(10 + k))[0] for k in range(20)])
    ones = torch.stack([importance_weighted_bits(model, x, _rng(10 + k), samples=1).mean() for k in range(20)])
    assert abs(float(elbos.mean() - ones.mean())) < 4 * float(elbos.std() + ones.std()) / 20**0.5
    exact = sum(_exact_bits(model, picture[None]) for picture in x) / len(x)
    assert float(elbos.mean()) > exact > bits[2] - 0.02
    total, parts = negative_elbo(model, x, _rng())
    torch.testing.assert_close(total, parts["rate"] + parts["distortion"])
    assert float(parts["rate"].detach()) > 0


def test_weighted_by_scale_the_uncertain_numbers_count_more(model: CategoricalVAE) -> None:
    """By hand from the laws; and the parts that are returned stay the bound's."""
    x = _pictures(4)
    plain, parts = negative_elbo(model, x, _rng())
    weighted, same = negative_elbo(model, x, _rng(), scale_weight=1.0)
    noise = _rng()
    law, _ = model.describe(4, model.look(x), lambda _, shape: torch.randn(4, *shape, generator=noise))
    scale = law.log_scale.exp()
    by_hand = -(scale * discretised_logistic_log_prob(x, law)).sum() / scale.sum() / math.log(2)
    torch.testing.assert_close(weighted - same["rate"], by_hand)
    torch.testing.assert_close(same["distortion"], parts["distortion"])
    assert float(plain.detach()) != float(weighted.detach())


def test_every_parameter_learns(model: CategoricalVAE) -> None:
    negative_elbo(model, _pictures(), _rng())[0].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


def test_mistakes_are_named(model: CategoricalVAE) -> None:
    for call, message in (
        (lambda: model.look(torch.zeros(1, 3, 4, 4)), r"\(batch, 3, 8, 8\)"),
        (lambda: importance_weighted_bits(model, _pictures(), _rng(), samples=0), "at least one sample"),
        (lambda: negative_elbo(model, _pictures(), _rng(), scale_weight=-1.0), "must not be negative"),
        (lambda: CategoricalVAEConfig(values=1), "values must be at least 2"),
        (lambda: CategoricalVAEConfig(encoder_channels=(0, 8, 8)), r"encoder_channels\[0\]"),
        (lambda: CategoricalVAEConfig(resolution=20), "multiple of 8"),
        (lambda: CategoricalVAEConfig(decoder_channels=12), "multiple of 8"),
    ):
        with pytest.raises(DataError, match=message):
            call()
