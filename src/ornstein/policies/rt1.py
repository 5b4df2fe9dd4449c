"""RT-1, small (Brohan et al. 2022, "RT-1: Robotics Transformer for Real-World Control at Scale").

    picture ─▶ FiLM convolutions ─▶ TokenLearner ─▶ K tokens ┐
    sentence ─▶ USE vector ───┘                              ├─ causal transformer over a short history ─▶ 7 × 256 logits
    (arm state ─▶ 1 token, sentence ─▶ 1 token, optional) ──┘

As in the paper, the seven dimensions of an action are classified in parallel, from one readout a frame. Seeing (`see`) and deciding
(`decide`) can be trained apart: an arm needs many times more practice than an eye, and it is many times cheaper.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ornstein.core.checks import require_at_least, require_multiples
from ornstein.core.errors import DataError
from ornstein.networks.causal_transformer import CausalTransformer
from ornstein.networks.film_convnet import DOWNSAMPLING, NORM_GROUPS, SENTENCE_SIZE, FiLMConvNet, TokenLearner

if TYPE_CHECKING:
    from jaxtyping import Float, Int64, UInt8

ACTION_SIZE = 7
#: The first tokens' maps may be taught to point: at what is moved, and at where it goes.
POINTERS = 2


_PLACE_OCTAVES, _STATE_OCTAVES = 4, 3


@dataclass(frozen=True)
class RT1Config:
    """Sizes of the network.

    image_size: side of the square picture in pixels. history: frames that an action depends on, at most.
    channels, blocks: of the convolutional network at a quarter and an eighth of the resolution.
    tokens: a frame. state_size: numbers of the arm's state that are fed as one more token; 0 feeds none, as in the paper.
    language_token: whether the sentence is a token of the transformer too; in the paper it comes through FiLM alone.
    decoding_width: when it acts, see `UniformBins.likeliest`; 0 takes the likeliest bin, as in the paper.
    """

    image_size: int = 128
    history: int = 1
    channels: tuple[int, int] = (32, 64)
    blocks: tuple[int, int] = (1, 3)
    tokens: int = 4
    width: int = 128
    depth: int = 2
    heads: int = 4
    num_bins: int = 256
    state_size: int = 7
    language_token: bool = True
    decoding_width: float = 0.0

    def __post_init__(self) -> None:
        channels = {f"channels[{k}]": number for k, number in enumerate(self.channels)}
        require_multiples(NORM_GROUPS, "normalised in groups", channels)
        require_multiples(DOWNSAMPLING, "the convolutions make it so many times smaller", {"image_size": self.image_size})
        require_at_least(1, history=self.history, depth=self.depth, heads=self.heads)
        require_at_least(POINTERS, tokens=self.tokens)
        require_multiples(self.heads, "the number of heads", {"width": self.width})
        require_at_least(2, num_bins=self.num_bins)
        require_at_least(0, **{f"blocks[{k}]": number for k, number in enumerate(self.blocks)})
        require_at_least(0, state_size=self.state_size, decoding_width=self.decoding_width)


class FrameByFrame(nn.Module, ABC):
    """What RT-1 is at any size: it reads the sentence, sees each picture by itself, and decides from what the last few showed."""

    def forward(
        self,
        pictures: UInt8[Tensor, "batch frames height width 3"] | Float[Tensor, "batch frames 3 height width"],
        sentence: Float[Tensor, "batch 512"],
        state: Float[Tensor, "batch frames state"] | None = None,
    ) -> tuple[Float[Tensor, "batch frames action bins"], Float[Tensor, "batch frames tokens cells"]]:
        """Logits of every frame's action, and of TokenLearner's maps.

        Args:
            pictures: uint8 with channels last, or floats in [0, 1] with channels first; at most `history` frames, oldest first.
            sentence: the encoder's vector. state: the arm's state at each frame, in the contract's units, for a network
                that reads it.
        """
        if pictures.dtype == torch.uint8:
            pictures = as_floats(pictures)
        batch, frames = pictures.shape[:2]
        words_BS = self.read(sentence)
        tokens_NKC, maps_NKP = self.see(pictures.flatten(0, 1), words_BS.repeat_interleave(frames, dim=0))
        logits = self.decide(tokens_NKC.view(batch, frames, *tokens_NKC.shape[1:]), words_BS, state)
        return logits, maps_NKP.view(batch, frames, *maps_NKP.shape[1:])

    @abstractmethod
    def read(self, sentence: Float[Tensor, "batch 512"]) -> Float[Tensor, "batch 512"]:
        """The sentence's vector as the others take it."""

    @abstractmethod
    def see(
        self, pictures: Float[Tensor, "batch 3 height width"], words: Float[Tensor, "batch 512"]
    ) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch tokens cells"]]:
        """TokenLearner's tokens and the logits of its maps; `words` is what was read of the sentence."""

    @abstractmethod
    def decide(
        self,
        tokens: Float[Tensor, "batch frames tokens channels"],
        words: Float[Tensor, "batch 512"],
        state: Float[Tensor, "batch frames state"] | None = None,
    ) -> Float[Tensor, "batch frames action bins"]:
        """Logits of every frame's action from what was seen and read."""


