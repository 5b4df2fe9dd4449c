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

_BETAS = {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"}
_PLACES = {"timestep_spacing", "steps_offset", "prediction_type"}
_CLIPS = {"clip_sample", "clip_sample_range"}
_THRESHOLDS = {"thresholding", "dynamic_thresholding_ratio", "sample_max_value"}
_SIGMAS = {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"}
_FLOW = {"use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type"}
_ORDER = {"solver_order", "solver_type", "lower_order_final"}
_ZERO_SNR = {"rescale_betas_zero_snr"}
_BOUNDS = {"final_sigmas_type", "sigma_min", "sigma_max"}
_SPACINGS = ("leading", "linspace", "trailing")
_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v_prediction"}
_SWITCHES = {
    *_SIGMAS, *_ZERO_SNR, "use_lu_lambdas", "use_flow_sigmas", "set_alpha_to_one", "clip_sample", "thresholding", "lower_order_final"
}  # fmt: skip
_NUMBERS = {"beta_start", "beta_end", "clip_sample_range"}
_WHOLE = {"num_train_timesteps": (1, 1_000_000), "steps_offset": (0, 1_000_000), "solver_order": (1, 3)}


@dataclass(frozen=True)
class _Kind:
    """A class of scheduler: its settings, its defaults where they differ, and how it places n steps.

    steps: "stride" subtracts T // n from each step whatever the spacing; "list" goes to the next step of the list. extra: places
    n + 1 steps and leaves out the last, as multistep solvers do. ends_at_first: always at the noise level of the first step.
    """

    keys: frozenset[str]
    spacing: str = "linspace"
    steps: str = "list"
    extra: bool = False
    ends_at_first: bool = False
    betas: tuple[float, float] = (1e-4, 0.02)


def _kind(*keys: set[str], **settings: Any) -> _Kind:
    return _Kind(frozenset(set().union(_BETAS, _PLACES, *keys)), **settings)


#: As their constructors have them (a test compares).
_KINDS: dict[str, _Kind] = {
    "DDPMScheduler": _kind(_CLIPS, _THRESHOLDS, _ZERO_SNR, {"variance_type"}, spacing="leading"),
    "DDIMScheduler": _kind(_CLIPS, _THRESHOLDS, _ZERO_SNR, {"set_alpha_to_one"}, spacing="leading", steps="stride"),
    "PNDMScheduler": _kind({"skip_prk_steps", "set_alpha_to_one"}, spacing="leading", steps="stride"),
    "DPMSolverMultistepScheduler": _kind(
        _THRESHOLDS,
        _SIGMAS,
        _FLOW,
        _ORDER,
        _ZERO_SNR,
        {"algorithm_type", "euler_at_final", "final_sigmas_type", "use_lu_lambdas", "lambda_min_clipped", "variance_type"},
        extra=True,
    ),
    "UniPCMultistepScheduler": _kind(
        _THRESHOLDS,
        _SIGMAS,
        _FLOW,
        _ORDER,
        _ZERO_SNR,
        _BOUNDS,
        {"predict_x0", "disable_corrector", "solver_p", "shift_terminal"},
        extra=True,
    ),
    "DEISMultistepScheduler": _kind(_THRESHOLDS, _SIGMAS, _FLOW, _ORDER, {"algorithm_type"}, extra=True, ends_at_first=True),
    "EulerDiscreteScheduler": _kind(_SIGMAS, _ZERO_SNR, _BOUNDS, {"interpolation_type", "timestep_type"}),
    "EulerAncestralDiscreteScheduler": _kind(_ZERO_SNR),
    "HeunDiscreteScheduler": _kind(_SIGMAS, _CLIPS, betas=(0.00085, 0.012)),
    "LMSDiscreteScheduler": _kind(_SIGMAS),
}
_KNOWN = frozenset().union(*(kind.keys for kind in _KINDS.values()))


@dataclass(frozen=True)
class SchedulerConfig:
    """A scheduler's file, understood.

    scheduler: its class. schedule: the betas, in float64. prediction: what its denoiser predicts. spacing, offset: of its time
    steps. settings: the keys that its class has, as they stand in the file. ignored: those that only other classes have; diffusers
    drops them with a warning, and so do we.
    """

    scheduler: str
    schedule: NoiseSchedule
    prediction: Prediction
    spacing: str
    offset: int
    settings: Mapping[str, Any]
    ignored: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Any) -> SchedulerConfig:
        """From the parsed file.

        Raises:
            UnknownNameError: the class, the spacing, the prediction or the kind of betas is not known.
            DataError: no class has a key, a value is of the wrong type or out of range, or the noise is not variance preserving.
        """
        if not isinstance(data, dict) or not isinstance(data.get("_class_name"), str):
            raise DataError("a scheduler_config.json is an object with a '_class_name', such as 'DDIMScheduler'")
        name = data["_class_name"]
        if name not in _KINDS:
            raise unknown_name("scheduler class", name, _KINDS)
        kind = _KINDS[name]
        given = {key: value for key, value in data.items() if not key.startswith("_")}
        unknown = sorted(set(given) - _KNOWN)
        if unknown:
            raise DataError(f"{name} has no setting {', '.join(map(repr, unknown))}, nor has any scheduler: remove it")
        settings = {key: value for key, value in given.items() if key in kind.keys}
        _check_types(settings)
        if settings.get("use_flow_sigmas", False):
            raise DataError(
                "use_flow_sigmas is flow matching, whose noise does not preserve the variance: no schedule of betas has it"
            )
        spacing = settings.get("timestep_spacing", kind.spacing)
        if spacing not in _SPACINGS:
            raise unknown_name("timestep_spacing", str(spacing), _SPACINGS)
        prediction = str(settings.get("prediction_type", "epsilon"))
        if prediction not in _PREDICTIONS:
            raise unknown_name("prediction_type", prediction, _PREDICTIONS)
        schedule, ignored = _schedule(settings, kind), tuple(sorted(set(given) - kind.keys))
        return cls(name, schedule, _PREDICTIONS[prediction], spacing, settings.get("steps_offset", 0), settings, ignored)

    def setting(self, key: str, default: Any) -> Any:
        """A setting of the file, or what its class takes by default; None where the class does not have it."""
        return self.settings.get(key, default) if key in _KINDS[self.scheduler].keys else None

    @property
    def sigma_placing(self) -> tuple[str, ...]:
        """The settings that place steps by noise level instead of by time step, as far as they are on."""
        return tuple(key for key in (*sorted(_SIGMAS), "use_lu_lambdas") if self.setting(key, False))

    @property
    def sigmas_span_training(self) -> bool:
        """Whether such steps run over all noise levels of training, whatever the spacing (multistep solvers), or only between those
        that the spacing reaches."""
        return _KINDS[self.scheduler].extra

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
        kind = _KINDS[self.scheduler]
        if kind.steps == "stride":
            return not self.setting("set_alpha_to_one", self.scheduler == "DDIMScheduler")
        return kind.ends_at_first or self.setting("final_sigmas_type", "zero") == "sigma_min"

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


def _check_types(settings: Mapping[str, Any]) -> None:
    """That each setting which is read here has the type that it needs; null stands for the default of none."""
    for key, value in settings.items():
        if key in _SWITCHES and not isinstance(value, bool | None):
            raise DataError(f"{key} is true or false, got {value!r:.40}")
        if key in _NUMBERS:
            try:
                fine = not isinstance(value, bool) and math.isfinite(value)
            except (TypeError, OverflowError):
                fine = False
            if not fine:
                raise DataError(f"{key} is a number, got {value!r:.40}")
        if key in _WHOLE:
            low, high = _WHOLE[key]
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise DataError(f"{key} is a whole number within {low} … {high:,}, got {value!r:.40}")


def _schedule(settings: Mapping[str, Any], kind: _Kind) -> NoiseSchedule:
    steps = settings.get("num_train_timesteps", 1000)
    betas = settings.get("trained_betas")
    if betas is not None:
        schedule = NoiseSchedule.from_json({"kind": "betas", "betas": betas})
        if schedule.num_steps != steps:
            raise DataError(
                f"trained_betas holds {schedule.num_steps} numbers and num_train_timesteps is {steps}: make them the same"
            )
    else:
        start, end = settings.get("beta_start", kind.betas[0]), settings.get("beta_end", kind.betas[1])
        match settings.get("beta_schedule", "linear"):
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
    return schedule.with_zero_terminal_snr() if settings.get("rescale_betas_zero_snr", False) else schedule
