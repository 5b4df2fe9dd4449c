"""The diffusion core: schedule → predictions → objective → samplers → guidance → distillation → likelihood, and the oracles that test them.

It knows no network, no picture and no robot: a denoiser is any callable `(x_t, t, condition) → prediction` with x_t of shape
(batch, …) and t of type int64 and shape (batch,), within 1 … T.
"""

# In reading order.
# ruff: noqa: I001, RUF022
from ornstein.diffusion.schedule import Level, NoiseSchedule, Time
from ornstein.diffusion.predictions import (
    PREDICTIONS,
    Coefficients,
    Prediction,
    check_prediction,
    coefficients,
    convert,
    from_pair,
)
from ornstein.diffusion.weighting import Weighting, loss_weight
from ornstein.diffusion.objective import DiffusionLoss, Times, ddpm_loss, loss_by_band, sample_times
from ornstein.diffusion.noise import KeyedNoise, NoiseSource
from ornstein.diffusion.sampling import Sampler, Spacing, Step, Trajectory, time_steps
from ornstein.diffusion.samplers import DDIM, DDPM, DPMSolverPP2M, DPMSolverPP2MSDE, DPMSolverPP3M, Euler, Heun
from ornstein.diffusion.flow_matching import flow, flow_matching_loss
from ornstein.diffusion.guidance import Autoguidance, ClassifierFreeGuidance
from ornstein.diffusion.inpainting import KnownData
from ornstein.diffusion.distillation import (
    Guided,
    GuidedTeacher,
    ShortcutLoss,
    as_student,
    composed,
    jump,
    shortcut_loss,
    towards,
)
from ornstein.diffusion.likelihood import (
    FlowLikelihood,
    VariationalBound,
    bits_per_dimension,
    dequantise,
    flow_log_likelihood,
    variational_bound,
)
from ornstein.diffusion.oracles import DiscreteData, Distribution, Gaussian, GaussianMixture

__all__ = [
    "NoiseSchedule",
    "Level",
    "Time",
    "Prediction",
    "PREDICTIONS",
    "check_prediction",
    "convert",
    "coefficients",
    "Coefficients",
    "from_pair",
    "ddpm_loss",
    "DiffusionLoss",
    "Weighting",
    "loss_weight",
    "Times",
    "sample_times",
    "loss_by_band",
    "KeyedNoise",
    "NoiseSource",
    "Sampler",
    "Trajectory",
    "Step",
    "Spacing",
    "time_steps",
    "DDPM",
    "DDIM",
    "Euler",
    "Heun",
    "DPMSolverPP2M",
    "DPMSolverPP2MSDE",
    "DPMSolverPP3M",
    "flow",
    "flow_matching_loss",
    "ClassifierFreeGuidance",
    "Autoguidance",
    "KnownData",
    "jump",
    "composed",
    "shortcut_loss",
    "ShortcutLoss",
    "as_student",
    "towards",
    "Guided",
    "GuidedTeacher",
    "variational_bound",
    "VariationalBound",
    "flow_log_likelihood",
    "FlowLikelihood",
    "dequantise",
    "bits_per_dimension",
    "Distribution",
    "Gaussian",
    "GaussianMixture",
    "DiscreteData",
]
