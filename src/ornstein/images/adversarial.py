"""Objectives of generative adversarial networks, as one loss for both players.

Real games alternate: a step of the discriminator, a step of the generator. Here both step at once from the same weights (simultaneous
gradient descent, for which Mescheder et al. 2018 prove local convergence under R1): each player's part of the loss sees the other's
weights as constants, so that the gradient of the sum is each player's own. One training loop then serves all models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float

    from ornstein.networks.adversarial import AdversarialPair


def relativistic_loss(
    pair: AdversarialPair, real: Float[Tensor, "batch 3 side side"], rng: torch.Generator, *, penalty: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The relativistic pairing loss with R1 and R2 (Huang et al. 2024, eq. 3 and 4).

    With d = D(real) − D(fake) of pairs: the discriminator minimises softplus(−d) + γ/2 (‖∇D(real)‖² + ‖∇D(fake)‖²), the generator
    softplus(d).

    Args:
        real: in [−1, 1]. penalty: γ.

    Returns:
        The loss and its parts for the log; `margin` is the mean of d.
    """
    fake = pair.draw(_latents(pair, real, rng))
    scores, slopes = zip(*(_score_and_slope(pair, pictures) for pictures in (real, fake.detach())), strict=True)
    margin = scores[0] - scores[1]
    discriminator = functional.softplus(-margin).mean() + penalty / 2 * (slopes[0] + slopes[1])
    generator = functional.softplus(scores[0].detach() - _judged_as_it_is(pair, fake)).mean()
    return discriminator + generator, {
        "discriminator": discriminator, "generator": generator, "margin": margin.mean(), "r1": slopes[0], "r2": slopes[1],
    }  # fmt: skip


def classical_loss(
    pair: AdversarialPair, real: Float[Tensor, "batch 3 side side"], rng: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The non-saturating loss (Goodfellow et al. 2014): cross-entropy of real against fake; the generator wants fakes called real.

    Args and returns as for `relativistic_loss`.
    """
    fake = pair.draw(_latents(pair, real, rng))
    for_real, for_fake = pair.judge(real).float(), pair.judge(fake.detach()).float()
    discriminator = functional.softplus(-for_real).mean() + functional.softplus(for_fake).mean()
    generator = functional.softplus(-_judged_as_it_is(pair, fake)).mean()
    parts = {"discriminator": discriminator, "generator": generator, "margin": (for_real - for_fake).mean()}
    return discriminator + generator, parts


def _latents(pair: AdversarialPair, real: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(len(real), pair.config.latent_size, generator=rng, device=real.device)


def _judged_as_it_is(pair: AdversarialPair, pictures: Tensor) -> Tensor:
    """Logits with a gradient to the pictures alone."""
    frozen = {name: parameter.detach() for name, parameter in pair.discriminator.named_parameters()}
    return functional_call(pair.discriminator, frozen, (pictures,)).float()


def _score_and_slope(pair: AdversarialPair, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the mean over the batch of ‖∂D/∂x‖²."""
    pictures = pictures.detach().requires_grad_()
    logits = pair.judge(pictures).float()
    (slope,) = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
    return logits, slope.float().square().sum((1, 2, 3)).mean()
