"""Other libraries' formats: schedules and denoisers of diffusers, read strictly, and what is wrong with a given schedule."""

from ornstein.interop.diffusers import DiffusersDenoiser, load_denoiser, load_scheduler
from ornstein.interop.lint import Finding, lint
from ornstein.interop.scheduler_config import SchedulerConfig, to_scheduler_config

__all__ = [
    "DiffusersDenoiser",
    "Finding",
    "SchedulerConfig",
    "lint",
    "load_denoiser",
    "load_scheduler",
    "to_scheduler_config",
]
