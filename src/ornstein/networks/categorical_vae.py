r"""A variational autoencoder for small pictures whose latents are choices among a few values.

What an icon is (which drawing, where, how large, in which colour) is a handful of choices. Continuous latents in fine maps spent over a
thousand bits on them and left a prior that could not place them (docs/lab-notes.md); here groups of categorical variables follow one
another, each law told by the choices before it (Child 2021, "Very Deep VAEs", with the discrete latents of Hafner et al. 2023):

    prior      p(z_k | z_<k)       from the choices made so far,
    posterior  q(z_k | z_<k, x)    from these and from what the encoder saw.

A draw takes the largest of log-probabilities plus Gumbel noise; its gradient is that of the probabilities (the straight-through
estimator, Bengio et al. 2013). Every law is mixed with 1 % of the uniform one, so that no divergence is infinite.

The picture's numbers k = 0 … 255 have probabilities under a logistic with mean and scale a pixel and channel, cut into bins at
half levels (Salimans et al. 2017). What the model gives is a lower bound of log p(x), never log p(x) itself:

    log p(x) ≥ E_q[ log p(x | z) ] − Σ_k KL(q(z_k | z_<k, x) ‖ p(z_k | z_<k)).

The encoder does not normalise: the mean of a map carries the ground's colour, which a group norm would take out.

Shapes: B batch, H = W sides of a map, D width of the state that the choices write to, V variables of a group, K values of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.checks import require_at_least, require_multiples
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

_PATCH = 2
_LEVELS = 256
_NORM_GROUPS = 8
_UNIFORM_SHARE = 0.01
SMALLEST_LOG_SCALE = -7.0
_FIRST_LOG_SCALE = -2.0
_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class CategoricalVAEConfig:
    """Sizes.

    resolution: side of the picture in pixels. encoder_channels: of its maps from S/2 × S/2 down, half as large each.
    width: of the state between the groups. groups, variables, values: choices one after another, side by side, and among how many.
    hidden: units of each law's network. decoder_channels, decoder_blocks: of the map S/2 × S/2 that the state is unfolded to.
    unfolded_channels, unfolded_hidden: of the two dense layers that unfold it.
    """

    resolution: int = 32
    encoder_channels: tuple[int, ...] = (16, 32, 64)
    width: int = 192
    groups: int = 6
    variables: int = 3
    values: int = 16
    hidden: int = 128
    decoder_channels: int = 24
    decoder_blocks: int = 2
    unfolded_channels: int = 12
    unfolded_hidden: int = 256

    def __post_init__(self) -> None:
        sizes = ("width", "groups", "variables", "hidden", "decoder_blocks", "unfolded_channels", "unfolded_hidden")
        require_at_least(1, **{name: getattr(self, name) for name in sizes}, levels=len(self.encoder_channels))
        require_at_least(1, **{f"encoder_channels[{k}]": number for k, number in enumerate(self.encoder_channels)})
        require_at_least(2, values=self.values)
        require_multiples(_PATCH * 2 ** (len(self.encoder_channels) - 1), "halved map by map", {"resolution": self.resolution})
        require_multiples(_NORM_GROUPS, "split into the groups of a norm", {"decoder_channels": self.decoder_channels})


class Logistic(NamedTuple):
    """A logistic law of each number by its mean and the logarithm of its scale."""

    mean: Tensor
    log_scale: Tensor


class Choice(NamedTuple):
    """One group: log-probabilities (B, V, K) before and after seeing the picture, and what was drawn, one-hot (B, V, K)."""

    log_prior: Tensor
    log_posterior: Tensor
    drawn: Tensor

    def divergence(self) -> Tensor:
        """KL(posterior ‖ prior) of each variable, (B, V), in nats."""
        return (self.log_posterior.exp() * (self.log_posterior - self.log_prior)).sum(-1)

    def log_ratio(self) -> Tensor:
        """log p(z) − log q(z) of what was drawn, (B,), in nats."""
        return (self.drawn * (self.log_prior - self.log_posterior)).sum((1, 2))


class PlainBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), the second convolution zero at the start: the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels)
        self.conv2 = _zero(_conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.silu(self.conv1(functional.silu(x))))


class ModulatedBlock(nn.Module):
    """A residual block whose second norm is scaled and shifted by the state; the identity at the start."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(_NORM_GROUPS, channels), nn.GroupNorm(_NORM_GROUPS, channels)
        self.conv1 = _conv(channels, channels)
        self.conv2 = _zero(_conv(channels, channels))
        self.modulation = nn.Linear(width, 2 * channels)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        scale, shift = self.modulation(state)[:, :, None, None].chunk(2, dim=1)
        y = self.norm2(self.conv1(functional.silu(self.norm1(x)))) * (1 + scale) + shift
        return x + self.conv2(functional.silu(y))


