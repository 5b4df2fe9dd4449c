"""Our reading of a scheduler's file against diffusers itself."""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from ornstein.core.errors import DataError, UnknownNameError
from ornstein.diffusion import DDIM, NoiseSchedule
from ornstein.interop import SchedulerConfig, to_scheduler_config
from ornstein.interop.scheduler_config import _KINDS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def _theirs(name: str, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(diffusers, name)(**settings)


def _file(scheduler: Any, tmp_path: Path) -> dict[str, Any]:
    """What diffusers itself writes."""
    scheduler.save_config(tmp_path)
    return json.loads((tmp_path / "scheduler_config.json").read_text())


@pytest.mark.parametrize("name", list(_KINDS))
def test_every_class_is_read_as_it_writes_itself(name: str, tmp_path: Path) -> None:
    theirs = _theirs(name)
    read = SchedulerConfig.from_json(_file(theirs, tmp_path))
    np.testing.assert_allclose(read.schedule.betas[1:].numpy(), theirs.betas.numpy(), rtol=1e-5)
    assert read.prediction == theirs.config.prediction_type
    assert read.spacing == theirs.config.timestep_spacing
    # And from a file that says nothing but the class: the same defaults.
    bare = SchedulerConfig.from_json({"_class_name": name})
    assert (bare.schedule, bare.spacing, bare.offset, bare.prediction) == (
        read.schedule,
        read.spacing,
        read.offset,
        read.prediction,
    )
    assert bare.visits(20) == read.visits(20)


@pytest.mark.parametrize("name", list(_KINDS))
def test_every_class_has_the_settings_of_its_constructor(name: str) -> None:
    theirs = set(inspect.signature(getattr(diffusers, name).__init__).parameters) - {"self"}
    assert _KINDS[name].keys == theirs


def test_settings_that_only_others_have_are_dropped_as_diffusers_drops_them() -> None:
    """Stable Diffusion's own file says clip_sample under a class that has none; and Heun has no zero-SNR rescaling."""
    read = SchedulerConfig.from_json(
        {"_class_name": "HeunDiscreteScheduler", "rescale_betas_zero_snr": True, "thresholding": True}
    )
    assert read.ignored == ("rescale_betas_zero_snr", "thresholding")
    assert float(read.schedule.alphas[-1]) > 0
    assert read.setting("thresholding", False) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "linear", "beta_start": 0.002, "beta_end": 0.03, "num_train_timesteps": 300},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    ],
    ids=["linear", "scaled", "cosine", "zero SNR", "given"],
)
def test_schedules_are_the_same_numbers(settings: dict[str, Any]) -> None:
    theirs = _theirs("DDIMScheduler", **settings)
    read = SchedulerConfig.from_json({"_class_name": "DDIMScheduler", **settings})
    np.testing.assert_allclose(read.schedule.alpha_bars[1:].numpy(), theirs.alphas_cumprod.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [1, 7, 20, 50, 333, 1000])
@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler"]
)
def test_visited_steps_are_theirs(name: str, n: int, spacing: str) -> None:
    n = min(n, 999) if _KINDS[name].extra else n  # those place one step more
    theirs = _theirs(name, timestep_spacing=spacing)
    theirs.set_timesteps(n)
    read = SchedulerConfig.from_json({"_class_name": name, "timestep_spacing": spacing})
    found = [t - 1 for t, _ in read.visits(n)]
    np.testing.assert_allclose(found, theirs.timesteps.numpy(), atol=0.5 + 1e-3 if name == "EulerDiscreteScheduler" else 0)


