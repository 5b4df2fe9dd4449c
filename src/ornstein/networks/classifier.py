"""A small residual network that names the drawing in a picture: the frozen judge of generated pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ornstein.core.checks import require_at_least, require_multiples
from ornstein.core.errors import DataError
from ornstein.networks.autoencoder import NORM_GROUPS, ResidualBlock

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class ClassifierConfig:
    """Number of names, and the channels at a quarter, an eighth and a sixteenth of the resolution."""

    num_classes: int
    channels: tuple[int, int, int] = (48, 96, 192)
    blocks: int = 2

    def __post_init__(self) -> None:
        channels = {f"channels[{k}]": number for k, number in enumerate(self.channels)}
        require_multiples(NORM_GROUPS, "normalised in groups", channels)
        require_at_least(1, num_classes=self.num_classes)
        require_at_least(0, blocks=self.blocks)


class Classifier(nn.Module):
    """Pictures (B, 3, H, W) in [−1, 1] → logits (B, num_classes); `features` are the pooled activations before them."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.PixelUnshuffle(4)]
        before = 48
        for stage, channels in enumerate(config.channels):
            layers.append(nn.Conv2d(before, channels, 3, stride=1 if stage == 0 else 2, padding=1))
            layers.extend(ResidualBlock(channels) for _ in range(config.blocks))
            before = channels
        self.trunk = nn.Sequential(*layers, nn.GroupNorm(NORM_GROUPS, before), nn.SiLU())
        self.head = nn.Linear(2 * before, config.num_classes)

    def features(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Mean and maximum over the picture of the last feature map: an object counts wherever it stands."""
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] % 16 or pixels.shape[3] % 16:
            raise DataError(
                f"the classifier takes pictures (batch, 3, height, width) with sides divisible by 16, got {tuple(pixels.shape)}"
            )
        map_BCHW = self.trunk(pixels).flatten(2)
        return torch.cat([map_BCHW.mean(-1), map_BCHW.amax(-1)], dim=-1)

    def forward(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        return self.head(self.features(pixels))
