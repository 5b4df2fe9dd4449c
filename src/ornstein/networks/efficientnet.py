"""EfficientNet (Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks") that a sentence may steer.

A FiLM layer follows every MBConv block, as in RT-1 (Brohan et al. 2022, §5.1): twenty-six of them in B3. They begin as the identity, so a
network with ImageNet weights begins as that network. Module names are torchvision's; `load_weights` reads timm's and transformers' too.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ornstein.core.errors import DataError
from ornstein.networks.film_convnet import FiLM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float

EfficientNetVariant = Literal["b0", "b1", "b2", "b3", "b4"]
Padding = Literal["symmetric", "same", "rt1"]


class _Scaling(NamedTuple):
    width: float
    depth: float
    resolution: int


class _Stage(NamedTuple):
    expansion: int
    kernel: int
    stride: int
    channels_in: int
    channels_out: int
    repeats: int


_SCALING: dict[str, _Scaling] = {
    "b0": _Scaling(1.0, 1.0, 224),
    "b1": _Scaling(1.0, 1.1, 240),
    "b2": _Scaling(1.1, 1.2, 260),
    "b3": _Scaling(1.2, 1.4, 300),
    "b4": _Scaling(1.4, 1.8, 380),
}
# Table 1 of the paper.
_STAGES = (
    _Stage(1, 3, 1, 32, 16, 1),
    _Stage(6, 3, 2, 16, 24, 2),
    _Stage(6, 5, 2, 24, 40, 2),
    _Stage(6, 3, 2, 40, 80, 3),
    _Stage(6, 5, 1, 80, 112, 3),
    _Stage(6, 5, 2, 112, 192, 4),
    _Stage(6, 3, 1, 192, 320, 1),
)
_STEM, _TOP = 32, 1280
_SQUEEZE = 4
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SMALLEST = 32
#: How much of a running mean of a batch norm stays.
_MOMENTUM = {"symmetric": 0.1, "same": 0.01, "rt1": 0.01}
_EPSILON = {"symmetric": 1e-5, "same": 1e-3, "rt1": 1e-3}


def resolution_of(variant: EfficientNetVariant) -> int:
    """The side in pixels for which a variant is made."""
    return _SCALING[variant].resolution


class EfficientNet(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] → features (B, `out_channels`, ⌈H/32⌉, ⌈W/32⌉), steered by `language_size` numbers."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        variant: EfficientNetVariant = "b3",
        *,
        language_size: int = 0,
        padding: Padding = "symmetric",
        drop_connect: float = 0.2,
    ) -> None:
        """
        Args:
            language_size: numbers of the sentence's vector; 0: no FiLM layers.
            padding: "symmetric" and batch norms as in torchvision and timm's `efficientnet_*`; "same" as in TensorFlow, for weights that
                come from there (timm's `tf_efficientnet_*`, transformers' `google/efficientnet-*`). "rt1": as the released RT-1, which lays
                zeros as if every size were even: 300 pixels become 9 × 9 places instead of 10 × 10.
            drop_connect: in training, the share of samples for which the last block is left out; for earlier blocks it is less, down to none
                for the first (Huang et al. 2016, "Deep Networks with Stochastic Depth").

        Raises:
            DataError: an unknown variant or padding.
        """
        super().__init__()
        if variant not in _SCALING or padding not in get_args(Padding):
            raise DataError(
                f"variants are {', '.join(_SCALING)} and paddings {', '.join(get_args(Padding))}; got {variant!r}, {padding!r}"
            )
        width, depth, _ = _SCALING[variant]
        self.variant, self.padding, self.language_size = variant, padding, language_size
        stem, top = _rounded(_STEM * width), _rounded(_TOP * width)
        stages: list[nn.Module] = [ConvNorm(3, stem, 3, stride=2, padding=padding)]
        films: list[nn.Module] = []
        repeats = [math.ceil(stage.repeats * depth) for stage in _STAGES]
        for stage, count in zip(_STAGES, repeats, strict=True):
            channels_in, channels_out = _rounded(stage.channels_in * width), _rounded(stage.channels_out * width)
            blocks = [
                MBConv(
                    channels_in if k == 0 else channels_out,
                    channels_out,
                    stage.kernel,
                    stride=stage.stride if k == 0 else 1,
                    expansion=stage.expansion,
                    dropped=drop_connect * (sum(len(list(made.children())) for made in stages[1:]) + k) / sum(repeats),
                    padding=padding,
                )
                for k in range(count)
            ]
            stages.append(nn.Sequential(*blocks))
            films += [FiLM(language_size, channels_out) for _ in blocks] if language_size else []
        stages.append(ConvNorm(_rounded(_STAGES[-1].channels_out * width), top, 1, padding=padding))
        self.features = nn.Sequential(*stages)
        self.films = nn.ModuleList(films)
        self.out_channels = top
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, pictures: Float[Tensor, "batch 3 height width"], sentence: Float[Tensor, "batch size"] | None = None
    ) -> Float[Tensor, "batch channels h w"]:
        """
        Args:
            sentence: the vector; only where the network was built with a `language_size`.

        Raises:
            DataError: pictures smaller than 32 pixels or of another shape, or a sentence that does not fit.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or min(pictures.shape[2:]) < _SMALLEST:
            raise DataError(
                f"an EfficientNet takes pictures (batch, 3, height, width) of 32 pixels or more, got {tuple(pictures.shape)}"
            )
        expected = (len(pictures), self.language_size) if self.language_size else None
        if (None if sentence is None else tuple(sentence.shape)) != expected:
            raise DataError(f"expected a sentence of shape {expected}, got {None if sentence is None else tuple(sentence.shape)}")
        stem, *stages, top = self.features.children()
        h: Tensor = stem((pictures - self.mean) / self.std)
        for k, block in enumerate(block for stage in stages for block in stage.children()):
            h = block(h)
            if sentence is not None:
                h = self.films[k](h, sentence)
        features: Tensor = top(h)
        return features


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, unless it is off, SiLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
        padding: Padding = "symmetric",
    ) -> None:
        conv = {"symmetric": nn.Conv2d, "same": _SameConv2d, "rt1": _EvenConv2d}[padding if stride > 1 else "symmetric"]
        super().__init__(
            conv(channels_in, channels_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out, eps=_EPSILON[padding], momentum=_MOMENTUM[padding]),
            *([nn.SiLU()] if activation else []),
        )


