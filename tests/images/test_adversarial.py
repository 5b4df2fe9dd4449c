"""The game's two gradients, and its behaviour where theory says what happens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from ornstein.images.adversarial import classical_loss, relativistic_loss
from ornstein.networks.adversarial import AdversarialPair, DCGANConfig, R3GANConfig


def _real() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def _shaken(config: R3GANConfig | DCGANConfig) -> AdversarialPair:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = AdversarialPair(config).double()
        with torch.no_grad():
            for parameter in pair.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return pair.eval()  # batch normalisation as constants, so that both computations see the same network


@pytest.mark.parametrize("which", ["relativistic", "classical"])
def test_each_player_gets_its_own_gradient(which: str) -> None:
    """Against the two losses written down separately, with the other player's weights held."""
    pair = _shaken(R3GANConfig(16, 6, 1, (8, 12)) if which == "relativistic" else DCGANConfig(16, 6, (8, 4)))
    real = _real().double()

    def z() -> torch.Tensor:
        return torch.randn(4, 6, generator=_rng()).double()

    original, torch_randn = pair.draw, z()
    pair.draw = lambda given: original(torch_randn)  # type: ignore[method-assign]  # the same noise in double precision
    loss, _ = (
        relativistic_loss(pair, real, _rng(), penalty=0.7) if which == "relativistic" else classical_loss(pair, real, _rng())
    )
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in pair.named_parameters()}  # type: ignore[union-attr]
    generator, discriminator = list(pair.generator.parameters()), list(pair.discriminator.parameters())
    fake = original(torch_randn)
    if which == "relativistic":
        g_loss = functional.softplus(pair.judge(real) - pair.judge(fake)).mean()
    else:
        g_loss = -torch.sigmoid(pair.judge(fake)).log().mean()
    wanted = list(torch.autograd.grad(g_loss, generator))
    fake = fake.detach()
    if which == "relativistic":
        d_loss = functional.softplus(pair.judge(fake) - pair.judge(real)).mean()
        for pictures in (real.clone(), fake.clone()):
            slope = torch.autograd.grad(pair.judge(pictures.requires_grad_()).sum(), pictures, create_graph=True)[0]
            d_loss = d_loss + 0.7 / 2 * slope.flatten(1).norm(dim=1).square().mean()
    else:
        d_loss = -torch.sigmoid(pair.judge(real)).log().mean() - (1 - torch.sigmoid(pair.judge(fake))).log().mean()
    wanted += list(torch.autograd.grad(d_loss, discriminator))
    for (name, gradient), other in zip(found.items(), wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")


class _DiracGame(torch.nn.Module):
    """Mescheder et al. 2018: the data are a point at 0, the generator a point at θ, the discriminator a line D(x) = ψx."""

    class _Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.psi = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.psi * x.flatten(1).sum(1)

    class config:
        latent_size = 1

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.discriminator = torch.nn.Parameter(torch.tensor(1.0)), self._Line()

    def draw(self, z: torch.Tensor) -> torch.Tensor:
        return self.theta.expand(len(z), 1, 1, 1)

    def judge(self, x: torch.Tensor) -> torch.Tensor:
        return self.discriminator(x)


def _play(penalty: float, steps: int = 600) -> list[float]:
    game: Any = _DiracGame()
    optimizer = torch.optim.SGD(game.parameters(), lr=0.1)
    distances = []
    for _ in range(steps):
        loss, parts = relativistic_loss(game, torch.zeros(2, 1, 1, 1), _rng(), penalty=penalty)
        assert torch.isclose(parts["r1"], game.discriminator.psi.detach() ** 2)  # ∂(ψx)/∂x = ψ
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distances.append(abs(float(game.theta.detach())))
    return distances


def test_the_penalty_makes_the_simplest_game_converge() -> None:
    """Without it the players circle the solution for ever; with it they reach it."""
    assert max(_play(0.0)[-100:]) > 0.3
    assert max(_play(0.5)[-100:]) < 1e-3


def test_the_classical_game_circles() -> None:
    game: Any = _DiracGame()
    optimizer = torch.optim.SGD(game.parameters(), lr=0.1)
    radii = []
    for _ in range(600):
        loss, _ = classical_loss(game, torch.zeros(2, 1, 1, 1), _rng())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        radii.append(float(game.theta.detach()) ** 2 + float(game.discriminator.psi.detach()) ** 2)
    assert min(radii[-300:]) > 0.1
