"""The diffusion transformer as a student of itself: told where it goes and how strongly to follow the text.

Two inputs more than `DiT`, the goal s and the guidance scale w. Both start without effect (their last layers are zero), so that with a
`DiT`'s weights it begins as that `DiT`: DDIM without guidance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ornstein.core.errors import DataError
from ornstein.networks.dit import DiT, DiTConfig, TextCondition, time_embedding

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

#: Scales are halved and halved again on their way in, so that those in use are about 1.
_USUAL_SCALE = 4.0


class JumpingDiT(DiT):
    """`(x_t, t, s, TextCondition, w)` → u, the direction of the jump from t to s (`ornstein.diffusion.distillation`)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        width = config.width
        self.goal_in = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.scale_in = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        for added in (self.goal_in, self.scale_in):
            for parameter in added.get_submodule("2").parameters():
                nn.init.zeros_(parameter)

    def start_from(self, teacher: DiT) -> None:
        """Take over the weights of a `DiT` of the same sizes.

        Raises:
            DataError: it has other sizes.
        """
        if teacher.config != self.config:
            raise DataError(f"a student starts from a teacher of its own sizes {self.config}, got {teacher.config}")
        self.load_state_dict(self.state_dict() | teacher.state_dict())

    def forward(  # type: ignore[override]  # it is told more than a denoiser
        self,
        x_t: Float[Tensor, "batch channels size size"],
        t: Shaped[Tensor, " batch"],
        s: Shaped[Tensor, " batch"],
        condition: TextCondition,
        scale: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch channels size size"]:
        """u for x_t, same shape, float32 whatever the precision inside.

        Raises:
            DataError: the latent or the text does not have the configured size, or there is not one scale a sample.
        """
        if scale.shape != (len(x_t),):
            raise DataError(f"one guidance scale a sample is needed, shape ({len(x_t)},), got {tuple(scale.shape)}")
        signal_BD = self.time_in(time_embedding(t, 256)) + self.goal_in(time_embedding(s, 256))
        return self._denoise(x_t, signal_BD + self.scale_in(scale.to(torch.float32)[:, None] / _USUAL_SCALE), condition)
