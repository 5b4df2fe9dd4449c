"""`scheduler_config.json` of the diffusers library, read and written without it.

Its time steps run 0 … T − 1 where ours run 1 … T: its step k is our k + 1, and its "no step left" is our 0, the data. What the
file means is in the code that reads it (diffusers 0.42), restated here as plain rules: which levels a sampler of that class visits
in n steps, and to which level it steps from each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ornstein.core.errors import DataError, unknown_name
from ornstein.diffusion import NoiseSchedule, Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Visit = tuple[int, int]

_BETAS = {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"}
_PLACES = {"timestep_spacing", "steps_offset", "prediction_type"}
_CLIPS = {"clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"}
_SIGMAS = {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "final_sigmas_type", "sigma_min", "sigma_max"}
_FLOW = {"use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type", "shift_terminal"}
_ORDER = {"solver_order", "solver_type", "algorithm_type", "lower_order_final", "euler_at_final"}
_SPACINGS = ("leading", "linspace", "trailing")
_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v_prediction"}


@dataclass(frozen=True)
class _Kind:
    """A class of scheduler: the keys of its own, its defaults where they differ, and how it places n steps.

    steps: "stride" subtracts T // n from each step whatever the spacing; "list" goes to the next step of the list. extra: places
    n + 1 steps and leaves out the last, as multistep solvers do. fractional: linspace is not rounded.
    """

    keys: frozenset[str]
    spacing: str = "linspace"
    steps: str = "list"
    extra: bool = False
    fractional: bool = False
    betas: tuple[float, float] = (1e-4, 0.02)


def _kind(*keys: set[str], **settings: Any) -> _Kind:
    return _Kind(frozenset(set().union(_BETAS, _PLACES, *keys)), **settings)


_KINDS: dict[str, _Kind] = {
    "DDPMScheduler": _kind(_CLIPS, {"variance_type"}, spacing="leading"),
    "DDIMScheduler": _kind(_CLIPS, {"set_alpha_to_one"}, spacing="leading", steps="stride"),
    "PNDMScheduler": _kind({"skip_prk_steps", "set_alpha_to_one"}, spacing="leading", steps="stride"),
    "DPMSolverMultistepScheduler": _kind(
        _CLIPS, _SIGMAS, _FLOW, _ORDER, {"use_lu_lambdas", "lambda_min_clipped", "variance_type"}, extra=True
    ),
    "UniPCMultistepScheduler": _kind(_CLIPS, _SIGMAS, _FLOW, _ORDER, {"predict_x0", "disable_corrector", "solver_p"}, extra=True),
    "DEISMultistepScheduler": _kind(_CLIPS, _SIGMAS, _FLOW, _ORDER, extra=True),
    "EulerDiscreteScheduler": _kind(_SIGMAS, {"interpolation_type", "timestep_type"}, fractional=True),
    "EulerAncestralDiscreteScheduler": _kind(fractional=True),
    "HeunDiscreteScheduler": _kind(_SIGMAS, _CLIPS, fractional=True, betas=(0.00085, 0.012)),
    "LMSDiscreteScheduler": _kind(_SIGMAS, fractional=True),
}


@dataclass(frozen=True)
class SchedulerConfig:
    """A scheduler's file, understood.

    scheduler: its class. schedule: the betas, in float64. prediction: what its denoiser predicts. spacing, offset: of its time
    steps. settings: every key of the file with the class's defaults, as they stand there.
    """

    scheduler: str
    schedule: NoiseSchedule
    prediction: Prediction
    spacing: str
    offset: int
    settings: Mapping[str, Any]

    @classmethod
    def from_json(cls, data: Any) -> SchedulerConfig:
        """From the parsed file.

        Raises:
            UnknownNameError: the class, the spacing, the prediction or the kind of betas is not known.
            DataError: a key is unknown to the class, or a value is of the wrong type or out of range.
        """
        if not isinstance(data, dict) or not isinstance(data.get("_class_name"), str):
            raise DataError("a scheduler_config.json is an object with a '_class_name', such as 'DDIMScheduler'")
        name = data["_class_name"]
        if name not in _KINDS:
            raise unknown_name("scheduler class", name, _KINDS)
        kind = _KINDS[name]
        given = {key: value for key, value in data.items() if not key.startswith("_")}
        unknown = sorted(set(given) - kind.keys)
        if unknown:
            raise DataError(f"{name} has no setting {', '.join(map(repr, unknown))}: remove it, or name the class that has it")
        spacing = given.get("timestep_spacing", kind.spacing)
        if spacing not in _SPACINGS:
            raise unknown_name("timestep_spacing", str(spacing), _SPACINGS)
        prediction = given.get("prediction_type", "epsilon")
        if prediction not in _PREDICTIONS:
            raise unknown_name("prediction_type", str(prediction), _PREDICTIONS)
        offset = given.get("steps_offset", 0)
        if not isinstance(offset, int) or isinstance(offset, bool) or offset < 0:
            raise DataError(f"steps_offset is a whole number from 0, got {offset!r}")
        schedule = _schedule(given, kind)
        return cls(name, schedule, _PREDICTIONS[prediction], spacing, offset, given)

    def setting(self, key: str, default: Any) -> Any:
        """A setting of the file, or the default of its class."""
        return self.settings.get(key, default)

    def visits(self, num_steps: int) -> list[Visit]:
        """The pairs (t, s) of our time steps that this scheduler steps between, t → s, in n steps.

        Where it is wrong they do not join: the s of one is not the t of the next. Rounded, where it places steps in between.

        Raises:
            DataError: more steps than T, or none.
        """
        kind, total = _KINDS[self.scheduler], self.schedule.num_steps
        if not 1 <= num_steps <= total:
            raise DataError(f"the number of sampling steps must be between 1 and {total}, got {num_steps}")
        times = self._times(num_steps, kind.extra)
        last = 1 if self.final_level_is_the_first else 0
        if kind.steps == "stride":
            stride = total // num_steps
            return [(t + 1, t - stride + 1 if t - stride >= 0 else last) for t in times]
        return [(t + 1, s) for t, s in zip(times, [*(t + 1 for t in times[1:]), last], strict=True)]

    @property
    def final_level_is_the_first(self) -> bool:
        """Whether the last step leads to the noise level of time step 1 instead of the data."""
        if _KINDS[self.scheduler].steps == "stride":
            return not self.setting("set_alpha_to_one", self.scheduler == "DDIMScheduler")
        return bool(self.setting("final_sigmas_type", "zero") == "sigma_min")

    def _times(self, n: int, extra: bool) -> list[int]:
        """Its own numbering, 0 … T − 1 (steps_offset may lead beyond)."""
        total, count = self.schedule.num_steps, n + 1 if extra else n
        places: NDArray[np.float64]
        match self.spacing:
            case "linspace":
                places = np.linspace(0, total - 1, count).round()[::-1]
            case "leading":
                places = (np.arange(count, dtype=np.float64) * (total // count))[::-1] + self.offset
            case _:
                places = np.arange(total, 0, -total / n).round() - 1
                return [int(t) for t in places]
        return [int(t) for t in places[:n]]


def to_scheduler_config(schedule: NoiseSchedule, prediction: str, *, clip: float | None = None) -> dict[str, Any]:
    """A `scheduler_config.json` for diffusers' DDIMScheduler with exactly these betas, and the settings that make it right:
    "trailing" spacing, a last step to the data, and no clipping unless asked for.

    Its trailing spacing steps by T // n: let n divide T.

    Raises:
        DataError: it has no name for that prediction there.
    """
    if prediction not in _PREDICTIONS:
        raise DataError(f"diffusers predicts {', '.join(_PREDICTIONS)}; convert the network's output from {prediction!r} first")
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": schedule.num_steps,
        "trained_betas": schedule.betas[1:].tolist(),
        "prediction_type": prediction,
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "clip_sample": clip is not None,
        "clip_sample_range": 1.0 if clip is None else clip,
        "rescale_betas_zero_snr": False,
    }


def _schedule(given: Mapping[str, Any], kind: _Kind) -> NoiseSchedule:
    betas = given.get("trained_betas")
    if betas is not None:
        schedule = NoiseSchedule.from_json({"kind": "betas", "betas": betas})
    else:
        start, end = (_number(given, key, default) for key, default in zip(("beta_start", "beta_end"), kind.betas, strict=True))
        steps = given.get("num_train_timesteps", 1000)
        if not isinstance(steps, int) or isinstance(steps, bool):
            raise DataError(f"num_train_timesteps is a whole number, got {steps!r}")
        match given.get("beta_schedule", "linear"):
            case "linear":
                schedule = NoiseSchedule.linear(beta_start=start, beta_end=end, num_steps=steps)
            case "scaled_linear":
                schedule = NoiseSchedule.scaled_linear(beta_start=start, beta_end=end, num_steps=steps)
            case "squaredcos_cap_v2":
                schedule = NoiseSchedule.cosine(num_steps=steps)
            case "sigmoid":
                place = torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64))
                schedule = NoiseSchedule(place * (end - start) + start)
            case other:
                raise unknown_name("beta_schedule", str(other), ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"))
    return schedule.with_zero_terminal_snr() if given.get("rescale_betas_zero_snr", False) else schedule


def _number(given: Mapping[str, Any], key: str, default: float) -> float:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{key} is a number, got {value!r}")
    return float(value)
