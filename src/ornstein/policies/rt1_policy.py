"""RT-1 as something that acts: history, checks, decoding; at either size."""

from __future__ import annotations

import copy
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ornstein.actions import ChunkExecution, UniformBins
from ornstein.core.errors import CheckpointError, DataError, UnknownNameError
from ornstein.language import UniversalSentenceEncoder
from ornstein.networks.sentence_reader import SENTENCE_SIZE
from ornstein.networks.weight_files import load_strictly
from ornstein.policies.observations import checked
from ornstein.policies.rt1 import ACTION_SIZE, RT1, RT1Config, as_floats, presence
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
    """Takes the likeliest action that the network can tell, step by step or in chunks. Remembers what the last few frames showed; `reset` before each episode.

    A network with a mode token may say that the task is done or that another part of the robot moves: then the arm stays where it is, its
    gripper as the action says, and `mode` tells.
    """

    def __init__(
        self,
        network: RT1 | PaperRT1,
        contract: EmbodimentContract,
        *,
        read: Callable[[Sequence[str], int], NDArray[np.float32]] | None = None,
        fingerprint: str = "untrained",
        provenance: Mapping[str, Any] | None = None,
        checkpoint_path: Path | None = None,
        execution: ChunkExecution | None = None,
        greedy: bool = True,
        seed: int = 0,
        refuse_below: float | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """
        Args:
            execution: of chunks; a new chunk at every step unless given. greedy: see `ActionHead.sample`. seed: of what is drawn, anew from
                each `reset` on.
            refuse_below: a probability. An instruction is refused where `found` is lower at its first step: then the arm stays where it is, and `trouble`
                says so. docs/rt1.md has the false alarms that go with a threshold.
            read: sentences and a number of pieces → vectors, as `UniversalSentenceEncoder.read`, which it is unless given.
            fingerprint, provenance, checkpoint_path: of the checkpoint, for reports and for workers that load it themselves.

        Raises:
            DataError: the network was built for another body than the contract's, or the execution for chunks of another length.
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
        length = 1
        if isinstance(network, PaperRT1):
            self._bins = UniformBins.from_contract(contract, network.config.num_bins)
        else:
            length = network.head.length
        self._execution = ChunkExecution(length) if execution is None else execution
        if self._execution.length != length:
            raise DataError(f"this RT-1 says {length} actions at a time, the execution takes {self._execution.length}")
        if refuse_below is not None and not isinstance(network, RT1):
            raise DataError("the published network's maps are not taught to point: it cannot tell what it does not see")
        self._greedy, self._seed, self._refuse_below = greedy, seed, refuse_below
        self._read = read or UniversalSentenceEncoder().read
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
            network, execution = _build(dict(checkpoint.config), checkpoint.contract)
        except (KeyError, TypeError, DataError, UnknownNameError) as error:
            raise CheckpointError(f"the configuration of {checkpoint.path} does not fit an RT-1: {error}") from error
        return cls(
            load_strictly(network, checkpoint),
            checkpoint.contract,
            fingerprint=checkpoint.fingerprint,
            provenance=checkpoint.provenance,
            checkpoint_path=checkpoint.path,
            execution=execution,
            device=device,
        )

    @property
    def mode(self) -> str:
        """What the last action's mode token said, one of `MODES`; "arm" without such a token."""
        return self._mode

    @property
    def found(self) -> float:
        """The probability that the last picture shows what the instruction speaks of: what is moved, and where to.

        Raises:
            DataError: nothing was seen since `reset`.
        """
        if not isinstance(self.network, RT1):
            raise DataError("the published network's maps are not taught to point: it cannot tell what it does not see")
        self.seen  # noqa: B018  looks, if nobody has
        return float(self._presence.prod())

    @property
    @torch.inference_mode()
    def doubt(self) -> float:
        """How unsure the last decision was, see `ActionHead.uncertainty`.

        Raises:
            DataError: nothing was decided since `reset`, or by a network without such a head.
        """
        if self._decided is None or not isinstance(self.network, RT1):
            raise DataError("no head has decided yet: call act first")
        return float(self.network.head.uncertainty(self._decided[None], torch.Generator(self.device).manual_seed(self._seed))[0])

    @property
    @torch.inference_mode()
    def seen(self) -> Tensor:
        """What the last picture showed, (tokens, channels).

        Raises:
            DataError: nothing was seen since `reset`.
        """
        if not self._pictures:
            raise DataError("nothing was seen yet: call act first")
        return self._look()[-1]

    def reset(self) -> None:
        """Forget the episode so far."""
        history = self.network.config.history
        self._pictures: deque[NDArray[np.uint8]] = deque(maxlen=history)
        self._states: deque[NDArray[np.float32]] = deque(maxlen=history)
        #: What the pictures showed to who had this instruction in mind: nothing is looked at twice.
        self._seen: deque[Tensor | None] = deque(maxlen=history)
        self._instruction: str | None = None
        self._words: Tensor | None = None
        self._mode = MODES[0]
        #: What keeps it from doing what it is told; "" if nothing.
        self.trouble = ""
        self._decided: Tensor | None = None
        self._execution = copy.copy(self._execution)  # a copy of this policy, once reset, shares nothing that changes
        self._execution.reset()
        self._rng = torch.Generator(self.device).manual_seed(self._seed)

    @torch.inference_mode()
    def act(self, observation: Observation) -> NDArray[np.float32]:
        """The next action, float32 (7,), within the contract's bounds.

        An empty instruction is allowed (it is a control in evaluations): its vector is zero.

        Raises:
            DataError: a camera, the state or the sentence is missing, of another size or type, or not finite. The history
                stays as it was.
        """
        (picture,), state, instruction = checked(observation, self._contract)
        new = False
        # Before the history grows: a refused sentence must not leave half a step behind.
        if self._words is None or instruction != self._instruction:
            self._words, self._instruction = self._read_sentence(instruction), instruction
            self.trouble = ""
            new = True
            for k in range(len(self._seen)):  # with another instruction in mind
                self._seen[k] = None
            self._execution.reset()
        self._seen.append(None)
        self._pictures.append(picture)
        self._states.append(state)
        if new and self._refuse_below is not None and self.found < self._refuse_below:
            self.trouble = "I do not see what I am asked for"
        if self.trouble:
            still = np.zeros(ACTION_SIZE, np.float32)
            still[-1] = state[-1]
            return still
        return self._execution.next(self._chunk() if self._execution.wants_chunk else None)

    def _chunk(self) -> NDArray[np.float32]:
        """The next actions, (length, 7)."""
        assert self._words is not None
        states = torch.from_numpy(np.stack(self._states)[None]).to(self.device)[..., : self.network.config.state_size]
        decided = self.network.decide(torch.stack(self._look())[None], self._words, states)[0, -1]
        if isinstance(self.network, RT1):
            self._decided = decided
            return self.network.head.sample(decided[None], self._rng, greedy=self._greedy)[0].cpu().numpy()
        action = self._bins.decode(decided[:ACTION_SIZE].argmax(-1).cpu().numpy())
        if self.network.config.has_mode:
            self._mode = MODES[int(decided[-1, : len(MODES)].argmax())]
            if self._mode != "arm":
                action[:-1] = 0.0
        return action[None]

    def _read_sentence(self, instruction: str) -> Tensor:
        pieces = self.network.config.word_pieces
        said = self._read([instruction], pieces) if instruction.strip() else np.zeros((1, 1 + pieces, SENTENCE_SIZE), np.float32)
        return self.network.read(torch.from_numpy(said).to(self.device))

    def _look(self) -> list[Tensor]:
        """What each remembered picture shows; only what was not seen yet is looked at."""
        assert self._words is not None
        for k, picture in enumerate(self._pictures):
            if self._seen[k] is None:
                tokens, maps = self.network.see(as_floats(torch.from_numpy(picture[None, None]).to(self.device))[0], self._words)
                self._seen[k] = tokens[0]
                if isinstance(self.network, RT1):
                    self._presence = presence(maps, self.network.nowhere(self._words))[0]
        return [tokens for tokens in self._seen if tokens is not None]


def _build(config: dict[str, Any], contract: EmbodimentContract) -> tuple[RT1 | PaperRT1, ChunkExecution | None]:
    if "variant" in config:
        return PaperRT1(PaperRT1Config(**config)), None
    config["channels"], config["blocks"] = tuple(config["channels"]), tuple(config["blocks"])
    head, execution = config.pop("head"), config.pop("execution")
    network = RT1(RT1Config(**config), head, contract)
    return network, ChunkExecution(network.head.length, **execution)
