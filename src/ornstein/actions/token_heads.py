"""Action heads that say an action in tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.actions.bins import UniformBins
from ornstein.actions.heads import ActionHead
from ornstein.actions.quantiles import QuantileBins
from ornstein.core.errors import DataError, unknown_name
from ornstein.networks.causal_transformer import CausalBlock

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

    from ornstein.actions.fast import FastTokenizer
    from ornstein.core.contract import EmbodimentContract

Decoding = Literal["parallel", "autoregressive"]


class TokenDecoder(nn.Module):
    """A small causal transformer that writes tokens one after the other, the context before the first."""

    def __init__(
        self, context_size: int, vocabulary: int, most: int, *, width: int = 128, depth: int = 2, heads: int = 4
    ) -> None:
        """
        Args:
            most: tokens, at most.
        """
        super().__init__()
        self.context_in = nn.Linear(context_size, width)
        self.tokens_in = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(most, width) * 0.02)
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(
        self, context: Float[Tensor, "batch context"], tokens: Int64[Tensor, "batch written"]
    ) -> Float[Tensor, "batch places vocabulary"]:
        """Logits of each token written so far and, where there is room, of the next."""
        most = len(self.positions)
        x_BND = torch.cat([self.context_in(context)[:, None], self.tokens_in(tokens[:, : most - 1])], dim=1)
        x_BND = x_BND + self.positions[: x_BND.shape[1]]
        places = torch.arange(x_BND.shape[1], device=x_BND.device)
        mask_NN = places[None, :] <= places[:, None]
        for block in self.blocks:
            x_BND = block(x_BND, mask_NN)
        logits: Tensor = self.out(self.norm(x_BND))
        return logits.float()


def token_cross_entropy(
    logits: Float[Tensor, "*batch bins"], tokens: Int64[Tensor, "*batch"], smoothing_bins: float
) -> Float[Tensor, ""]:
    """The mean over tokens.

    Args:
        smoothing_bins: standard deviation in bins of a Gaussian around the right bin that is aimed at: neighbours are nearly right. 0: the
            right bin alone.
    """
    if smoothing_bins == 0:
        return functional.cross_entropy(logits.flatten(0, -2), tokens.flatten())
    return -(soft_bins(tokens, logits.shape[-1], smoothing_bins) * logits.log_softmax(-1)).sum(-1).mean()


def soft_bins(tokens: Int64[Tensor, "*batch"], num_bins: int, smoothing_bins: float) -> Float[Tensor, "*batch bins"]:
    """What is aimed at: a Gaussian of that standard deviation around each bin, or the bin alone where it is 0."""
    if smoothing_bins == 0:
        return functional.one_hot(tokens, num_bins).float()
    places = torch.arange(num_bins, device=tokens.device)
    return torch.softmax(-0.5 * ((places - tokens[..., None]) / smoothing_bins) ** 2, dim=-1)


class BinsHead(ActionHead):
    """Each number a token of its dimension's bins: all at once, as RT-1 does, or one after the other, each knowing those before it."""

    def __init__(
        self,
        context_size: int,
        length: int,
        contract: EmbodimentContract,
        *,
        bins: UniformBins | QuantileBins,
        decoding: Decoding = "parallel",
        smoothing_bins: float = 0.0,
        width: int = 128,
        depth: int = 2,
    ) -> None:
        """
        Args:
            bins: over the contract's bounds. smoothing_bins: standard deviation in bins of a Gaussian around the right bin that training
                aims at: neighbours are nearly right. 0: the right bin alone. width, depth: of the decoder that writes one after the other.

        Raises:
            DataError: bins of another number of dimensions, or a negative smoothing. UnknownNameError: no such decoding.
        """
        super().__init__(context_size, length, contract)
        if decoding not in get_args(Decoding):
            raise unknown_name("decoding", decoding, get_args(Decoding))
        edges = np.asarray(bins.edges) if isinstance(bins, QuantileBins) else _edges_of(bins)
        if len(edges) != self.dimensions or not np.allclose(edges[:, [0, -1]].T, [contract.action_low, contract.action_high]):
            raise DataError("these bins do not cover the contract's action bounds")
        if smoothing_bins < 0:
            raise DataError(f"smoothing_bins must be at least 0, got {smoothing_bins}")
        self.bins, self.decoding, self.smoothing_bins = bins, decoding, smoothing_bins
        self.register_buffer("widths", torch.from_numpy(np.diff(edges)).float(), persistent=False)
        self.numbers = length * self.dimensions
        if decoding == "parallel":
            self.out = nn.Linear(context_size, self.numbers * bins.num_bins)
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        else:
            self.decoder = TokenDecoder(context_size, bins.num_bins, self.numbers, width=width, depth=depth)

    widths: Tensor

    def tokens(self, context: Tensor, actions: Tensor) -> Tensor:
        """Of a chunk, (B, H·D), dimension by dimension of the first action, then of the next."""
        clean = self.checked(context, actions)
        return torch.from_numpy(self.bins.encode(clean.cpu().numpy())[0]).flatten(1).to(context.device)

    def logits(self, context: Tensor, tokens: Tensor) -> Float[Tensor, "batch numbers bins"]:
        """Of every token; autoregressively, given those before it."""
        if self.decoding == "parallel":
            found: Tensor = self.out(context).float()
            return found.view(-1, self.numbers, self.bins.num_bins)
        written: Tensor = self.decoder(context, tokens)
        return written

    def loss(self, context: Tensor, actions: Tensor, rng: torch.Generator) -> Tensor:
        """Cross-entropy a token."""
        tokens = self.tokens(context, actions)
        return token_cross_entropy(self.logits(context, tokens), tokens, self.smoothing_bins)

    def sample(self, context: Tensor, rng: torch.Generator, *, greedy: bool = False) -> Tensor:
        """Bin centres."""
        if self.decoding == "parallel":
            tokens = _chosen(self.logits(context, context.new_zeros(0)), rng, greedy=greedy)
        else:
            tokens = torch.zeros((len(context), 0), dtype=torch.int64, device=context.device)
            for _ in range(self.numbers):
                last = self.decoder(context, tokens)[:, tokens.shape[1]]
                tokens = torch.cat([tokens, _chosen(last, rng, greedy=greedy)[:, None]], dim=1)
        actions = self.bins.decode(tokens.view(-1, self.length, self.dimensions).cpu().numpy())
        return torch.from_numpy(actions).to(context.device)

    @torch.no_grad()
    def uncertainty(self, context: Tensor, rng: torch.Generator) -> Tensor:
        """The tokens' mean entropy in nats; one after the other, given the likeliest before them."""
        written = context.new_zeros(0)
        if self.decoding == "autoregressive":
            written = self.tokens(context, self.sample(context, rng, greedy=True))
        log_p = self.logits(context, written).log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1).mean(1)

    @property
    def has_density(self) -> bool:
        """It has: constant within a bin."""
        return True

    def log_prob(self, context: Tensor, actions: Tensor) -> Tensor:
        """See `ActionHead`."""
        tokens = self.tokens(context, actions)
        log_p = self.logits(context, tokens).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        dimension = torch.arange(self.numbers, device=tokens.device) % self.dimensions
        return (log_p - self.widths[dimension, tokens].log()).sum(-1)