class CategoricalGroup(nn.Module):
    """One group of choices: its laws, and what a draw adds to the state."""

    def __init__(self, config: CategoricalVAEConfig) -> None:
        super().__init__()
        self.shape = (config.variables, config.values)
        numbers, width = config.variables * config.values, config.width
        self.prior = _perceptron(width, config.hidden, _zero(nn.Linear(config.hidden, numbers + width)))
        self.posterior = _perceptron(2 * width, config.hidden, _linear(config.hidden, numbers))
        self.fold_in = nn.Linear(numbers, width)

    def forward(self, state: Tensor, seen: Tensor | None, noise: Tensor) -> tuple[Tensor, Choice]:
        """The state with the draw folded in, and the choice; drawn from the prior where nothing was seen."""
        logits, change = self.prior(state).float().split([math.prod(self.shape), state.shape[1]], dim=1)
        log_prior = self._law(logits)
        log_posterior = log_prior if seen is None else self._law(self.posterior(torch.cat([state, seen], dim=1)).float())
        # Gumbel noise from normal noise: −log(−log U) with U = Φ(noise).
        gumbel = -torch.log(-torch.special.log_ndtr(noise))
        drawn = functional.one_hot((log_posterior + gumbel).argmax(-1), self.shape[1]).float()
        probabilities = log_posterior.exp()
        passed = drawn + probabilities - probabilities.detach()
        return state + change + self.fold_in(passed.flatten(1)), Choice(log_prior, log_posterior, drawn)

    def _law(self, logits: Tensor) -> Tensor:
        mixed = (1 - _UNIFORM_SHARE) * logits.reshape(-1, *self.shape).softmax(-1) + _UNIFORM_SHARE / self.shape[1]
        return mixed.log()


