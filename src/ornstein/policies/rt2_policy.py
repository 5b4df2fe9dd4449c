"""RT-2 as something that acts: it says places and an action, or leaves the action to its expert, and answers questions by the same model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ornstein.core.errors import CheckpointError, DataError, UnknownNameError
from ornstein.data.plans import plan_question
from ornstein.language import TextTokenizer
from ornstein.networks.weight_files import load_strictly
from ornstein.policies.acting import ActingNetwork
from ornstein.policies.observations import checked
from ornstein.policies.robot_speech import POINTERS, RobotSpeech, Said
from ornstein.policies.rt2 import acting_network
from ornstein.policies.vision_language import VisionLanguageModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation


class RT2Policy:
    """Says the likeliest places and action that its grammar allows, token after token, from one picture; with an expert it says places, and the expert
    decides. `model` answers questions."""

    def __init__(
        self,
        model: VisionLanguageModel,
        contract: EmbodimentContract,
        *,
        pointers: bool = True,
        thinks: bool = False,
        fingerprint: str = "untrained",
        provenance: Mapping[str, Any] | None = None,
        checkpoint_path: Path | None = None,
    ) -> None:
        """
        Args:
            pointers: whether it says places before it acts. thinks: whether it first says an instruction in plain words (`plan`), and follows those.
            fingerprint, provenance, checkpoint_path: of the checkpoint, for reports and for workers that load
                it themselves.

        Raises:
            DataError: the contract is of another body, the tokenizer has no action tokens, or an expert would hear no places.
        """
        config = model.network.config
        if not isinstance(model.network, ActingNetwork):
            raise DataError("this vision-language model was never taught to act")
        if len(contract.cameras) != 1 or {contract.cameras[0].height, contract.cameras[0].width} != {config.image_size}:
            raise DataError(f"this RT-2 sees one camera of {config.image_size} px, the contract has {contract.cameras}")
        if len(contract.state) < model.network.acting.state_size:
            raise DataError(
                f"this RT-2 reads {model.network.acting.state_size} numbers of the arm's state, the contract has {len(contract.state)}"
            )
        if model.network.expert is not None and not pointers:
            raise DataError("an expert decides by the places that were said: this RT-2 says none")
        self.model, self.network, self._contract = model, model.network, contract
        self.speech = RobotSpeech(model.tokenizer, contract, pointers)
        self.thinks, self.fingerprint, self.checkpoint_path = thinks, fingerprint, checkpoint_path
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
            head = config.pop("head", None)
            network = acting_network(config, head, None if head is None else checkpoint.contract)
        except (KeyError, TypeError, DataError, UnknownNameError) as error:
            raise CheckpointError(f"the configuration of {checkpoint.path} does not fit an RT-2: {error}") from error
        load_strictly(network, checkpoint)
        network.merge()
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
        self._told: str | None = None
        #: The instruction in its own words, if it thinks and one was given.
        self.plan = ""
        #: What it said last, in tokens and understood.
        self.tokens: list[int] = []
        self.said: Said | None = None
        #: What its expert decided by, see `ActingNetwork.understand`.
        self.seen = torch.zeros(0)
        #: The mean entropy of its action tokens in nats, over the tokens that may stand there: how unsure the last decision was.
        self.doubt = 0.0

    @torch.inference_mode()
    def act(self, observation: Observation) -> NDArray[np.float32]:
        """The next action, float32 (7,), within the contract's bounds.

        Raises:
            DataError: a camera, the state or the sentence is missing, of another size or type, or not finite; or a sentence too long for the context.
        """
        (picture,), state, instruction = checked(observation, self._contract)
        question = self.speech.question(self._thought(picture, instruction))
        room = self.network.config.context - len(question)
        if room < len(self.speech.pattern):
            raise DataError(
                f"the instruction makes {len(question)} tokens, which leaves {max(room, 0)} of {self.network.config.context} for an action of"
                f" {len(self.speech.pattern)}: say it shorter"
            )
        seen = self.network.see(torch.from_numpy(picture[None]).to(self._device))
        felt = torch.from_numpy(state[None]).to(self._device)
        seen = self.network.with_state(seen, felt)
        asked = torch.tensor([question], device=self._device)
        return self._by_tokens(seen, asked) if self.network.expert is None else self._by_expert(seen, asked, felt)

    def _thought(self, picture: NDArray[np.uint8], instruction: str) -> str:
        """What it follows: the instruction, or what it made of it when it first heard it."""
        if not self.thinks or not instruction.strip():
            return instruction
        if instruction != self._told:
            (answer,) = self.model.answer(picture[None], [plan_question(instruction)])
            # What did not come to an end is no sentence.
            self._told, self.plan = instruction, answer.text if answer.whole else ""
        return self.plan or instruction

    def _by_expert(self, seen: Tensor, asked: Tensor, felt: Tensor) -> NDArray[np.float32]:
        assert self.network.head is not None
        understood, tokens = self.network.understand(seen, asked, *self.speech.places)
        self.seen = understood[0]
        decided = self.network.decide(understood[:, None], felt.new_zeros(1, 0), felt[:, None])[:, 0]
        rng = torch.Generator(self._device).manual_seed(0)
        action: NDArray[np.float32] = self.network.head.sample(decided, rng, greedy=True)[0, 0].cpu().numpy()
        pointers = understood[0, 1:, -2:].cpu().numpy()
        self.tokens = [*tokens[0].tolist(), *self.speech.answer(action, pointers)[2 * POINTERS : -1]]
        self.said, self.doubt = Said(action, pointers), float(self.network.head.uncertainty(decided, rng)[0])
        return action

    def _by_tokens(self, seen: Tensor, asked: Tensor) -> NDArray[np.float32]:
        logits, cache = self.network.begin(seen, asked)
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
