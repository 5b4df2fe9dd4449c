"""RT-2, small (Zitkovich et al. 2023, "RT-2: Vision-Language-Action Models Transfer Web Knowledge to Robotic Control").

A vision-language model whose vocabulary has tokens for actions: what answers questions about pictures also moves the robot, by the same weights.

    picture ─▶ places ┐
    (arm state ─▶ one more, optional) ─┤◀─ decoder: "Q: what action should the robot take to …? A:" ─▶ places, seven action tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.actions.token_heads import soft_bins
from ornstein.core.errors import CheckpointError, DataError
from ornstein.language import TextTokenizer
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.networks.weight_files import load_strictly
from ornstein.policies.observations import checked
from ornstein.policies.robot_speech import RobotSpeech, Said
from ornstein.policies.rt1_arms import STATE_OCTAVES, state_waves, waves_of
from ornstein.policies.vision_language import TextTensors, VisionLanguageModel, padded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation
    from ornstein.language.text_tokenizer import ActionTokens


@dataclass(frozen=True)
class RT2Config(VisionLanguageConfig):
    """state_size: numbers of the arm's state that the decoder sees as one more place; 0 feeds none, as in the paper."""

    state_size: int = 7


class RT2Network(VisionLanguageNetwork):
    """A vision-language network that may also see a robot's state. Buffers standardise it over the training data."""

    config: RT2Config
    state_mean: Tensor
    state_std: Tensor

    def __init__(self, config: RT2Config) -> None:
        super().__init__(config)
        size = config.state_size
        self.state_in = nn.Linear(waves_of(size, STATE_OCTAVES), config.width) if size else None
        self.register_buffer("state_mean", torch.zeros(size))
        self.register_buffer("state_std", torch.ones(size))

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


def with_actions(model: VisionLanguageModel, *, bins: int, manner: ActionTokens, state_size: int) -> VisionLanguageModel:
    """The same model with tokens for actions, which mean nothing yet, and with an eye for the robot's state. All else answers as before.

    New parameters are drawn from torch's global generator: call it within `training.initialise`.

    Raises:
        DataError: see `TextTokenizer.with_actions`.
    """
    tokenizer = model.tokenizer.with_actions(bins, manner)
    known = {name: getattr(model.network.config, name) for name in VisionLanguageConfig.__dataclass_fields__}
    network = RT2Network(RT2Config(**{**known, "vocabulary": tokenizer.size}, state_size=state_size))
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
    """Cross-entropy a token of what a robot should say, over all tokens of the vocabulary.

    Args:
        seen: of `RT2Network.with_state`, one text each. smoothing_bins: standard deviation in bins of a Gaussian around an action's right bin that is aimed
            at: neighbours are nearly right. 0: the right bin alone.
    """
    wanted = texts.answered[:, 1:]
    logits = network.say(network.read(seen, texts.tokens[:, :-1])[wanted]).log_softmax(-1)
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
    return per_token.mean(), {"actions": per_token[acts].mean().detach(), "bins_off": off, "places_right": said}


