"""Ways to say an action: what a policy has understood, one vector, → a chunk of actions.

Every head has `loss`, `sample` and, where it is defined, `log_prob`. Shapes: B batch, C context, H actions a chunk, D dimensions of an action.
Actions go in and come out in the contract's units, within its bounds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float

    from ornstein.core.contract import EmbodimentContract


_DRAWS = 16


class ActionHead(nn.Module, ABC):
    """What all heads are."""

    low: Tensor
    high: Tensor

    def __init__(self, context_size: int, length: int, contract: EmbodimentContract) -> None:
        """
        Args:
            context_size: C. length: H. contract: whose action bounds hold.

        Raises:
            DataError: a size below 1.
        """
        super().__init__()
        if context_size < 1 or length < 1:
            raise DataError(f"a head needs a context and a chunk of at least 1, got {context_size} and {length}")
        self.context_size, self.length, self.dimensions = context_size, length, len(contract.action)
        self.register_buffer("low", torch.as_tensor(contract.action_low), persistent=False)
        self.register_buffer("high", torch.as_tensor(contract.action_high), persistent=False)

    @abstractmethod
    def loss(
        self, context: Float[Tensor, "batch context"], actions: Float[Tensor, "batch length dims"], rng: torch.Generator
    ) -> Tensor:
        """The scalar to minimise.

        Args:
            rng: on the context's device; unused by heads that draw nothing.

        Raises:
            DataError: shapes that do not fit, or numbers that are not finite.
        """

    @abstractmethod
    def sample(
        self, context: Float[Tensor, "batch context"], rng: torch.Generator, *, greedy: bool = False
    ) -> Float[Tensor, "batch length dims"]:
        """Actions; the same for the same generator's state.

        Args:
            greedy: the likeliest, by what the head can tell: each token's likeliest value, the heaviest component's mean. Heads that turn
                noise into actions have no such thing and draw.
        """

    @torch.no_grad()
    def uncertainty(self, context: Float[Tensor, "batch context"], rng: torch.Generator) -> Float[Tensor, " batch"]:
        """How unsure it is, from 0 up: the spread of what it draws, the mean over a chunk's numbers of the standard deviation of 16 draws in
        halves of the range. Heads of bins say their entropy instead; a single answer, as regression gives, has no doubts."""
        drawn = torch.stack([self.scaled(self.sample(context, rng)) for _ in range(_DRAWS)])
        return drawn.std(0).flatten(1).mean(1)

    @property
    def has_density(self) -> bool:
        """Whether `log_prob` is defined."""
        return False

    def log_prob(
        self, context: Float[Tensor, "batch context"], actions: Float[Tensor, "batch length dims"]
    ) -> Float[Tensor, " batch"]:
        """Log-density of a chunk in the contract's units, in nats; heads of tokens spread a token's probability over its bin.

        Raises:
            DataError: this head has no density.
        """
        raise DataError(f"{type(self).__name__} has no density")

    def checked(self, context: Tensor, actions: Tensor) -> Tensor:
        """Actions in float32, within bounds.

        Raises:
            DataError: shapes that do not fit, or numbers that are not finite or outside the contract's bounds.
        """
        expected = (len(context), self.length, self.dimensions)
        if context.ndim != 2 or context.shape[1] != self.context_size or actions.shape != expected:
            raise DataError(
                f"this head takes contexts (B, {self.context_size}) and actions (B, {self.length}, {self.dimensions}), got"
                f" {tuple(context.shape)} and {tuple(actions.shape)}"
            )
        if not torch.isfinite(actions).all():
            raise DataError("an action holds a number that is not finite")
        exact = actions.float()
        slack = 1e-4 * (self.high - self.low)  # bounds that went through a file may come back a rounding away
        outside = ((exact < self.low - slack) | (exact > self.high + slack)).flatten(0, -2).any(0)
        if outside.any():
            raise DataError(
                f"dimensions {outside.nonzero().flatten().tolist()} of the actions leave the contract's bounds, {self.low.tolist()} to"
                f" {self.high.tolist()}: in other units, or of another contract?"
            )
        return torch.maximum(torch.minimum(exact, self.high), self.low)

    def scaled(self, actions: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch dims"]:
        """The contract's bounds → −1 … 1."""
        return (actions - self.low) / (self.high - self.low) * 2 - 1

    def unscaled(self, scaled: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch dims"]:
        """The inverse, cut off at the bounds."""
        return self.low + (scaled.float().clamp(-1, 1) + 1) / 2 * (self.high - self.low)

    def log_volume(self) -> Tensor:
        """Nats by which a chunk's log-density in the contract's units exceeds that in scaled ones."""
        return -((self.high - self.low) / 2).log().sum() * self.length


class RegressionHead(ActionHead):
    """One answer: the mean (squared error) or the median (absolute error) of what would be right."""

    def __init__(self, context_size: int, length: int, contract: EmbodimentContract, *, norm: int = 2) -> None:
        """
        Args:
            norm: 1, absolute error, or 2, squared error.

        Raises:
            DataError: another norm.
        """
        super().__init__(context_size, length, contract)
        if norm not in (1, 2):
            raise DataError(f"regression is in the norm 1 or 2, got {norm}")
        self.norm = norm
        self.out = nn.Linear(context_size, length * self.dimensions)

    def loss(self, context: Tensor, actions: Tensor, rng: torch.Generator) -> Tensor:
        """See `ActionHead`."""
        error = self.scaled(self.checked(context, actions)) - self._answer(context)
        return error.abs().mean() if self.norm == 1 else error.square().mean()

    def sample(self, context: Tensor, rng: torch.Generator, *, greedy: bool = False) -> Tensor:
        """The answer; nothing is drawn."""
        return self.unscaled(self._answer(context))

    def _answer(self, context: Tensor) -> Tensor:
        answer: Tensor = self.out(context).float().view(-1, self.length, self.dimensions)
        return answer


class MixtureHead(ActionHead):
    """A mixture of Gaussians over whole chunks, each with its own spread a number (Bishop 1994)."""

    #: Narrower would be a density without bound where data repeat a number exactly.
    SMALLEST_SPREAD = 0.01

    def __init__(self, context_size: int, length: int, contract: EmbodimentContract, *, components: int = 5) -> None:
        """
        Args:
            components: how many Gaussians.

        Raises:
            DataError: fewer than 1.
        """
        super().__init__(context_size, length, contract)
        if components < 1:
            raise DataError(f"a mixture has at least one component, got {components}")
        self.components, size = components, length * self.dimensions
        self.out = nn.Linear(context_size, components * (1 + 2 * size))
        # Components that begin alike stay alike.
        nn.init.normal_(self.out.bias[components : components * (1 + size)], std=0.5)

    def loss(self, context: Tensor, actions: Tensor, rng: torch.Generator) -> Tensor:
        """Negative log-density of the scaled chunk, a number of it on average."""
        scaled = self.scaled(self.checked(context, actions)).flatten(1)
        return -self._log_prob(context, scaled).mean() / scaled.shape[1]

    def sample(self, context: Tensor, rng: torch.Generator, *, greedy: bool = False) -> Tensor:
        """A component, then a chunk of it; greedy: the mean of the heaviest component."""
        log_weights, means, spreads = self._mixture(context)
        chosen = log_weights.argmax(-1) if greedy else torch.multinomial(log_weights.exp(), 1, generator=rng)[:, 0]
        rows = torch.arange(len(context), device=context.device)
        drawn = means[rows, chosen]
        if not greedy:
            drawn = drawn + spreads[rows, chosen] * torch.randn(drawn.shape, generator=rng, device=drawn.device)
        return self.unscaled(drawn.view(-1, self.length, self.dimensions))

    @property
    def has_density(self) -> bool:
        """It has."""
        return True

    def log_prob(self, context: Tensor, actions: Tensor) -> Tensor:
        """See `ActionHead`."""
        scaled = self.scaled(self.checked(context, actions)).flatten(1)
        return self._log_prob(context, scaled) + self.log_volume()

    def _log_prob(self, context: Tensor, scaled: Tensor) -> Tensor:
        log_weights, means, spreads = self._mixture(context)
        standard = (scaled[:, None] - means) / spreads
        of_each = -(standard.square() / 2 + spreads.log() + math.log(2 * math.pi) / 2).sum(-1)
        return torch.logsumexp(log_weights + of_each, dim=-1)

    def _mixture(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k = self.components
        read: Tensor = self.out(context).float()
        means, spreads = read[:, k:].reshape(len(read), 2, k, -1).unbind(1)
        return read[:, :k].log_softmax(-1), means, nn.functional.softplus(spreads) + self.SMALLEST_SPREAD
