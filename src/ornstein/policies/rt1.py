"""RT-1, small (Brohan et al. 2022, "RT-1: Robotics Transformer for Real-World Control at Scale").

    picture ─▶ FiLM convolutions ─▶ TokenLearner ─▶ K tokens ┐
    sentence ─▶ one vector ───┘                              ├─ causal transformer over a short history, or an MLP ─▶ action head
    (arm state, sentence; optional) ────────────────────────┘

In the paper, the seven dimensions of an action are classified in parallel, from one readout a frame; here any head of `ornstein.actions` reads
it. Seeing (`see`) and deciding (`decide`) can be trained apart: an arm needs many times more practice than an eye, and it is many times cheaper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ornstein.actions import build_head
from ornstein.assets.tabletop import language
from ornstein.core.checks import require_at_least, require_multiples, require_shares
from ornstein.core.errors import DataError, unknown_name
from ornstein.networks.film_convnet import DOWNSAMPLING, NORM_GROUPS, FiLMConvNet, TokenLearner
from ornstein.networks.sentence_reader import SENTENCE_SIZE, SentenceReader
from ornstein.policies.rt1_arms import MLPArm, TransformerArm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, UInt8

    from ornstein.core.contract import EmbodimentContract

ACTION_SIZE = 7
#: The first tokens' maps may be taught to point: at what is moved, and at where it goes.
POINTERS = 2

_THING_SIZE = 64


@dataclass(frozen=True)
class RT1Config:
    """Sizes of the network.

    image_size: side of the square picture in pixels. history: frames that an action depends on, at most.
    channels, blocks: of the convolutional network at a quarter and an eighth of the resolution.
    arm: what decides, a transformer over the history as in the paper, or an MLP over one frame. width, depth: of it; heads: of the transformer.
    dropout: in an MLP's layers, see `MLPArm`.
    tokens: a frame. state_size: numbers of the arm's state that it reads too; 0 reads none, as in the paper.
    language_token: whether it reads the sentence too; in the paper it comes through FiLM alone.
    language_width: numbers that stand for a sentence. word_pieces: the most that are read one by one; 0 reads the sentence's vector alone, as
    in the paper (see `SentenceReader`).
    """

    image_size: int = 128
    history: int = 1
    channels: tuple[int, int] = (32, 64)
    blocks: tuple[int, int] = (1, 3)
    tokens: int = 4
    arm: Literal["transformer", "mlp"] = "transformer"
    width: int = 128
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    state_size: int = 7
    language_token: bool = True
    language_width: int = 128
    word_pieces: int = 24

    def __post_init__(self) -> None:
        channels = {f"channels[{k}]": number for k, number in enumerate(self.channels)}
        require_multiples(NORM_GROUPS, "normalised in groups", channels)
        require_multiples(DOWNSAMPLING, "the convolutions make it so many times smaller", {"image_size": self.image_size})
        require_at_least(1, history=self.history, depth=self.depth, heads=self.heads)
        require_at_least(POINTERS, tokens=self.tokens)
        require_multiples(self.heads, "the number of heads", {"width": self.width})
        require_at_least(0, **{f"blocks[{k}]": number for k, number in enumerate(self.blocks)})
        require_at_least(0, state_size=self.state_size, word_pieces=self.word_pieces)
        require_at_least(1, language_width=self.language_width)
        require_shares(dropout=self.dropout)
        if self.arm not in ("transformer", "mlp"):
            raise unknown_name("arm", self.arm, ("transformer", "mlp"))
        if self.arm == "mlp" and self.history > 1:
            raise DataError(
                f"an MLP decides from one frame: got a history of {self.history}; give --network.history 1, or another arm"
            )


class TrainingAids(nn.Module):
    """What losses read from the network besides actions; nothing of it is used when acting."""

    def __init__(self, channels: int, language_width: int) -> None:
        super().__init__()
        #: The moved thing's heading, from the first token.
        self.heading = nn.Linear(channels, 2)
        #: What a sentence moves and where to, as the sentence encoder's vectors of their names.
        self.naming = nn.Linear(language_width, POINTERS * SENTENCE_SIZE)
        #: How: names do not tell "near" from "onto".
        self.skill = nn.Linear(language_width, len(language()["skills"]))
        #: What lies where: features at a place, and the encoder's vector of a name, brought together.
        self.thing, self.name = nn.Linear(channels, _THING_SIZE), nn.Linear(SENTENCE_SIZE, _THING_SIZE)


class FrameByFrame(nn.Module, ABC):
    """What RT-1 is at any size: it reads the sentence, sees each picture by itself, and decides from what the last few showed."""

    def forward(
        self,
        pictures: UInt8[Tensor, "batch frames height width 3"] | Float[Tensor, "batch frames 3 height width"],
        sentence: Float[Tensor, "batch texts 512"],
        state: Float[Tensor, "batch frames state"] | None = None,
    ) -> tuple[Float[Tensor, "batch frames ..."], Float[Tensor, "batch frames tokens cells"]]:
        """What is decided at every frame, and the logits of TokenLearner's maps.

        Args:
            pictures: uint8 with channels last, or floats in [0, 1] with channels first; at most `history` frames, oldest first.
            sentence: the encoder's vector of the whole, then those of its word pieces, if the network reads any.
            state: the arm's state at each frame, in the contract's units, for a network that reads it.
        """
        if pictures.dtype == torch.uint8:
            pictures = as_floats(pictures)
        batch, frames = pictures.shape[:2]
        words_BW = self.read(sentence)
        tokens_NKC, maps_NKP = self.see(pictures.flatten(0, 1), words_BW.repeat_interleave(frames, dim=0))
        decided = self.decide(tokens_NKC.view(batch, frames, *tokens_NKC.shape[1:]), words_BW, state)
        return decided, maps_NKP.view(batch, frames, *maps_NKP.shape[1:])

    @abstractmethod
    def read(self, sentence: Float[Tensor, "batch texts 512"]) -> Float[Tensor, "batch language"]:
        """One vector a sentence, as the others take it."""

    @abstractmethod
    def see(
        self, pictures: Float[Tensor, "batch 3 height width"], words: Float[Tensor, "batch language"]
    ) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch tokens cells"]]:
        """TokenLearner's tokens and the logits of its maps; `words` is what was read of the sentence."""

    @abstractmethod
    def decide(
        self,
        tokens: Float[Tensor, "batch frames tokens channels"],
        words: Float[Tensor, "batch language"],
        state: Float[Tensor, "batch frames state"] | None = None,
    ) -> Float[Tensor, "batch frames ..."]:
        """From what was seen and read: logits of every frame's action, or the vector that a head makes it of."""


