"""How to draw: what all ways to a picture share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SamplerName = Literal["ddim", "ddpm", "dpm++", "dpm++3m", "dpm++sde", "euler", "heun"]


@dataclass(frozen=True)
class DrawingSettings:
    """How to draw, as for `TextToImagePipeline.__call__`. num_inference_steps: of a whole way from noise to picture."""

    num_inference_steps: int = 50
    guidance_scale: float = 4.0
    seed: int = 0
    sampler: SamplerName = "ddim"
    eta: float = 0.0
    negative_prompt: str = ""
    guidance_interval: tuple[int, int] | None = None