class CategoricalVAE(nn.Module):
    """Pictures (B, 3, S, S) in [−1, 1] ↔ groups of choices."""

    def __init__(self, config: CategoricalVAEConfig) -> None:
        super().__init__()
        self.config = config
        pixels = 3 * _PATCH**2
        levels = config.encoder_channels
        self.first = _conv(pixels, levels[0])
        self.shrink, self.up = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(levels):
            shrink = nn.Conv2d(levels[level - 1], channels, 3, stride=2, padding=1) if level else nn.Identity()
            self.shrink.append(shrink)
            self.up.append(PlainBlock(channels))
        smallest = config.resolution // _PATCH // 2 ** (len(levels) - 1)
        self.see = _linear(levels[-1] * smallest**2, config.width)
        self.start = nn.Parameter(torch.zeros(config.width))
        self.groups = nn.ModuleList(CategoricalGroup(config) for _ in range(config.groups))
        self.state_norm = nn.LayerNorm(config.width)
        side = config.resolution // _PATCH
        self.unfold = nn.Sequential(
            _linear(config.width, config.unfolded_hidden),
            nn.SiLU(),
            _linear(config.unfolded_hidden, config.unfolded_channels * side**2),
            nn.Unflatten(1, (config.unfolded_channels, side, side)),
            _conv(config.unfolded_channels, config.decoder_channels, 1),
        )
        self.down = nn.ModuleList(ModulatedBlock(config.decoder_channels, config.width) for _ in range(config.decoder_blocks))
        self.out_norm = nn.GroupNorm(_NORM_GROUPS, config.decoder_channels)
        self.out_modulation = _linear(config.width, 2 * config.decoder_channels)
        self.out = nn.Conv2d(config.decoder_channels, 2 * pixels, 3, padding=1)
        nn.init.normal_(self.out.weight, std=0.01)
        # The ground's colour, past the norms.
        self.out_everywhere = _zero(nn.Linear(config.width, 2 * pixels))

    def look(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch width"]:
        """What the encoder saw."""
        side = self.config.resolution
        if pictures.shape[1:] != (3, side, side):
            raise DataError(f"this VAE takes pictures (batch, 3, {side}, {side}), got {tuple(pictures.shape)}")
        h = self.first(functional.pixel_unshuffle(pictures, _PATCH))
        for shrink, block in zip(self.shrink, self.up, strict=True):
            h = block(shrink(h))
        seen: Tensor = self.see(functional.silu(h).flatten(1))
        return seen

    def describe(
        self, batch: int, seen: Tensor | None, noise: Callable[[int, tuple[int, ...]], Tensor]
    ) -> tuple[Logistic, list[Choice]]:
        """Choose group by group, and say how every number of the picture is distributed then.

        Args:
            seen: what `look` gave; None draws from the prior. noise: (number of the group, (V, K)) → standard normal (B, V, K).

        Returns:
            The pixels' law, of shape (B, 3, S, S), and the choices.
        """
        state, choices = self.start.expand(batch, -1), []
        for number, group in enumerate(self.groups):
            state, choice = group(state, seen, noise(number, (self.config.variables, self.config.values)))
            choices.append(choice)
        state = functional.silu(self.state_norm(state))
        h = self.unfold(state)
        for block in self.down:
            h = block(h, state)
        with torch.autocast(h.device.type, enabled=False):  # log-likelihoods of sharp laws do not bear bfloat16
            state, h = state.float(), self.out_norm(h.float())
            scale, shift = self.out_modulation(state)[:, :, None, None].chunk(2, dim=1)
            numbers = self.out(functional.silu(h * (1 + scale) + shift)) + self.out_everywhere(state)[:, :, None, None]
            mean, log_scale = numbers.chunk(2, dim=1)
        return Logistic(
            functional.pixel_shuffle(mean, _PATCH), functional.pixel_shuffle(log_scale + _FIRST_LOG_SCALE, _PATCH)
        ), choices


def _conv(channels_in: int, channels_out: int, kernel: int = 3) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # torch types a bias as one that may be None
    return conv


def _linear(numbers_in: int, numbers_out: int) -> nn.Linear:
    linear = nn.Linear(numbers_in, numbers_out)
    nn.init.zeros_(linear.bias)
    return linear


def _zero(layer: _Layer) -> _Layer:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _perceptron(numbers_in: int, hidden: int, last: nn.Linear) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(numbers_in), _linear(numbers_in, hidden), nn.SiLU(), last)


def discretised_logistic_log_prob(pictures: Tensor, law: Logistic) -> Tensor:
    """log P of 8-bit numbers scaled to [−1, 1], each, in nats.

    With a < b the bin's bounds in units of the scale, σ(b) − σ(a) = σ(b) σ(−a) (1 − e^{a−b}): no digit is lost in either tail.
    """
    half = 1 / (_LEVELS - 1)
    scale = law.log_scale.clamp(min=SMALLEST_LOG_SCALE).exp()
    upper, lower = (pictures + half - law.mean) / scale, (pictures - half - law.mean) / scale
    inside = functional.logsigmoid(upper) + functional.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
    # The outermost bins reach to infinity.
    inside = torch.where(pictures < -1 + half, functional.logsigmoid(upper), inside)
    return torch.where(pictures > 1 - half, functional.logsigmoid(-lower), inside)