class _SameConv2d(nn.Conv2d):
    """Zeros around the picture as TensorFlow lays them: ⌈n / stride⌉ places, the odd zero at the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        border: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            lacking = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            border += [lacking // 2, lacking - lacking // 2]
        return functional.conv2d(functional.pad(x, border), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class _EvenConv2d(nn.Conv2d):
    """One zero fewer at the left and the top than at the right and the bottom, whatever the size."""

    def forward(self, x: Tensor) -> Tensor:
        half = self.kernel_size[0] // 2
        x = functional.pad(x, (half - 1, half, half - 1, half))
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class SqueezeExcitation(nn.Module):
    """h ⊙ σ(fc2(silu(fc1(mean h)))), channel by channel (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        scale: Tensor = self.fc2(functional.silu(self.fc1(h.mean((2, 3), keepdim=True))))
        return h * scale.sigmoid()


class MBConv(nn.Module):
    """Widen, convolve each channel by itself, squeeze and excite, narrow; plus the input where shapes allow."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, *, stride: int, expansion: int, dropped: float, padding: Padding
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        widen = [ConvNorm(channels_in, wide, 1, padding=padding)] if expansion != 1 else []
        self.block = nn.Sequential(
            *widen,
            ConvNorm(wide, wide, kernel, stride=stride, groups=wide, padding=padding),
            SqueezeExcitation(wide, max(1, channels_in // _SQUEEZE)),
            ConvNorm(wide, channels_out, 1, activation=False, padding=padding),
        )
        self.is_residual, self.dropped = stride == 1 and channels_in == channels_out, dropped

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.block(x)
        if not self.is_residual:
            return h
        return x + h * functional.dropout(h.new_ones(len(h), 1, 1, 1), self.dropped, self.training)


def fold_norms(network: nn.Module) -> None:
    """Put each batch norm of an `EfficientNet` in evaluation mode into the convolution before it, for good: the same function, fewer passes
    over memory."""
    for part in network.modules():
        if isinstance(part, ConvNorm):
            conv, norm = part[0], part[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part[0], part[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def _rounded(channels: float, divisor: int = 8) -> int:
    """To a multiple of 8, not below nine tenths."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def load_weights(network: EfficientNet, weights: Mapping[str, Tensor]) -> None:
    """ImageNet weights in torchvision's, timm's or transformers' naming, strictly; FiLM layers keep theirs, a classifier is left out.

    Raises:
        DataError: an unknown naming, or weights that lack something, have something too much, or are of another size or not finite.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("films.")}
    converted = {new: tensor for name, tensor in weights.items() if (new := _renamed(name, weights, network)) is not None}
    counters = {
        name for name in own if name.endswith("num_batches_tracked")
    }  # nothing is computed from them; old files lack them
    lacking, unknown = sorted(own.keys() - counters - converted.keys()), sorted(converted.keys() - own.keys())
    if lacking or unknown:
        raise DataError(
            f"these are not the weights of an EfficientNet-{network.variant.upper()}: {_some(lacking)} missing, {_some(unknown)} unknown"
        )
    for name, tensor in converted.items():
        if tensor.shape != own[name].shape:
            raise DataError(f"{name} should have shape {tuple(own[name].shape)}, got {tuple(tensor.shape)}: another variant?")
        if not torch.isfinite(tensor).all():
            raise DataError(f"{name} holds numbers that are not finite")
    network.load_state_dict(converted, strict=False)


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else "none"


def _renamed(name: str, weights: Mapping[str, Tensor], network: EfficientNet) -> str | None:
    """A name in any of the three namings → torchvision's; None for the classifier; as it is where nobody would use it."""
    if name.startswith("classifier."):
        return None
    if "features.0.0.weight" in weights:
        return name
    if "conv_stem.weight" in weights:
        return _from_timm(name)
    if any(name.endswith("embeddings.convolution.weight") for name in weights):
        return _from_transformers(name.removeprefix("efficientnet."), network)
    raise DataError(
        "these weights are named neither as torchvision's EfficientNet (features.0.0.weight …) nor as timm's (conv_stem.weight …) nor as"
        f" transformers' (embeddings.convolution.weight …); the first are {', '.join(list(weights)[:3])}"
    )


def _from_timm(name: str) -> str:
    tops = {"conv_stem": "0.0", "bn1": "0.1", "conv_head": "8.0", "bn2": "8.1"}
    head, _, rest = name.partition(".")
    if head in tops:
        return f"features.{tops[head]}.{rest}"
    match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)", name)
    if match is None:
        return name
    stage, block, part, rest = match.groups()
    parts = (
        {"conv_dw": "0.0", "bn1": "0.1", "se": "1", "conv_pw": "2.0", "bn2": "2.1"}
        if stage == "0"
        else {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "se": "2", "conv_pwl": "3.0", "bn3": "3.1"}
    )
    rest = rest.replace("conv_reduce", "fc1").replace("conv_expand", "fc2")
    return f"features.{int(stage) + 1}.{block}.block.{parts[part]}.{rest}" if part in parts else name


