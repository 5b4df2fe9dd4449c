from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from ornstein.core.errors import DataError, UnknownNameError
from ornstein.diffusion import PREDICTIONS, DiscreteData, Distribution, Gaussian, GaussianMixture, NoiseSchedule, from_pair

SCHEDULE = NoiseSchedule.cosine()
MIXTURE = GaussianMixture(
    torch.tensor([0.2, 0.5, 0.3]),
    torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -2.0]]),
    torch.stack([0.1 * torch.eye(2), torch.tensor([[0.3, 0.1], [0.1, 0.2]]), torch.diag(torch.tensor([0.5, 0.05]))]),
)
POINTS = DiscreteData(torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -2.0], [0.5, 0.4]]), torch.tensor([0.1, 0.2, 0.3, 0.4]))
DISTRIBUTIONS: dict[str, Distribution] = {"mixture": MIXTURE, "points": POINTS}


def _randn(n: int, d: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=list(DISTRIBUTIONS))
def distribution(request: pytest.FixtureRequest) -> Distribution:
    return DISTRIBUTIONS[request.param]


def test_density_agrees_with_torchs_own_mixture() -> None:
    x = _randn(50)
    for bar in (1.0, 0.9, 0.3, 1e-4, 0.0):
        alpha, sigma = math.sqrt(bar), math.sqrt(1 - bar)
        reference = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(MIXTURE.weights),
            torch.distributions.MultivariateNormal(alpha * MIXTURE.means, bar * MIXTURE.covariances + (1 - bar) * torch.eye(2)),
        )
        torch.testing.assert_close(MIXTURE.log_prob(x, alpha, sigma), reference.log_prob(x))


def test_score_is_the_gradient_of_the_noised_density(distribution: Distribution) -> None:
    x = _randn(20, seed=1).requires_grad_()
    for bar in (0.99, 0.5, 0.01, 0.0):
        alpha, sigma = math.sqrt(bar), math.sqrt(1 - bar)
        (gradient,) = torch.autograd.grad(distribution.log_prob(x, alpha, sigma).sum(), x)
        torch.testing.assert_close(distribution.score(x, alpha, sigma), gradient)


def test_posterior_mean_and_score_obey_tweedie(distribution: Distribution) -> None:
    x = _randn(20, seed=2)
    for bar in (0.999, 0.5, 0.01):
        alpha, sigma = math.sqrt(bar), math.sqrt(1 - bar)
        tweedie = (x + sigma**2 * distribution.score(x, alpha, sigma)) / alpha
        torch.testing.assert_close(distribution.posterior_mean(x, alpha, sigma), tweedie, rtol=1e-9, atol=1e-9)
    # Where no signal is left, x_t tells nothing.
    mean = distribution.posterior_mean(x, 0.0, 1.0)
    torch.testing.assert_close(mean, mean[:1].expand_as(mean))


