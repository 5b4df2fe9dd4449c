"""RT-1 as something that acts: history, checks, decoding; at either size."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ornstein.actions import UniformBins
from ornstein.core.errors import CheckpointError, DataError
from ornstein.language import UniversalSentenceEncoder
from ornstein.networks.film_convnet import SENTENCE_SIZE
from ornstein.policies.observations import checked
from ornstein.policies.rt1 import ACTION_SIZE, RT1, RT1Config, as_floats
from ornstein.policies.rt1_paper import MODES, PaperRT1, PaperRT1Config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ornstein.core.checkpoint import Checkpoint
    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation


class RT1Policy:
    """Takes the bin of each dimension around which most probability lies. Remembers what the last few frames showed; `reset` before each episode.

    A network with a mode token may say that the task is done or that another part of the robot moves: then the arm stays where it is, its
    gripper as the action says, and `mode` tells.
    """

    def __init__(
        self,
        network: RT1 | PaperRT1,
        contract: EmbodimentContract,
        *,
        encode: Callable[[Sequence[str]], NDArray[np.float32]] | None = None,
        fingerprint: str = "untrained",
        provenance: Mapping[str, Any] | None = None,
        checkpoint_path: Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """
        Args:
            encode: sentences → vectors (N, 512); the Universal Sentence Encoder unless given.
            fingerprint, provenance, checkpoint_path: of the checkpoint, for reports and for workers that load it themselves.

        Raises:
            DataError: the network was built for another body than the contract's.
        """
        if len(contract.cameras) != 1 or {contract.cameras[0].height, contract.cameras[0].width} != {network.config.image_size}:
            raise DataError(f"this RT-1 sees one camera of {network.config.image_size} px, the contract has {contract.cameras}")
        if len(contract.action) != ACTION_SIZE or len(contract.state) < network.config.state_size:
            raise DataError(
                f"this RT-1 gives {ACTION_SIZE} numbers and reads {network.config.state_size} of the arm's state, the contract has"
                f" {len(contract.action)} and {len(contract.state)}"
            )
        self._contract = contract
        self.network = network.to(device).eval()
        self.device = torch.device(device)
        self.fingerprint, self.checkpoint_path = fingerprint, checkpoint_path
        self.provenance: Mapping[str, Any] = provenance or {}
        self._bins = UniformBins.from_contract(contract, network.config.num_bins)
        self._encode = encode or UniversalSentenceEncoder().encode
        self.reset()

    @property
    def contract(self) -> EmbodimentContract:
        """The body that it was trained on."""
        return self._contract

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> RT1Policy:
        """Load strictly.

        Raises:
            CheckpointError: no contract, or configuration or weights that do not fit.
        """
        if checkpoint.contract is None:
            raise CheckpointError(f"{checkpoint.path} has no contract.json: a policy cannot act without one")
        try:
            network = _build(dict(checkpoint.config))
        except (KeyError, TypeError, DataError) as error:
            raise CheckpointError(f"the configuration of {checkpoint.path} does not fit an RT-1: {error}") from error
        tensors = {name: torch.as_tensor(value) for name, value in checkpoint.tensors().items()}
        try:
            network.load_state_dict(tensors, strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"the weights in {checkpoint.path} do not fit their configuration: {error}") from error
        return cls(
            network,
            checkpoint.contract,
            fingerprint=checkpoint.fingerprint,
            provenance=checkpoint.provenance,
            checkpoint_path=checkpoint.path,
            device=device,
        )

    @property
    def mode(self) -> str:
        """What the last action's mode token said, one of `MODES`; "arm" without such a token."""
        return self._mode

    def reset(self) -> None:
        """Forget the episode so far."""
        history = self.network.config.history
        self._pictures: deque[NDArray[np.uint8]] = deque(maxlen=history)
        self._states: deque[NDArray[np.float32]] = deque(maxlen=history)
        #: What the pictures showed to who had this instruction in mind: nothing is looked at twice.
        self._seen: deque[Tensor] = deque(maxlen=history)
        self._instruction: str | None = None
        self._words: Tensor | None = None
        self._mode = MODES[0]

    @torch.inference_mode()
    def act(self, observation: Observation) -> NDArray[np.float32]:
        """The next action, float32 (7,), within the contract's bounds.

        An empty instruction is allowed (it is a control in evaluations): its vector is zero.

        Raises:
            DataError: a camera, the state or the sentence is missing, of another size or type, or not finite. The history
                stays as it was.
        """
        (picture,), state, instruction = checked(observation, self._contract)
        # Before the history grows: a refused sentence must not leave half a step behind.
        words = self._words
        if words is None or instruction != self._instruction:
            words = self._read_sentence(instruction)
            again = [self._see(old, words) for old in self._pictures]
            self._seen.clear()
            self._seen.extend(again)
            self._words, self._instruction = words, instruction
        self._seen.append(self._see(picture, words))
        self._pictures.append(picture)
        self._states.append(state)
        states = torch.from_numpy(np.stack(self._states)[None]).to(self.device)[..., : self.network.config.state_size]
        logits = self.network.decide(torch.stack(list(self._seen))[None], words, states)[0, -1]
        width = 0.0 if isinstance(self.network, PaperRT1) else self.network.config.decoding_width
        probabilities = logits[:ACTION_SIZE].softmax(-1).cpu().numpy()
        action = self._bins.decode(self._bins.likeliest(probabilities, width))
        if isinstance(self.network, PaperRT1) and self.network.config.has_mode:
            self._mode = MODES[int(logits[-1, : len(MODES)].argmax())]
            if self._mode != "arm":
                action[:-1] = 0.0
        return action

    def _read_sentence(self, instruction: str) -> Tensor:
        said = self._encode([instruction]) if instruction.strip() else np.zeros((1, SENTENCE_SIZE), np.float32)
        return self.network.read(torch.from_numpy(said).to(self.device))

    def _see(self, picture: NDArray[np.uint8], words: Tensor) -> Tensor:
        tokens, _ = self.network.see(as_floats(torch.from_numpy(picture[None, None]).to(self.device))[0], words)
        return tokens[0]


def _build(config: dict[str, Any]) -> RT1 | PaperRT1:
    if "variant" in config:
        return PaperRT1(PaperRT1Config(**config))
    config["channels"], config["blocks"] = tuple(config["channels"]), tuple(config["blocks"])
    return RT1(RT1Config(**config))