class RT1(FrameByFrame):
    """The network. Buffers standardise sentence vectors and arm states over the training data.

    head: makes actions of what `decide` gives, see `ornstein.actions.ActionHead`.
    """

    #: The parts that read and see; the others decide.
    EYES = ("reader", "nowhere", "vision", "token_learner", "aids")

    state_mean: Tensor
    state_std: Tensor

    def __init__(self, config: RT1Config, head: Mapping[str, Any], contract: EmbodimentContract) -> None:
        """
        Args:
            head: its description, see `ornstein.actions.describe_head`. contract: of the body that it moves.

        Raises:
            DataError: a description that does not fit. UnknownNameError: no such kind of head.
        """
        super().__init__()
        self.config = config
        self.reader = SentenceReader(config.language_width, config.word_pieces)
        self.vision = FiLMConvNet(config.channels, config.blocks, config.language_width)
        grid = config.image_size // DOWNSAMPLING
        self.token_learner = TokenLearner(self.vision.out_channels, config.tokens, grid, config.language_width, POINTERS)
        #: How much each pointer is asked to point nowhere: what the sentence speaks of may not be there.
        self.nowhere = nn.Linear(config.language_width, POINTERS)
        self.aids = TrainingAids(self.vision.out_channels, config.language_width)
        self.arm = _arm(config, self.vision.out_channels)
        self.head = build_head(dict(head), config.width, contract)
        self.register_buffer("state_mean", torch.zeros(config.state_size))
        self.register_buffer("state_std", torch.ones(config.state_size))

    def read(self, sentence: Float[Tensor, "batch texts 512"]) -> Float[Tensor, "batch language"]:
        """See `SentenceReader`."""
        words: Tensor = self.reader(sentence)
        return words

    def see(
        self, pictures: Float[Tensor, "batch 3 height width"], words: Float[Tensor, "batch language"]
    ) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch tokens cells"]]:
        """The tokens end with their places."""
        tokens, maps = self.token_learner(self.vision(pictures, words), words)
        return tokens, maps

    def decide(
        self,
        tokens: Float[Tensor, "batch frames tokens channels"],
        words: Float[Tensor, "batch language"],
        state: Float[Tensor, "batch frames state"] | None = None,
    ) -> Float[Tensor, "batch frames width"]:
        """The vector that the head makes every frame's action of."""
        if not self.config.state_size:
            state = tokens.new_zeros(*tokens.shape[:2], 0)
        elif state is None:
            raise DataError(f"this RT-1 reads {self.config.state_size} numbers of the arm's state: give them")
        else:
            state = (state - self.state_mean) / self.state_std
        read_BTD: Tensor = self.arm(tokens, words, state)
        return read_BTD.float()


def _arm(config: RT1Config, channels: int) -> TransformerArm | MLPArm:
    words = config.language_width if config.language_token else 0
    if config.arm == "mlp":
        return MLPArm(channels, config.tokens, words, config.state_size, config.width, config.depth, config.dropout)
    return TransformerArm(
        channels, config.tokens, words, config.state_size, config.width, config.depth, config.heads, config.history
    )


def presence(
    maps: Float[Tensor, "batch tokens cells"], nowhere: Float[Tensor, "batch pointers"]
) -> Float[Tensor, "batch pointers"]:
    """The probability that what each pointer should point at is there at all.

    Args:
        maps: logits of all maps, the pointers' first. nowhere: the logits of its absence, `RT1.nowhere` of what was read.
    """
    return torch.sigmoid(maps[:, :POINTERS].float().logsumexp(-1) - nowhere.float())


def as_floats(pictures: Tensor) -> Tensor:
    """Bytes, channels last → [0, 1], channels first."""
    return pictures.permute(0, 1, 4, 2, 3).float() / 255