class FastHead(ActionHead):
    """A chunk's FAST tokens, one after the other.

    A chunk has a fixed number of coefficients, so its tokens end where they stand for that many: nothing marks the end, and while sampling,
    tokens that stand for more than is left are ruled out. Whatever is drawn decodes.
    """

    lengths: Tensor

    def __init__(
        self,
        context_size: int,
        length: int,
        contract: EmbodimentContract,
        *,
        tokenizer: FastTokenizer,
        width: int = 128,
        depth: int = 2,
    ) -> None:
        """
        Args:
            width, depth: of the decoder.

        Raises:
            DataError: a tokenizer for other chunks or bounds.
        """
        super().__init__(context_size, length, contract)
        bounds = np.array([tokenizer.low, tokenizer.high])
        if tokenizer.length != length or not np.allclose(bounds, [contract.action_low, contract.action_high]):
            raise DataError(f"this tokenizer is for chunks of {tokenizer.length} actions within {bounds.tolist()}")
        self.tokenizer = tokenizer
        self.register_buffer("lengths", torch.from_numpy(tokenizer.lengths), persistent=False)
        self.decoder = TokenDecoder(context_size, tokenizer.vocabulary, tokenizer.numbers, width=width, depth=depth)

    def loss(self, context: Tensor, actions: Tensor, rng: torch.Generator) -> Tensor:
        """Cross-entropy of a chunk's tokens, a number of the chunk: chunks of more tokens cost more, as they should."""
        tokens, there = self._tokens(context, actions)
        log_p = self._log_probabilities(context, tokens)
        return -log_p[there].sum() / (len(tokens) * self.tokenizer.numbers)

    def sample(self, context: Tensor, rng: torch.Generator, *, greedy: bool = False) -> Tensor:
        """What the drawn tokens stand for."""
        tokens = torch.zeros((len(context), 0), dtype=torch.int64, device=context.device)
        left = torch.full((len(context),), self.tokenizer.numbers, device=context.device)
        while bool((left > 0).any()):
            logits = self.decoder(context, tokens)[:, tokens.shape[1]]
            allowed = self.lengths <= left[:, None].clamp(min=1)
            drawn = _chosen(logits.masked_fill(~allowed, -torch.inf), rng, greedy=greedy)
            tokens = torch.cat([tokens, torch.where(left > 0, drawn, 0)[:, None]], dim=1)
            left = left - torch.where(left > 0, self.lengths[drawn], 0)
        return self._decoded(tokens)

    def _decoded(self, tokens: Tensor) -> Tensor:
        rows = []
        for row in tokens.tolist():
            ends = np.cumsum(self.tokenizer.lengths[row])
            rows.append(row[: int(np.searchsorted(ends, self.tokenizer.numbers)) + 1])
        return torch.from_numpy(self.tokenizer.decode(rows)).to(tokens.device)

    def _tokens(self, context: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Padded with 0, and which are real."""
        rows, _ = self.tokenizer.encode(self.checked(context, actions).cpu().numpy())
        most = max(map(len, rows))
        there = torch.tensor([[k < len(row) for k in range(most)] for row in rows], device=context.device)
        padded = torch.tensor([row + [0] * (most - len(row)) for row in rows], device=context.device)
        return padded, there

    def _log_probabilities(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Of each token, among those that fit into what is left."""
        logits = self.decoder(context, tokens)[:, : tokens.shape[1]]
        used = self.lengths[tokens].cumsum(1) - self.lengths[tokens]
        allowed = self.lengths <= (self.tokenizer.numbers - used)[..., None].clamp(min=1)
        return logits.masked_fill(~allowed, -torch.inf).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def bins_from_json(data: dict[str, Any], contract: EmbodimentContract) -> UniformBins | QuantileBins:
    """`{"num_bins": 256}` for uniform ones over the contract's bounds, `{"edges": [...]}` for fitted ones.

    Raises:
        DataError: anything else.
    """
    match data:
        case {"num_bins": int(number), **rest} if not rest:
            return UniformBins.from_contract(contract, number)
        case {"edges": list(edges), **rest} if not rest:
            return QuantileBins(tuple(tuple(map(float, one)) for one in edges))
        case _:
            raise DataError(f"bins are described by `num_bins` or `edges`, got {sorted(data)}")


def _edges_of(bins: UniformBins) -> np.ndarray:
    return np.linspace(bins.low, bins.high, bins.num_bins + 1).T


def _chosen(logits: Tensor, rng: torch.Generator, *, greedy: bool) -> Tensor:
    """Tokens (…,) of logits (…, V)."""
    if greedy:
        return logits.argmax(-1)
    flat = torch.multinomial(logits.softmax(-1).flatten(0, -2), 1, generator=rng)
    return flat.view(logits.shape[:-1])
