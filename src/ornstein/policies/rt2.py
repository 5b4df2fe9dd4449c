"""RT-2, small (Zitkovich et al. 2023, "RT-2: Vision-Language-Action Models Transfer Web Knowledge to Robotic Control").

A vision-language model whose vocabulary has tokens for actions: what answers questions about pictures also moves the robot, by the same weights.

    picture ─▶ places ┐
    (arm state ─▶ one more, optional) ─┤◀─ decoder: "Q: what action should the robot take to …? A:" ─▶ places, seven action tokens
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.actions import build_head
from ornstein.actions.token_heads import soft_bins
from ornstein.core.checks import require_at_least, require_shares
from ornstein.core.errors import DataError
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.networks.waves import waves_of
from ornstein.policies.adapters import add_adapters, merge_adapters
from ornstein.policies.looking import looking_loss
from ornstein.policies.robot_speech import POINTERS, RobotSpeech
from ornstein.policies.rt1_arms import STATE_OCTAVES, MLPArm, state_waves
from ornstein.policies.texts import TextTensors, padded
from ornstein.policies.vision_language import VisionLanguageModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from jaxtyping import Float, Int64
    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract
    from ornstein.language.text_tokenizer import ActionTokens


#: The parts whose layers get adapters.
ADAPTED = ("vision", "blocks")


@dataclass(frozen=True)
class RT2Config(VisionLanguageConfig):
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
        super().__post_init__()
        require_at_least(0, state_size=self.state_size, expert_width=self.expert_width, adapter_rank=self.adapter_rank)
        require_at_least(1, expert_depth=self.expert_depth)
        require_shares(expert_dropout=self.expert_dropout)


class RT2Network(VisionLanguageNetwork):
    """A vision-language network that may also see a robot's state. Buffers standardise it over the training data.

    With an expert, an arm of its own decides from what the model understood when it said its places, and nothing flows back into the model (as in Driess
    et al. 2025, "Knowledge Insulating Vision-Language-Action Models"): it practises on what was said of each frame, computed once.
    """

    config: RT2Config
    state_mean: Tensor
    state_std: Tensor

    def __init__(
        self, config: RT2Config, head: Mapping[str, Any] | None = None, contract: EmbodimentContract | None = None
    ) -> None:
        """
        Args:
            head: of the expert, see `ornstein.actions.describe_head`. contract: of the body that it moves.

        Raises:
            DataError: an expert without head or contract, or a head without expert.
        """
        super().__init__(config)
        size = config.state_size
        self.state_in = nn.Linear(waves_of(size, STATE_OCTAVES), config.width) if size else None
        self.register_buffer("state_mean", torch.zeros(size))
        self.register_buffer("state_std", torch.ones(size))
        if (config.expert_width > 0) != (head is not None and contract is not None):
            raise DataError("an RT-2 has an expert, with a head and a contract, or none of the three")
        self.expert = self.head = None
        if head is not None and contract is not None:
            self.expert = MLPArm(
                config.width, POINTERS, config.width, size, config.expert_width, config.expert_depth, config.expert_dropout
            )
            self.head = build_head(dict(head), config.expert_width, contract)
        if config.adapter_rank:
            add_adapters(self, ADAPTED, config.adapter_rank)

    def adapt(self, rank: int) -> None:
        """Add adapters, which alone then learn."""
        add_adapters(self, ADAPTED, rank)
        self.config = replace(self.config, adapter_rank=rank)

    def merge(self) -> None:
        """Let its layers be what they are with their adapters, if it has any."""
        if self.config.adapter_rank:
            merge_adapters(self)
            self.config = replace(self.config, adapter_rank=0)

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
        read, cache = self._run(question, self._empty(seen))
        understood = [torch.cat([read[:, -1].float(), read.new_zeros(len(read), 2).float()], dim=-1)]
        said = []
        for _ in range(POINTERS):
            place = []
            for axis in (columns, rows):
                tokens = torch.tensor(axis, device=read.device)
                logits = self.say(read[:, -1])[:, tokens]
                place.append(_around_likeliest(logits))
                said.append(tokens[logits.argmax(-1)])
                read, cache = self._run(said[-1][:, None], cache)
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
        standard = (state[..., : self.config.state_size] - self.state_mean) / self.state_std
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
        standard = (state[:, : self.config.state_size] - self.state_mean) / self.state_std
        felt = self.state_in(state_waves(standard))
        return torch.cat([seen, felt[:, None].to(seen.dtype)], dim=1)


def _around_likeliest(logits: Float[Tensor, "batch places"]) -> Float[Tensor, " batch"]:
    """The mean of the likeliest place and its neighbours, in −1 … 1."""
    places = torch.arange(logits.shape[-1], device=logits.device)
    near = (places - logits.argmax(-1, keepdim=True)).abs() <= 1
    weights = logits.float().masked_fill(~near, -torch.inf).softmax(-1)
    return weights @ ((places + 0.5) / logits.shape[-1] * 2 - 1)


def with_expert(
    speaking: RT2Network, width: int, depth: int, dropout: float, head: Mapping[str, Any], contract: EmbodimentContract
) -> RT2Network:
    """The same network with a fresh expert, whose parameters are drawn from torch's global generator."""
    config = replace(speaking.config, expert_width=width, expert_depth=depth, expert_dropout=dropout)
    network = RT2Network(config, head, contract)
    network.load_state_dict({**network.state_dict(), **speaking.state_dict()})
    return network


