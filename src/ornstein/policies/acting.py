"""What a vision-language network needs to act: an eye for the arm's state, an expert that decides by what the network said, adapters to learn with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ornstein.actions import ActionHead, build_head
from ornstein.core.checks import require_at_least, require_shares
from ornstein.core.errors import DataError
from ornstein.networks.speaking import SpeakingNetwork
from ornstein.networks.waves import waves_of
from ornstein.policies.adapters import add_adapters, merge_adapters
from ornstein.policies.robot_speech import POINTERS
from ornstein.policies.rt1_arms import STATE_OCTAVES, MLPArm, state_waves

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float, Int64

    from ornstein.core.contract import EmbodimentContract


@dataclass(frozen=True)
class ActingConfig:
    """state_size: numbers of the arm's state that the decoder sees as one more place; 0 feeds none, as in the paper.

    expert_width, expert_depth, expert_dropout: of the `MLPArm` that decides from what the model said and felt; a width of 0 is the paper's RT-2, which
    says its actions token by token. adapter_rank: of the `add_adapters` with which it learns to act; 0 once they are merged, and without.
    """

    state_size: int = 7
    expert_width: int = 0
    expert_depth: int = 2
    expert_dropout: float = 0.1
    adapter_rank: int = 0

    def __post_init__(self) -> None:
        require_at_least(0, state_size=self.state_size, expert_width=self.expert_width, adapter_rank=self.adapter_rank)
        require_at_least(1, expert_depth=self.expert_depth)
        require_shares(expert_dropout=self.expert_dropout)


class ActingNetwork(SpeakingNetwork):
    """Beside what speaks. Buffers standardise the state over the training data.

    With an expert, an arm of its own decides from what the network understood when it said its places, and nothing flows back into it (as in Driess et
    al. 2025, "Knowledge Insulating Vision-Language-Action Models"): it practises on what was said of each frame, computed once.
    """

    #: The parts whose layers get adapters.
    adapted: tuple[str, ...]
    state_in: nn.Linear | None
    state_mean: Tensor
    state_std: Tensor
    expert: MLPArm | None
    head: ActionHead | None

    def _add_parts(self, head: Mapping[str, Any] | None, contract: EmbodimentContract | None) -> None:
        """What comes after the parts that speak.

        Args:
            head: of the expert, see `ornstein.actions.describe_head`. contract: of the body that it moves.

        Raises:
            DataError: an expert without head or contract, or a head without expert.
        """
        config = self.acting
        size, width = config.state_size, self.config.width
        self.state_in = nn.Linear(waves_of(size, STATE_OCTAVES), width) if size else None
        self.register_buffer("state_mean", torch.zeros(size))
        self.register_buffer("state_std", torch.ones(size))
        if (config.expert_width > 0) != (head is not None and contract is not None):
            raise DataError("an RT-2 has an expert, with a head and a contract, or none of the three")
        self.expert = self.head = None
        if head is not None and contract is not None:
            self._add_expert(head, contract)
        if config.adapter_rank:
            add_adapters(self, self.adapted, config.adapter_rank)

    def _add_expert(self, head: Mapping[str, Any], contract: EmbodimentContract) -> None:
        config, width = self.acting, self.config.width
        sizes = config.state_size, config.expert_width, config.expert_depth, config.expert_dropout
        self.expert = MLPArm(width, POINTERS, width, *sizes)
        self.head = build_head(dict(head), config.expert_width, contract)

    @property
    def acting(self) -> ActingConfig:
        """Its configuration, of which this part is read here."""
        assert isinstance(self.config, ActingConfig)
        return self.config

    def add_expert(self, width: int, depth: int, dropout: float, head: Mapping[str, Any], contract: EmbodimentContract) -> None:
        """Give it a fresh one, whose parameters are drawn from torch's global generator; arguments as for `ActingConfig` and `_add_parts`."""
        changed = replace(self.acting, expert_width=width, expert_depth=depth, expert_dropout=dropout)
        self.config = changed  # type: ignore[assignment]
        self._add_expert(head, contract)

    def adapt(self, rank: int) -> None:
        """Add adapters, which alone then learn."""
        add_adapters(self, self.adapted, rank)
        self.config = replace(self.acting, adapter_rank=rank)  # type: ignore[assignment]

    def merge(self) -> None:
        """Let its layers be what they are with their adapters, if it has any."""
        if self.acting.adapter_rank:
            merge_adapters(self)
            self.config = replace(self.acting, adapter_rank=0)  # type: ignore[assignment]

    def understanding(self) -> list[nn.Module]:
        """The parts that what is understood depends on."""
        return [part for name, part in self.named_children() if name not in ("expert", "head", "aids")]

    @torch.no_grad()
    def understand(
        self,
        seen: Float[Tensor, "batch places width"],
        question: Int64[Tensor, "batch tokens"],
        columns: Sequence[int],
        rows: Sequence[int],
    ) -> tuple[Float[Tensor, "batch 3 more"], Int64[Tensor, "batch 4"]]:
        """It reads a question and says places, each the likeliest after those before; what is kept of it is what `decide` needs.

        Args:
            seen: see `with_state`. question: all of one length. columns, rows: the tokens of places, in their order.

        Returns:
            What the decoder had in mind after the question and after each place, (B, 1 + POINTERS, D + 2), with that place behind it, (column, row) in −1 … 1:
            the mean around the likeliest token, as places lie between them. And the tokens.
        """
        read, cache = self.follow(question, self.open(seen))
        understood = [torch.cat([read[:, -1].float(), read.new_zeros(len(read), 2).float()], dim=-1)]
        said = []
        for _ in range(POINTERS):
            place = []
            for axis in (columns, rows):
                tokens = torch.tensor(axis, device=read.device)
                logits = self.say(read[:, -1])[:, tokens]
                place.append(_around_likeliest(logits))
                said.append(tokens[logits.argmax(-1)])
                read, cache = self.follow(said[-1][:, None], cache)
            understood.append(torch.cat([read[:, -1].float(), torch.stack(place, dim=-1)], dim=-1))
        return torch.stack(understood, dim=1), torch.stack(said, dim=1)

    def decide(
        self,
        understood: Float[Tensor, "batch frames 3 more"],
        words: Float[Tensor, "batch nothing"],
        state: Float[Tensor, "batch frames state"],
    ) -> Float[Tensor, "batch frames width"]:
        """The vector that the expert's head makes an action of.

        Args:
            understood: see `understand`. words: not read; what was read is in `understood`.
        """
        assert self.expert is not None
        standard = (state[..., : self.acting.state_size] - self.state_mean) / self.state_std
        read: Tensor = self.expert(understood[:, :, 1:], understood[:, 0, 0, :-2], standard)
        return read.float()

    def with_state(self, seen: Tensor, state: Tensor) -> Tensor:
        """What a picture shows, and what the robot feels.

        Args:
            seen: of `see`, (B, N, D). state: (B, S), in the contract's units; more numbers than `state_size` are left out.

        Returns:
            (B, N + 1, D); `seen` itself where the network reads no state.
        """
        if self.state_in is None:
            return seen
        standard = (state[:, : self.acting.state_size] - self.state_mean) / self.state_std
        felt = self.state_in(state_waves(standard))
        return torch.cat([seen, felt[:, None].to(seen.dtype)], dim=1)


def _around_likeliest(logits: Float[Tensor, "batch places"]) -> Float[Tensor, " batch"]:
    """The mean of the likeliest place and its neighbours, in −1 … 1."""
    places = torch.arange(logits.shape[-1], device=logits.device)
    near = (places - logits.argmax(-1, keepdim=True)).abs() <= 1
    weights = logits.float().masked_fill(~near, -torch.inf).softmax(-1)
    return weights @ ((places + 0.5) / logits.shape[-1] * 2 - 1)
