"""RT-1 at the size and in the shape of its paper (Brohan et al. 2022, §5.1), about 35 million numbers.

    6 pictures of 300 px ─▶ EfficientNet-B3, FiLM after each of 26 blocks ─▶ 1 × 1, FiLM ─▶ TokenLearner ─▶ 6 × 8 tokens ─▶ transformer ─▶ 8 × 256
    sentence ─▶ 512 numbers ───────────┘

Where paper and released code differ or say too little, the code decides: see `PaperTransformer` for the linear layer in place of an MLP,
`EfficientNet` for 9 × 9 places.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from ornstein.core.checks import require_at_least, require_multiples, require_shares
from ornstein.core.errors import DataError, unknown_name
from ornstein.networks.efficientnet import EfficientNet, EfficientNetVariant, Padding, fold_norms, load_weights
from ornstein.networks.film_convnet import FiLM
from ornstein.networks.rt1_transformer import PaperTokenLearner, PaperTransformer
from ornstein.networks.sentence_reader import SENTENCE_SIZE
from ornstein.networks.weight_files import read_weights
from ornstein.policies.rt1 import ACTION_SIZE, FrameByFrame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float

ActionLayout = Literal["arm", "arm+mode", "arm+base+mode"]
#: Values of the mode token (§5.1): who moves, or that the task is done.
MODES = ("arm", "base", "terminate")
_BASE_SIZE = 3
_SMALLEST = 32


@dataclass(frozen=True)
class PaperRT1Config:
    """Sizes of the network; the defaults are the paper's.

    variant, padding, drop_connect: see `EfficientNet`. image_size: side of the square picture in pixels.
    history: frames that an action depends on, at most. tokens: a frame.
    action: "arm": seven dimensions; "arm+mode": and the mode token, as in the released models; "arm+base+mode": the paper's eleven.
    """

    variant: EfficientNetVariant = "b3"
    padding: Padding = "rt1"
    image_size: int = 300
    history: int = 6
    tokens: int = 8
    action: ActionLayout = "arm+mode"
    num_bins: int = 256
    width: int = 512
    depth: int = 8
    heads: int = 8
    key_size: int = 128
    dropout: float = 0.1
    drop_connect: float = 0.2

    def __post_init__(self) -> None:
        if self.action not in get_args(ActionLayout):
            raise unknown_name("layout of an action", self.action, get_args(ActionLayout))
        require_at_least(_SMALLEST, image_size=self.image_size)
        require_at_least(1, history=self.history, tokens=self.tokens, depth=self.depth, heads=self.heads, key_size=self.key_size)
        require_at_least(len(MODES), num_bins=self.num_bins)
        require_multiples(self.heads, "the number of heads", {"width": self.width})
        require_shares(dropout=self.dropout, drop_connect=self.drop_connect)

    @property
    def action_size(self) -> int:
        """Tokens of an action: the arm's seven first, the mode last."""
        return ACTION_SIZE + {"arm": 0, "arm+mode": 1, "arm+base+mode": _BASE_SIZE + 1}[self.action]

    @property
    def has_mode(self) -> bool:
        return self.action != "arm"

    @property
    def state_size(self) -> int:
        """The arm's state is not read."""
        return 0

    @property
    def word_pieces(self) -> int:
        """Words are not read one by one."""
        return 0


class SteeredEfficientNet(nn.Module):
    """EfficientNet with FiLM layers, a 1 × 1 convolution to the tokens' width, and a last FiLM layer."""

    def __init__(self, config: PaperRT1Config) -> None:
        super().__init__()
        self.net = EfficientNet(
            config.variant, language_size=SENTENCE_SIZE, padding=config.padding, drop_connect=config.drop_connect
        )
        self.narrow = nn.Conv2d(self.net.out_channels, config.width, 1, bias=False)
        self.film = FiLM(SENTENCE_SIZE, config.width)
        self.out_channels = config.width

    def forward(
        self, pictures: Float[Tensor, "batch 3 height width"], words: Float[Tensor, "batch 512"]
    ) -> Float[Tensor, "batch channels h w"]:
        h: Tensor = self.film(self.narrow(self.net(pictures, words)), words)
        return h


class PaperRT1(FrameByFrame):
    """The network. The arm's state may be left out: it is not looked at."""

    def __init__(self, config: PaperRT1Config = PaperRT1Config()) -> None:
        super().__init__()
        self.config = config
        self.vision = SteeredEfficientNet(config)
        self.token_learner = PaperTokenLearner(config.width, config.tokens)
        self.transformer = PaperTransformer(
            frames=config.history,
            tokens=config.tokens,
            action_size=config.action_size,
            num_bins=config.num_bins,
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            key_size=config.key_size,
            dropout=config.dropout,
        )

    def load_imagenet(self, weights: Mapping[str, Tensor] | str | Path) -> None:
        """Start from an EfficientNet trained on ImageNet, in torchvision's, timm's or transformers' naming.

        FiLM layers are the identity until they are trained: at first, the features are that EfficientNet's.

        Args:
            weights: a state dict, or a file of it (.safetensors, .pth).

        Raises:
            CheckpointError, DataError: see `read_weights` and `load_weights`.
        """
        load_weights(self.vision.net, read_weights(weights) if isinstance(weights, (str, Path)) else weights)

    def for_acting(self, precision: Literal["fp32", "bf16"] = "fp32") -> PaperRT1:
        """A copy that decides faster and can no longer be trained: batch norms folded into convolutions, channels last.

        Args:
            precision: "bf16" computes in bfloat16 throughout, whose numbers have eight bits: logits are off by a twentieth of their spread
                (root mean square; random weights). It pays where the hardware multiplies it natively (`ornstein.networks.precision.native_bf16`).
        """
        fast = copy.deepcopy(self).eval().requires_grad_(requires_grad=False)
        fold_norms(fast.vision.net)
        fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave this one out
        return fast.bfloat16() if precision == "bf16" else fast

    def read(self, sentence: Float[Tensor, "batch 1 512"]) -> Float[Tensor, "batch 512"]:
        """The encoder's vector, as it is."""
        if sentence.shape[1:] != (1, SENTENCE_SIZE):
            raise DataError(f"a sentence is (batch, 1, {SENTENCE_SIZE}) numbers, got {tuple(sentence.shape)}")
        return sentence[:, 0]

    def see(
        self, pictures: Float[Tensor, "batch 3 height width"], words: Float[Tensor, "batch 512"]
    ) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch tokens cells"]]:
        size = self.config.image_size
        if pictures.shape[-2:] != (size, size):
            raise DataError(f"this RT-1 sees pictures of {size} × {size} pixels, got {tuple(pictures.shape)}")
        weight = self.vision.narrow.weight
        layout = torch.channels_last if weight.is_contiguous(memory_format=torch.channels_last) else torch.preserve_format
        pictures = pictures.to(weight.dtype, memory_format=layout)
        tokens, maps = self.token_learner(self.vision(pictures, words.to(weight.dtype)))
        return tokens, maps

    def decide(
        self,
        tokens: Float[Tensor, "batch frames tokens channels"],
        words: Float[Tensor, "batch 512"],
        state: Float[Tensor, "batch frames state"] | None = None,
    ) -> Float[Tensor, "batch frames action bins"]:
        """The sentence comes through FiLM alone."""
        logits: Tensor = self.transformer(tokens)
        return logits
