"""The diffusion core: schedule → predictions → objective → samplers → guidance, and the oracles that test them.

It knows no network, no picture and no robot: a denoiser is any callable `(x_t, t, condition) → prediction`.
"""

# In reading order.
# ruff: noqa: I001, RUF022
from ornstein.diffusion.schedule import NoiseSchedule
from ornstein.diffusion.predictions import PREDICTIONS, Prediction, convert, from_pair, to_pair
from ornstein.diffusion.objective import DiffusionLoss, Weighting, ddpm_loss, min_snr_weight, sample_times
from ornstein.diffusion.noise import KeyedNoise
from ornstein.diffusion.sampling import DDIM, DDPM, DPMSolverPP2M, Euler, Heun, Sampler, Spacing, Step, time_steps
from ornstein.diffusion.guidance import ClassifierFreeGuidance
from ornstein.diffusion.oracles import Gaussian, GaussianMixture

__all__ = [
    "NoiseSchedule",
    "Prediction",
    "PREDICTIONS",
    "convert",
    "to_pair",
    "from_pair",
    "ddpm_loss",
    "DiffusionLoss",
    "Weighting",
    "min_snr_weight",
    "sample_times",
    "KeyedNoise",
    "Sampler",
    "Step",
    "Spacing",
    "time_steps",
    "DDPM",
    "DDIM",
    "Euler",
    "Heun",
    "DPMSolverPP2M",
    "ClassifierFreeGuidance",
    "Gaussian",
    "GaussianMixture",
]