class RT2Policy:
    """Says the likeliest places and action that its grammar allows, token after token, from one picture. `answer` answers questions."""

    def __init__(
        self,
        model: VisionLanguageModel,
        contract: EmbodimentContract,
        *,
        pointers: bool = True,
        fingerprint: str = "untrained",
        provenance: Mapping[str, Any] | None = None,
        checkpoint_path: Path | None = None,
    ) -> None:
        """
        Args:
            pointers: whether it says places before it acts. fingerprint, provenance, checkpoint_path: of the checkpoint, for reports and for workers that load
                it themselves.

        Raises:
            DataError: the contract is of another body, or the tokenizer has no action tokens.
        """
        config = model.network.config
        if not isinstance(model.network, RT2Network):
            raise DataError("this vision-language model was never taught to act")
        if len(contract.cameras) != 1 or {contract.cameras[0].height, contract.cameras[0].width} != {config.image_size}:
            raise DataError(f"this RT-2 sees one camera of {config.image_size} px, the contract has {contract.cameras}")
        if len(contract.state) < model.network.config.state_size:
            raise DataError(
                f"this RT-2 reads {model.network.config.state_size} numbers of the arm's state, the contract has {len(contract.state)}"
            )
        self.model, self.network, self._contract = model, model.network, contract
        self.speech = RobotSpeech(model.tokenizer, contract, pointers)
        self.fingerprint, self.checkpoint_path = fingerprint, checkpoint_path
        self.provenance: Mapping[str, Any] = provenance or {}
        self._device = next(model.parameters()).device
        self._may = torch.full((len(self.speech.pattern), model.tokenizer.size), False, device=self._device)
        for k, tokens in enumerate(self.speech.pattern):
            self._may[k, list(tokens)] = True
        self.reset()

    @property
    def contract(self) -> EmbodimentContract:
        """The body that it was trained on."""
        return self._contract

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> RT2Policy:
        """Load strictly.

        Raises:
            CheckpointError: no contract, or configuration or weights that do not fit.
        """
        if checkpoint.contract is None:
            raise CheckpointError(f"{checkpoint.path} has no contract.json: a policy cannot act without one")
        config = dict(checkpoint.config)
        try:
            tokenizer, pointers = TextTokenizer.from_json(config.pop("tokenizer")), bool(config.pop("pointers"))
            network = RT2Network(RT2Config(**config))
        except (KeyError, TypeError, DataError) as error:
            raise CheckpointError(f"the configuration of {checkpoint.path} does not fit an RT-2: {error}") from error
        load_strictly(network, checkpoint)
        network.eval().requires_grad_(requires_grad=False).to(device)
        return cls(
            VisionLanguageModel(network, tokenizer),
            checkpoint.contract,
            pointers=pointers,
            fingerprint=checkpoint.fingerprint,
            provenance=checkpoint.provenance,
            checkpoint_path=checkpoint.path,
        )

    def reset(self) -> None:
        """Forget the episode so far."""
        #: What it said last, in tokens and understood.
        self.tokens: list[int] = []
        self.said: Said | None = None
        #: The mean entropy of its action tokens in nats, over the tokens that may stand there: how unsure the last decision was.
        self.doubt = 0.0

    @torch.inference_mode()
    def act(self, observation: Observation) -> NDArray[np.float32]:
        """The next action, float32 (7,), within the contract's bounds.

        Raises:
            DataError: a camera, the state or the sentence is missing, of another size or type, or not finite; or a sentence too long for the context.
        """
        (picture,), state, instruction = checked(observation, self._contract)
        question = self.speech.question(instruction)
        room = self.network.config.context - len(question)
        if room < len(self.speech.pattern):
            raise DataError(
                f"the instruction makes {len(question)} tokens, which leaves {max(room, 0)} of {self.network.config.context} for an action of"
                f" {len(self.speech.pattern)}: say it shorter"
            )
        seen = self.network.see(torch.from_numpy(picture[None]).to(self._device))
        seen = self.network.with_state(seen, torch.from_numpy(state[None]).to(self._device))
        logits, cache = self.network.begin(seen, torch.tensor([question], device=self._device))
        tokens: list[int] = []
        doubts = []
        last = len(self.speech.pattern) - 2  # nothing but its end can follow
        for k, may in enumerate(self._may[:-1]):
            chances = logits.masked_fill(~may, -torch.inf).log_softmax(-1)[0]
            token = chances.argmax()
            tokens.append(int(token))
            if k > last - len(self._contract.action):
                allowed = chances[may]
                doubts.append(float(-(allowed.exp() * allowed).sum()))
            if k < last:
                logits, cache = self.network.go_on(token[None], cache)
        self.tokens, self.said, self.doubt = tokens, self.speech.understood(tokens), float(np.mean(doubts))
        return self.said.action