@pytest.mark.parametrize(("n", "spacing"), [(50, "leading"), (7, "trailing"), (50, "linspace"), (10, "trailing")])
@pytest.mark.parametrize("to_data", [True, False])
def test_ddim_steps_to_the_levels_that_we_say(n: int, spacing: str, to_data: bool) -> None:
    """With x̂_0 = 1 and ε̂ = 0, what DDIM returns is √α̅ of the level that it believes to step to."""
    theirs = _theirs("DDIMScheduler", timestep_spacing=spacing, set_alpha_to_one=to_data, clip_sample=False)
    theirs.set_timesteps(n)
    read = SchedulerConfig.from_json(
        {"_class_name": "DDIMScheduler", "timestep_spacing": spacing, "set_alpha_to_one": to_data, "clip_sample": False}
    )
    for t, s in read.visits(n):
        sample = theirs.alphas_cumprod[t - 1].sqrt().reshape(1, 1, 1, 1)
        got = float(theirs.step(torch.zeros(1, 1, 1, 1), t - 1, sample).prev_sample)
        assert abs(got - float(read.schedule.alphas[s])) < 1e-5


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("schedule", [NoiseSchedule.linear(), NoiseSchedule.cosine(num_steps=100)], ids=["linear", "cosine"])
def test_an_exported_schedule_samples_the_same_there(schedule: NoiseSchedule, prediction: str) -> None:
    config = to_scheduler_config(schedule, prediction)
    theirs = diffusers.DDIMScheduler.from_config(json.loads(json.dumps(config)))
    assert SchedulerConfig.from_json(config).schedule == schedule
    theirs.set_timesteps(20)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def denoiser(x_t: torch.Tensor, t: torch.Tensor, condition: Any = None) -> torch.Tensor:
        return torch.tanh(x_t * (1 + t.reshape(-1, 1, 1, 1) / schedule.num_steps))

    ours = DDIM(schedule, 20, prediction=prediction).sample(denoiser, x)
    for t in theirs.timesteps:
        x = theirs.step(denoiser(x, t + 1), t, x).prev_sample
    torch.testing.assert_close(ours, x, atol=1e-5 if prediction != "epsilon" else 1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ([], DataError, "_class_name"),
        ({"_class_name": 3}, DataError, "_class_name"),
        ({"_class_name": "DDIMSchedular"}, UnknownNameError, "DDIMScheduler"),
        ({"_class_name": "DDIMScheduler", "beta_begin": 0.1}, DataError, "no setting 'beta_begin'"),
        ({"_class_name": "DDIMScheduler", "prediction_type": []}, UnknownNameError, "prediction_type"),
        ({"_class_name": "DDIMScheduler", "clip_sample_range": "1"}, DataError, "clip_sample_range is a number, got '1'"),
        ({"_class_name": "DDIMScheduler", "clip_sample": "yes"}, DataError, "clip_sample is true or false"),
        (
            {"_class_name": "UniPCMultistepScheduler", "solver_order": "2"},
            DataError,
            "solver_order is a whole number within 1 … 3",
        ),
        ({"_class_name": "UniPCMultistepScheduler", "solver_order": None}, DataError, "solver_order is a whole number"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, DataError, "flow matching"),
        (
            {"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid", "num_train_timesteps": -1},
            DataError,
            "num_train_timesteps",
        ),
        ({"_class_name": "DDPMScheduler", "num_train_timesteps": 10**12}, DataError, "within 1 … 1,000,000"),
        ({"_class_name": "DDPMScheduler", "beta_start": 10**400}, DataError, "beta_start is a number"),
        ({"_class_name": "DDPMScheduler", "beta_start": None}, DataError, "beta_start is a number, got None"),
        ({"_class_name": "DDPMScheduler", "trained_betas": [10**400], "num_train_timesteps": 1}, DataError, "hundreds of digits"),
        ({"_class_name": "DDPMScheduler", "trained_betas": [0.1, 0.2]}, DataError, "2 numbers and num_train_timesteps is 1000"),
        ({"_class_name": "DDIMScheduler", "beta_start": "low"}, DataError, "beta_start is a number"),
        ({"_class_name": "DDIMScheduler", "beta_end": 1.5}, DataError, "between 0 and 1"),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": 10.5}, DataError, "whole number"),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": 0}, DataError, "num_train_timesteps is a whole number"),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "even"}, UnknownNameError, "timestep_spacing"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "flow"}, UnknownNameError, "prediction_type"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "exp"}, UnknownNameError, "beta_schedule"),
        ({"_class_name": "DDIMScheduler", "steps_offset": -1}, DataError, "steps_offset"),
        ({"_class_name": "DDIMScheduler", "trained_betas": ["a"], "num_train_timesteps": 1}, DataError, "list of numbers"),
    ],
)
def test_wrong_files_are_refused(config: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SchedulerConfig.from_json(config)
    with pytest.raises(ValueError, match=message):
        SchedulerConfig.from_json(config)


def test_a_score_has_no_name_there() -> None:
    with pytest.raises(DataError, match="convert the network's output"):
        to_scheduler_config(NoiseSchedule.linear(), "score")