def with_actions(model: VisionLanguageModel, *, bins: int, manner: ActionTokens, state_size: int) -> VisionLanguageModel:
    """The same model with tokens for actions, which mean nothing yet, and with an eye for the robot's state. All else answers as before.

    New parameters are drawn from torch's global generator: call it within `training.initialise`.

    Raises:
        DataError: see `TextTokenizer.with_actions`.
    """
    tokenizer = model.tokenizer.with_actions(bins, manner)
    known = {name: getattr(model.network.config, name) for name in VisionLanguageConfig.__dataclass_fields__}
    network = RT2Network(RT2Config(**{**known, "vocabulary": tokenizer.size}, state_size=state_size))
    network.order_tokens(tokenizer.actions)
    weights = model.network.state_dict()
    fresh = network.tokens_in.weight.detach().clone()
    rows = len(weights["tokens_in.weight"])
    fresh[:rows] = weights["tokens_in.weight"]
    # An overwritten token's old meaning goes.
    fresh[list(tokenizer.actions)] = network.tokens_in.weight.detach()[list(tokenizer.actions)]
    network.load_state_dict({**network.state_dict(), **weights, "tokens_in.weight": fresh})
    return VisionLanguageModel(network, tokenizer)


def robot_texts(
    speech: RobotSpeech,
    instructions: Sequence[str],
    actions: NDArray[np.floating],
    pointers: NDArray[np.floating],
) -> TextTensors:
    """What robots are told and should do, padded, as `speech_loss` takes it.

    Args:
        actions: (B, 7). pointers: (B, 2, 2).
    """
    said = zip(instructions, actions, pointers, strict=True)
    return padded([(speech.question(told), speech.answer(action, places)) for told, action, places in said], speech.tokenizer.pad)


def pointing_texts(
    speech: RobotSpeech, instructions: Sequence[Sequence[str]], pointers: Sequence[NDArray[np.floating]]
) -> TextTensors:
    """What robots are told about stills, of which nobody knows what to do, but where: the first part of what they should say.

    Args:
        instructions: of each still, as many as there are; shorter lists are filled up with texts of nothing, which no loss counts. pointers: of each still,
            (instructions, 2, 2).
    """
    most = max(len(told) for told in instructions)
    said: list[tuple[list[int], list[int]]] = []
    for told, places in zip(instructions, pointers, strict=True):
        said += [(speech.question(one), speech.where(where)) for one, where in zip(told, places, strict=True)]
        said += [([], [])] * (most - len(told))
    return padded(said, speech.tokenizer.pad)


def speech_loss(
    network: RT2Network, speech: RobotSpeech, seen: Tensor, texts: TextTensors, smoothing_bins: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy a token of what a robot should say, over all tokens of the vocabulary, with `looking_loss`.

    Args:
        seen: of `RT2Network.with_state`, one text each. smoothing_bins: standard deviation in bins of a Gaussian around an action's right bin that is aimed
            at: neighbours are nearly right. 0: the right bin alone.
    """
    wanted = texts.answered[:, 1:]
    read, looks = network.read_and_look(seen, texts.tokens[:, :-1])
    logits = network.say(read[wanted]).log_softmax(-1)
    right = texts.tokens[:, 1:][wanted]
    actions = torch.tensor(speech.tokenizer.actions, device=right.device)
    number = torch.full((speech.tokenizer.size,), -1, device=right.device)
    number[actions] = torch.arange(len(actions), device=right.device)
    bins = number[right]
    acts = bins >= 0
    per_token = torch.empty(len(right), device=right.device)
    per_token[~acts] = functional.nll_loss(logits[~acts], right[~acts], reduction="none")
    soft = soft_bins(bins[acts], len(actions), smoothing_bins)
    per_token[acts] = -(soft * logits[acts][:, actions]).sum(-1)
    with torch.no_grad():
        off = (logits[acts][:, actions].argmax(-1) - bins[acts]).abs().float().mean()
        said = (logits[~acts].argmax(-1) == right[~acts]).float().mean()
    looking, log = looking_loss(looks, texts, speech.places)
    return per_token.mean() + looking, {**log, "actions": per_token[acts].mean().detach(), "bins_off": off, "places_right": said}