class RT1(FrameByFrame):
    """The network. Buffers standardise sentence vectors and arm states over the training data."""

    sentence_mean: Tensor
    sentence_std: Tensor
    state_mean: Tensor
    state_std: Tensor

    def __init__(self, config: RT1Config) -> None:
        super().__init__()
        self.config = config
        self.vision = FiLMConvNet(config.channels, config.blocks)
        self.token_learner = TokenLearner(self.vision.out_channels, config.tokens, config.image_size // DOWNSAMPLING)
        #: A training aid reads the moved thing's heading here; nothing of it is used when acting.
        self.heading = nn.Linear(self.vision.out_channels, 2)
        self.token_in = nn.Linear(self.vision.out_channels + _waves_of(2, _PLACE_OCTAVES), config.width)
        self.state_in = nn.Linear(_waves_of(config.state_size, _STATE_OCTAVES), config.width) if config.state_size else None
        self.language_in = nn.Linear(SENTENCE_SIZE, config.width) if config.language_token else None
        tokens = config.tokens + (config.state_size > 0) + config.language_token
        self.transformer = CausalTransformer(config.width, config.depth, config.heads, config.history, tokens)
        self.head = nn.Linear(config.width, ACTION_SIZE * config.num_bins)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("sentence_mean", torch.zeros(SENTENCE_SIZE))
        self.register_buffer("sentence_std", torch.ones(SENTENCE_SIZE))
        self.register_buffer("state_mean", torch.zeros(config.state_size))
        self.register_buffer("state_std", torch.ones(config.state_size))

    def read(self, sentence: Float[Tensor, "batch 512"]) -> Float[Tensor, "batch 512"]:
        """The sentence's vector, standardised."""
        return (sentence - self.sentence_mean) / self.sentence_std

    def see(
        self, pictures: Float[Tensor, "batch 3 height width"], words: Float[Tensor, "batch 512"]
    ) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch tokens cells"]]:
        """The tokens end with their places."""
        tokens, maps = self.token_learner(self.vision(pictures, words))
        return tokens, maps

    def decide(
        self,
        tokens: Float[Tensor, "batch frames tokens channels"],
        words: Float[Tensor, "batch 512"],
        state: Float[Tensor, "batch frames state"] | None = None,
    ) -> Float[Tensor, "batch frames 7 bins"]:
        features, places = tokens[..., :-2], tokens[..., -2:]
        parts = [self.token_in(torch.cat([features, waves(places, _PLACE_OCTAVES)], dim=-1))]
        if self.state_in is not None:
            if state is None:
                raise DataError(f"this RT-1 reads {self.config.state_size} numbers of the arm's state: give them")
            standard = (state - self.state_mean) / self.state_std
            # Three standard deviations are the unit, so that the slowest wave does not fold.
            parts.append(self.state_in(waves(standard / 3, _STATE_OCTAVES))[:, :, None])
        if self.language_in is not None:
            parts.append(self.language_in(words)[:, None, None].expand(-1, tokens.shape[1], -1, -1))
        read_BTD = self.transformer(torch.cat([part.to(parts[0].dtype) for part in parts], dim=2))
        logits: Tensor = self.head(read_BTD).float()
        return logits.view(*logits.shape[:2], ACTION_SIZE, self.config.num_bins)


def waves(values: Float[Tensor, "... numbers"], octaves: int) -> Float[Tensor, "... more"]:
    """Numbers of about −1 … 1, and sines and cosines of them from half a period over that range upwards: what lets a small network tell
    places a few millimetres apart."""
    found = [values]
    for k in range(octaves):
        angle = values * (math.pi * 2**k)
        found += [angle.sin(), angle.cos()]
    return torch.cat(found, dim=-1)


def _waves_of(numbers: int, octaves: int) -> int:
    return numbers * (1 + 2 * octaves)


def rt1_loss(
    model: RT1,
    pictures: UInt8[Tensor, "batch frames height width 3"],
    sentence: Float[Tensor, "batch 512"],
    state: Float[Tensor, "batch frames state"],
    tokens: Int64[Tensor, "batch frames 7"],
    pointers: Float[Tensor, "batch frames 2 2"],
    headings: Float[Tensor, "batch frames 2"],
    rng: torch.Generator,
    *,
    smoothing_bins: float,
    pointing: float,
    color_jitter: float,
    views: PointedTensors | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy over the seven tokens of every frame, plus training aids.

    Args:
        tokens: the expert's actions. pointers, headings: see `pointing_loss` and `heading_loss`.
        smoothing_bins: see `action_loss`.
        pointing: weight of the aids. From action labels alone, telling which word means which drawing takes many more episodes;
            nothing of them is used when acting.
        color_jitter: largest relative change of brightness and contrast, drawn once a window.
        views: stills with sentences, for the aids alone.
    """
    batch, frames = pictures.shape[:2]
    floats = _jitter(pictures, color_jitter, rng).flatten(0, 1)
    said = sentence.repeat_interleave(frames, dim=0)
    goals, turned = pointers.flatten(0, 1), headings.flatten(0, 1)
    if views is not None:
        floats = torch.cat([floats, _jitter(views.pictures[:, None], color_jitter, rng)[:, 0]])
        said, goals, turned = (
            torch.cat([said, views.sentence]),
            torch.cat([goals, views.pointers]),
            torch.cat([turned, views.headings]),
        )
    seen, maps = model.see(floats, model.read(said))
    logits = model.decide(seen[: batch * frames].view(batch, frames, *seen.shape[1:]), model.read(sentence), state)
    acted, log = action_loss(logits, tokens, smoothing_bins)
    pointed, aligned = pointing_loss(maps, goals), heading_loss(model.heading(seen[:, 0, :-2]), turned)
    return acted + pointing * (pointed + aligned), {
        **log,
        "pointing": pointed.detach(),
        "points_right": _points_right(maps, goals).mean(),
        "heading": aligned.detach(),
    }


def decision_loss(
    model: RT1,
    seen: Float[Tensor, "batch frames tokens channels"],
    sentence: Float[Tensor, "batch 512"],
    state: Float[Tensor, "batch frames state"],
    tokens: Int64[Tensor, "batch frames 7"],
    rng: torch.Generator,
    *,
    smoothing_bins: float,
    place_noise: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`action_loss` of what is decided from tokens that were seen before.

    Args:
        place_noise: standard deviation of Gaussian noise on the tokens' places, in halves of the picture: an eye is less sure of scenes
            that it was not trained on.
    """
    noise = torch.randn(seen[..., -2:].shape, generator=rng, device=seen.device) * place_noise
    noisy = torch.cat([seen[..., :-2], seen[..., -2:] + noise], dim=-1)
    return action_loss(model.decide(noisy, model.read(sentence), state), tokens, smoothing_bins)


def action_loss(
    logits: Float[Tensor, "batch frames action bins"], tokens: Int64[Tensor, "batch frames action"], smoothing_bins: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy to the expert's bins, and figures to watch.

    Args:
        logits, tokens: the arm's seven dimensions first.
        smoothing_bins: standard deviation in bins of a Gaussian around the expert's bin; neighbours are nearly right. 0: one-hot.
    """
    log_probabilities = logits.log_softmax(-1)
    if smoothing_bins > 0:
        bins = torch.arange(logits.shape[-1], device=logits.device)
        soft = torch.softmax(-0.5 * ((bins - tokens[..., None]) / smoothing_bins) ** 2, dim=-1)
        cross_entropy = -(soft * log_probabilities).sum(-1)
    else:
        cross_entropy = -log_probabilities.gather(-1, tokens[..., None]).squeeze(-1)
    with torch.no_grad():
        half = logits.shape[-1] // 2
        gripper = ((logits[..., 6, :].argmax(-1) >= half) == (tokens[..., 6] >= half)).float().mean()
        error = (logits[..., :3, :].argmax(-1) - tokens[..., :3]).abs().float().mean()
    return cross_entropy.mean(), {"tokens": cross_entropy.mean().detach(), "bins_off": error, "gripper_right": gripper}


class PointedTensors(NamedTuple):
    """Stills: pictures uint8 (N, H, W, 3), sentence vectors (N, 512), pointers (N, 2, 2), headings (N, 2)."""

    pictures: Tensor
    sentence: Tensor
    pointers: Tensor
    headings: Tensor


def heading_loss(read: Float[Tensor, "batch 2"], headings: Float[Tensor, "batch 2"]) -> Tensor:
    """Squared error of (sin 4ψ, cos 4ψ) of the moved block's heading ψ, which a quarter turn leaves alone; (0, 0) where nothing turns."""
    counts = headings.square().sum(-1) > 0.5
    return ((read.float() - headings).square().sum(-1) * counts).sum() / counts.sum().clamp(min=1)


def pointing_loss(maps: Float[Tensor, "batch tokens cells"], pointers: Float[Tensor, "batch 2 2"]) -> Tensor:
    """Cross-entropy between the first two maps and the pointers: what is moved and where to, (column, row) in [−1, 1].

    A pointer is shared among its four nearest cells so that the map's mean place is the pointer's.
    """
    grid = math.isqrt(maps.shape[-1])
    place = ((pointers + 1) / 2 * grid - 0.5).clamp(0, grid - 1)
    cells = torch.arange(grid, device=maps.device)
    column, row = (functional.relu(1 - (place[..., axis, None] - cells).abs()) for axis in (0, 1))
    wanted = (row[..., :, None] * column[..., None, :]).flatten(-2)
    return -(wanted * maps[:, :POINTERS].log_softmax(-1)).sum(-1).mean()


@torch.no_grad()
def _points_right(maps: Tensor, pointers: Tensor) -> Tensor:
    """Whether a map is highest within a cell of its pointer, (batch, 2)."""
    grid = math.isqrt(maps.shape[-1])
    best = maps[:, :POINTERS].argmax(-1)
    place = ((pointers + 1) / 2 * grid).floor().clamp(0, grid - 1)
    away = torch.maximum((best // grid - place[..., 1]).abs(), (best % grid - place[..., 0]).abs())
    return (away <= 1).float()


def as_floats(pictures: Tensor) -> Tensor:
    """Bytes, channels last → [0, 1], channels first."""
    return pictures.permute(0, 1, 4, 2, 3).float() / 255


def _jitter(pictures: Tensor, amount: float, rng: torch.Generator) -> Tensor:
    """Brightness and contrast changed a little, the same for all frames of a window; floats, channels first."""
    floats = as_floats(pictures)
    if amount <= 0:
        return floats
    shape = (len(floats), 1, 1, 1, 1)
    draw = torch.rand((2, *shape), generator=rng, device=floats.device) * 2 - 1
    return ((floats - 0.5) * (1 + amount * draw[0]) + 0.5 + 0.5 * amount * draw[1]).clamp(0, 1)
