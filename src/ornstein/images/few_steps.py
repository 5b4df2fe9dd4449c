"""Text-to-image in one to a few steps: a distilled student in place of the denoiser, behind the same pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ornstein.core.errors import DataError
from ornstein.diffusion import Guided, towards
from ornstein.images.text_to_image import TextToImagePipeline
from ornstein.networks.jumping_dit import JumpingDiT
from ornstein.networks.precision import fast_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ornstein.diffusion import Sampler
    from ornstein.diffusion.sampling import Denoiser
    from ornstein.images.settings import SamplerName
    from ornstein.networks.dit import TextCondition


class FewStepPipeline(TextToImagePipeline):
    """Draws what a sentence says, in as few steps as you like from 1.

    >>> pipeline = ornstein.load("runs/text-to-image-fast")
    >>> pipeline("a red apple on a yellow background", num_inference_steps=4)[0].save("apple.png")

    The guidance scale is an input of the network: a step costs one evaluation on one branch, whatever the scale. There is no branch
    without a prompt, so that no negative prompt can take its place.
    """

    network_type = JumpingDiT

    def guided(self, scale: float, nothing: TextCondition, interval: tuple[int, int] | None, stepper: Sampler) -> Denoiser:
        """The student as a denoiser for that sampler, told each step's goal, and the scale."""
        if bool(nothing.mask.any()):
            raise DataError("a few-step model follows its prompt by one branch and knows no negative prompt: leave it out")
        self._check_guidance(scale, interval)
        student = towards(self._jump_once, stepper)

        def denoise(x_t: Tensor, t: Tensor, condition: TextCondition) -> Tensor:
            return student(x_t, t, Guided(condition, torch.full((len(x_t),), scale, device=x_t.device)))

        return denoise

    def _check_guidance(self, scale: float, interval: tuple[int, int] | None) -> None:
        if interval is not None:
            raise DataError(
                "a few-step model was taught one scale for the whole way and knows no guidance interval: leave it out"
            )
        low, high = self.config.guidance_range
        if not low <= scale <= high:  # true for NaN as well
            raise DataError(f"this few-step model was taught guidance scales from {low:g} to {high:g}, got {scale:g}")

    def sampler(self, name: SamplerName, num_steps: int, eta: float = 0.0, times: Sequence[int] | None = None) -> Sampler:
        """DDIM, the only sampler whose step is a jump; `times` as for every model."""
        if name != "ddim" or eta != 0.0:
            raise DataError(f"a few-step model jumps by the sampler 'ddim' with eta 0, got {name!r} with eta {eta:g}")
        return super().sampler(name, num_steps, eta, times)

    def _jump_once(self, x_t: Tensor, t: Tensor, s: Tensor, condition: Any) -> Tensor:
        with fast_precision(self.device):
            return self.denoiser(x_t, t, s, *condition)