def _from_transformers(name: str, network: EfficientNet) -> str:
    """Its blocks are counted through, over all stages."""
    tops = {"embeddings.convolution": "0.0", "embeddings.batchnorm": "0.1", "encoder.top_conv": "8.0", "encoder.top_bn": "8.1"}
    head, _, rest = name.rpartition(".")
    if head in tops:
        return f"features.{tops[head]}.{rest}"
    places = [(s, k) for s, stage in enumerate(network.features.children()) for k, _ in enumerate(stage.children()) if 0 < s < 8]
    match = re.fullmatch(r"encoder\.blocks\.(\d+)\.\w+\.(\w+)\.(.+)", name)
    if match is None or int(match[1]) >= len(places):
        return name
    stage, block = places[int(match[1])]
    first = int(stage > 1)  # the first stage does not widen
    parts = {
        "expand_conv": "0.0",
        "expand_bn": "0.1",
        "depthwise_conv": f"{first}.0",
        "depthwise_norm": f"{first}.1",
        "reduce": f"{first + 1}.fc1",
        "expand": f"{first + 1}.fc2",
        "project_conv": f"{first + 2}.0",
        "project_bn": f"{first + 2}.1",
    }
    return f"features.{stage}.{block}.block.{parts[match[2]]}.{match[3]}" if match[2] in parts else name