def test_posterior_mean_is_bayes_rule_by_quadrature() -> None:
    """E[x_0 | x_t] = ∫ x_0 N(x_t; αx_0, σ²) p(x_0) dx_0 / ∫ …, in one dimension."""
    weights, means, variances = (0.3, 0.7), (-1.0, 0.6), (0.2, 0.05)
    mixture = GaussianMixture(
        torch.tensor(weights), torch.tensor(means)[:, None], torch.tensor(variances)[:, None, None].double()
    )
    alpha, sigma = math.sqrt(0.6), math.sqrt(0.4)

    def joint(x_0: float, x_t: float) -> float:
        prior = sum(
            w * math.exp(-((x_0 - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
            for w, m, v in zip(weights, means, variances, strict=True)
        )
        return prior * math.exp(-((x_t - alpha * x_0) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi * sigma**2)

    for x_t in (-1.5, 0.0, 0.4, 2.0):
        mass = integrate.quad(joint, -6, 6, args=(x_t,), points=(-1.0, 0.6))[0]
        first = integrate.quad(lambda x, x_t=x_t: x * joint(x, x_t), -6, 6, points=(-1.0, 0.6))[0]
        x = torch.tensor([[x_t]], dtype=torch.float64)
        assert math.isclose(float(mixture.posterior_mean(x, alpha, sigma)), first / mass, rel_tol=1e-6)
        assert math.isclose(float(mixture.log_prob(x, alpha, sigma)), math.log(mass), rel_tol=1e-6)


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


def test_denoisers_of_all_kinds_say_the_same_in_the_callers_type(distribution: Distribution) -> None:
    """Every row at its own time step, from the definitions of the four."""
    x, t = _randn(6, seed=3), torch.tensor([1, 1000, 500, 500, 20, 999])
    alpha, sigma = (part[:, None] for part in (SCHEDULE.alpha(t), SCHEDULE.sigma(t)))
    x_0 = torch.cat([distribution.posterior_mean(x[i : i + 1], float(alpha[i]), float(sigma[i])) for i in range(6)])
    eps = (x - alpha * x_0) / sigma
    truth = {"epsilon": eps, "sample": x_0, "v_prediction": alpha * eps - sigma * x_0, "score": -eps / sigma}
    for kind in PREDICTIONS:
        denoiser = distribution.denoiser(SCHEDULE, kind)
        torch.testing.assert_close(denoiser(x, t, None), truth[kind])
        assert denoiser(x.float(), t).dtype == torch.float32


def test_samples_have_the_distributions_moments() -> None:
    x = MIXTURE.sample(200_000, torch.Generator().manual_seed(3))
    mean = MIXTURE.weights @ MIXTURE.means
    second = torch.einsum(
        "k,kde->de", MIXTURE.weights, MIXTURE.covariances + torch.einsum("kd,ke->kde", MIXTURE.means, MIXTURE.means)
    )
    torch.testing.assert_close(x.mean(0), mean, atol=0.012, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), second - torch.outer(mean, mean), atol=0.02, rtol=0)
    drawn = POINTS.sample(100_000, torch.Generator().manual_seed(4))
    shares = (drawn[:, None] == POINTS.points).all(-1).double().mean(0)
    torch.testing.assert_close(shares, POINTS.weights, atol=0.006, rtol=0)


def test_a_data_set_is_a_mixture_without_spread() -> None:
    same = GaussianMixture(POINTS.weights, POINTS.points, torch.zeros(4, 2, 2))
    x = _randn(30, seed=5)
    for alpha, sigma in ((0.9, math.sqrt(0.19)), (0.1, math.sqrt(0.99)), (0.999, math.sqrt(1 - 0.999**2))):
        for name in ("log_prob", "score", "posterior_mean"):
            torch.testing.assert_close(
                getattr(POINTS, name)(x, alpha, sigma), getattr(same, name)(x, alpha, sigma), rtol=1e-9, atol=1e-9
            )
    equal = DiscreteData(POINTS.points)
    assert torch.equal(equal.weights, torch.full((4,), 0.25, dtype=torch.float64))
    # Almost no noise: the nearest point.
    torch.testing.assert_close(equal.posterior_mean(POINTS.points + 1e-3, 1.0, 0.01), POINTS.points)


def test_gaussian_flow_carries_the_density_along_and_composes() -> None:
    gaussian = Gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))
    x = _randn(10, seed=4)
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


def test_gaussian_flow_is_the_solution_of_the_probability_flow() -> None:
    """Against scipy's integrator of dy/dr = ε̂(x_t), y = x/α, r = σ/α, with the score written out by hand."""
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    x = _randn(1, seed=6)[0]
    start, stop = SCHEDULE.level(800), SCHEDULE.level(50)

    def slope(r: float, y: object) -> object:
        alpha = 1 / math.sqrt(1 + r**2)
        sigma = r * alpha
        state = torch.as_tensor(y) * alpha - alpha * mean
        return (sigma * torch.linalg.solve(alpha**2 * covariance + sigma**2 * torch.eye(2), state)).numpy()

    span = (start.sigma / start.alpha, stop.sigma / stop.alpha)
    solved = integrate.solve_ivp(slope, span, (x / start.alpha).numpy(), rtol=1e-10, atol=1e-12).y[:, -1] * stop.alpha
    torch.testing.assert_close(Gaussian(mean, covariance).flow(x[None], SCHEDULE, 800, 50)[0], torch.as_tensor(solved))


def test_mistakes_are_named() -> None:
    eye = torch.eye(2)
    for make, message in (
        (lambda: GaussianMixture(torch.tensor([0.5, 0.6]), torch.zeros(2, 1), torch.ones(2, 1, 1)), "sum to 1"),
        (lambda: GaussianMixture(torch.tensor([1.0]), torch.zeros(1, 2), torch.ones(1, 1, 1)), r"\(k, d, d\)"),
        (lambda: GaussianMixture(torch.tensor([0.5, 0.5]), torch.zeros(1, 2), eye[None]), "1 weights are needed"),
        (lambda: Gaussian(torch.zeros(1), torch.tensor([[-1.0]])), "negative variance"),
        (lambda: Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (lambda: Gaussian(torch.zeros(1), torch.zeros(1, 1)).log_prob(torch.zeros(1, 1)), "no density without noise"),
        (lambda: POINTS.log_prob(torch.zeros(1, 2)), "no density without noise"),
        (lambda: DiscreteData(torch.zeros(0, 2)), "at least one"),
        (lambda: MIXTURE.score(torch.zeros(3, 2), torch.tensor([0.6, 0.6]), 0.8), "one for each of the 3 rows, got 2"),
    ):
        with pytest.raises(DataError, match=message):
            make()
    with pytest.raises(UnknownNameError, match="epsilon"):
        MIXTURE.denoiser(SCHEDULE, "eps")


def test_posterior_variance_is_the_derivative_of_the_posterior_mean(distribution: Distribution) -> None:
    """Cov[x_0 | x_t] = σ²/α · ∂E[x_0 | x_t]/∂x_t (the second-order Tweedie formula), by automatic differentiation."""
    x = _randn(20, seed=4)
    for bar in (0.95, 0.5, 0.01):
        alpha, sigma = math.sqrt(bar), math.sqrt(1 - bar)
        slopes = torch.func.vmap(
            torch.func.jacrev(lambda one, a=alpha, s=sigma: distribution.posterior_mean(one[None], a, s)[0])
        )(x)
        wanted = sigma**2 / alpha * slopes.diagonal(dim1=1, dim2=2).mean(1)
        torch.testing.assert_close(distribution.posterior_variance(x, alpha, sigma), wanted, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_no_denoiser_beats_the_optimal_loss_and_the_exact_one_has_it(prediction: str) -> None:
    """The loss of the exact denoiser, estimated from its errors alone, and of one that is a little off."""
    n = 40_000
    for distribution in DISTRIBUTIONS.values():
        for t in (100, 500, 900):
            best, error = distribution.optimal_loss(SCHEDULE, t, prediction, n=n, rng=torch.Generator().manual_seed(0))
            rng = torch.Generator().manual_seed(1)
            x_0, eps = distribution.sample(n, rng), torch.randn(n, 2, generator=rng, dtype=torch.float64)
            steps = torch.full((n,), t)
            alpha, sigma = SCHEDULE.alpha_sigma(steps, x_0)
            x_t = alpha * x_0 + sigma * eps
            target = from_pair(x_0, eps, prediction, alpha, sigma)
            exact = distribution.denoiser(SCHEDULE, prediction)(x_t, steps)
            losses = (exact - target).square().mean(1)
            assert abs(losses.mean() - best) < 4 * math.hypot(error, float(losses.std()) / n**0.5)
            assert ((1.1 * exact - target).square().mean(1) - losses).mean() > 0


def test_optimal_loss_of_a_gaussian_by_hand() -> None:
    """x_0 ~ N(0, v): Var[x_0 | x_t] = vσ²/(α²v + σ²) whatever x_t is, and Var[ε | x_t] = α²/σ² of that."""
    gaussian = Gaussian(torch.zeros(1), torch.tensor([[0.3]]))
    alpha, sigma = float(SCHEDULE.alphas[400]), float(SCHEDULE.sigmas[400])
    variance = 0.3 * sigma**2 / (alpha**2 * 0.3 + sigma**2)
    for prediction, factor in (
        ("sample", 1.0),
        ("epsilon", alpha / sigma),
        ("v_prediction", 1 / sigma),
        ("score", alpha / sigma**2),
    ):
        value, error = gaussian.optimal_loss(SCHEDULE, 400, prediction, n=10, rng=torch.Generator())
        assert math.isclose(value, factor**2 * variance, rel_tol=1e-6)
        assert error < 1e-9


def test_the_flow_of_a_mixture_in_one_dimension_keeps_quantiles() -> None:
    """An increasing map that carries p_t to p_s can only be F_s⁻¹ ∘ F_t: so P(x_t ≤ a) = P(x_s ≤ flow(a))."""
    weights, means, variances = torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [0.6]]), torch.tensor([[[0.2]], [[0.05]]])
    mixture = GaussianMixture(weights, means, variances)

    def cdf(x: torch.Tensor, time: float) -> torch.Tensor:
        level = SCHEDULE.level(time)
        spread = (level.alpha**2 * variances[:, 0, 0].double() + level.sigma**2).sqrt()
        return (torch.special.ndtr((x - level.alpha * means[:, 0].double()) / spread) * weights.double()).sum(1)

    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for start, stop in ((1000, 0), (900, 100.5), (0, 700), (1000, 999)):
        carried = mixture.flow(x, SCHEDULE, start, stop)
        np.testing.assert_allclose(cdf(carried, stop), cdf(x, start), atol=1e-9)


def test_flows_agree_with_the_closed_form_and_with_themselves(distribution: Distribution) -> None:
    gaussian = Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[0.5, 0.2], [0.2, 0.3]]))
    x = _randn(5, seed=5)
    followed = Distribution.flow(gaussian, x, SCHEDULE, 950, 0.5)
    torch.testing.assert_close(followed, gaussian.flow(x, SCHEDULE, 950, 0.5), rtol=1e-8, atol=1e-9)
    there = distribution.flow(x, SCHEDULE, 900, 300)
    torch.testing.assert_close(distribution.flow(there, SCHEDULE, 300, 900), x, rtol=1e-8, atol=1e-8)


def test_no_flow_leads_out_of_a_point() -> None:
    """Where a variance is zero the data are a point in that direction: t = 0 is reached, and not left again."""
    flat = Gaussian(torch.tensor([0.5, -1.0]), torch.diag(torch.tensor([0.5, 0.0])))
    x = _randn(5, seed=5)
    down = flat.flow(x, SCHEDULE, 950, 0)
    assert torch.equal(down[:, 1], torch.full((5,), -1.0, dtype=torch.float64))
    with pytest.raises(DataError, match="out of a point"):
        flat.flow(down, SCHEDULE, 0, 950)


def test_denoisers_at_times_between_steps_are_exact_there(distribution: Distribution) -> None:
    x, times = _randn(3, seed=6), torch.tensor([0.5, 300.25, 999.0], dtype=torch.float64)
    levels = [SCHEDULE.level(time) for time in times.tolist()]
    alpha, sigma = (torch.tensor([getattr(level, name) for level in levels], dtype=torch.float64) for name in ("alpha", "sigma"))
    found = distribution.denoiser(SCHEDULE, "sample")(x, times)
    torch.testing.assert_close(found, distribution.posterior_mean(x, alpha, sigma), rtol=1e-9, atol=1e-10)
