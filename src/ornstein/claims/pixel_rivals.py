"""The latent model's rivals in D6: the same transformer over patches of pixels, and a U-Net that is told the caption.

Both predict x_0. A patch of 16 × 16 pixels has 768 numbers and the transformer is 160 wide: noise, which ε and v contain, does not fit
through, a picture does (Li & He 2025, "Back to Basics: Let Denoising Generative Models Denoise").
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ornstein.claims.small_text_to_image import Setting, Space
from ornstein.core.errors import DataError
from ornstein.data.scenes import RESOLUTION
from ornstein.images import to_tensor
from ornstein.networks.dit import TEXT_SIZE, DiT, DiTConfig, TextCondition
from ornstein.networks.unet import UNet, UNetConfig

if TYPE_CHECKING:
    from collections.abc import Callable

TRANSFORMER, UNET = "pixels, transformer", "pixels, U-Net"


class CaptionedUNet(UNet):
    """The U-Net whose blocks are told the time and the mean of the caption's word pieces.

    Their order does not reach it; one object on one background can do without.
    """

    piece_std: Tensor

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        width = 4 * config.channels
        self.words = nn.Sequential(nn.Linear(TEXT_SIZE, width), nn.SiLU(), nn.Linear(width, width))
        self.register_buffer("piece_std", torch.ones(()))

    def _told(self, t: Tensor, condition: Any, dtype: torch.dtype) -> Tensor:
        if not isinstance(condition, TextCondition):
            raise DataError(f"this U-Net reads captions: pass a TextCondition, got {type(condition).__name__}")
        pieces_BLD, mask_BL = condition.pieces / self.piece_std, condition.mask
        mean_BD = (pieces_BLD * mask_BL[..., None]).sum(1) / mask_BL.sum(1, keepdim=True).clamp(min=1)
        told_BE: Tensor = super()._told(t, None, dtype) + self.words(mean_BD.to(dtype))
        return told_BE


def rivals(setting: Setting) -> list[Space]:
    """The two over pixels, with about as many parameters as the transformer over latents."""
    patches = DiTConfig(latent_size=RESOLUTION, latent_channels=3, patch_size=16, width=setting.width, depth=setting.depth)
    # 32 channels and 32 × 32 patches at the first of four levels, beside a transformer 160 wide.
    levels = UNetConfig(
        RESOLUTION, patch_size=4, channels=max(8, setting.width // 40 * 8), multipliers=(1, 2, 4, 4), blocks=1, heads=4
    )
    return [
        _space(TRANSFORMER, lambda: DiT(patches), asdict(patches)),
        _space(UNET, lambda: CaptionedUNet(levels), asdict(levels)),
    ]


def _space(name: str, build: Callable[[], nn.Module], network: dict[str, Any]) -> Space:
    shape = (3, RESOLUTION, RESOLUTION)
    return Space(name, build, shape, "sample", to_tensor, lambda x_0: x_0, {"network": network}, clip=1.0)
