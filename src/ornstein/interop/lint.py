"""What is wrong with a schedule and the way it is sampled, before any picture is drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ornstein.core.errors import DataError
from ornstein.diffusion import NoiseSchedule, check_prediction, time_steps
from ornstein.interop.scheduler_config import SchedulerConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

Severity = Literal["error", "warning", "note"]
_ORDER = {"error": 0, "warning": 1, "note": 2}
#: √α̅_T above which a picture's mean brightness is still visible in "pure noise" (Lin et al. 2024 report 0.068 for one in use).
_VISIBLE_SIGNAL = 0.01
_GUIDANCE_KEYS = ("guidance_scale", "guidance", "cfg_scale", "cond_scale", "w")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: error (the samples are wrong), warning (likely so) or note; and what to do."""

    rule: str
    severity: Severity
    message: str
    remedy: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def lint(config: Any, *, steps: int = 50, guidance: float | None = None) -> list[Finding]:
    """What is wrong with sampling by this configuration, worst first.

    Args:
        config: a parsed diffusers `scheduler_config.json`, a stored `NoiseSchedule`, or an ornstein checkpoint's `config.json`.
        steps: how many sampling steps are asked for. guidance: the scale that will be used, if known.

    Raises:
        DataError, UnknownNameError: it is none of these, or a value in it is wrong.
    """
    if isinstance(config, dict) and "_class_name" in config:
        plain = {key: value for key, value in config.items() if key not in _GUIDANCE_KEYS}
        read = SchedulerConfig.from_json(plain)
        found = [*_signal(read.schedule, read.prediction, theirs=True), *_visits(read, steps), *_settings(read, steps)]
        stated = next((key for key in _GUIDANCE_KEYS if key in config), None)
        found += _guidance(guidance, stated)
    else:
        schedule, prediction = _own(config)
        time_steps(schedule.num_steps, steps, "trailing")  # refuses a number of steps out of range
        found = list(_signal(schedule, prediction, theirs=False))
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def _own(config: Any) -> tuple[NoiseSchedule, str | None]:
    """A stored schedule or model of ours; a bare schedule does not say what is predicted."""
    if isinstance(config, dict) and set(config) == {"kind", "betas"}:
        return NoiseSchedule.from_json(config), None
    inner = config.get("config", config) if isinstance(config, dict) else {}
    if isinstance(inner, dict) and "schedule" in inner and "prediction" in inner:
        return NoiseSchedule.from_json(inner["schedule"]), check_prediction(str(inner["prediction"]))
    raise DataError(
        "this is neither a diffusers scheduler_config.json (it has a '_class_name') nor a schedule or model of ornstein's"
        " (keys 'kind' and 'betas', or 'schedule' and 'prediction')"
    )


def _signal(schedule: NoiseSchedule, prediction: str | None, *, theirs: bool) -> Iterator[Finding]:
    """Noise at T, and what can be predicted there."""
    left = float(schedule.alphas[-1])
    if left == 0.0 and prediction is None:
        yield Finding(
            "zero-snr",
            "note",
            "no signal is left at T: ε and the score say nothing there",
            "train with 'v_prediction' or 'sample'",
        )
    if left == 0.0:
        if prediction in ("epsilon", "score"):
            yield Finding(
                "zero-snr-with-epsilon",
                "error",
                f"no signal is left at T, where x_T is the noise itself: predicting {prediction!r} there says nothing about the data,"
                " and x_0 is divided by zero",
                "train with prediction_type 'v_prediction' (or 'sample'), or do without rescale_betas_zero_snr",
            )
        return
    if left > _VISIBLE_SIGNAL:
        how = "set rescale_betas_zero_snr with 'v_prediction'" if theirs else "use .with_zero_terminal_snr() with 'v_prediction'"
        yield Finding(
            "terminal-signal",
            "warning",
            f"noise is never reached: at T a share √α̅ = {left:.4f} of the signal is left, {schedule.terminal_kl():.2g} bits a dimension;"
            " training shows the data's mean there, and sampling starts without it",
            f"{how} and train again, or use a schedule that ends lower",
        )
    smallest = float(schedule.betas[1:].min())
    if bool((schedule.betas[1:].diff() < -1e-12).any()) and smallest < float(schedule.betas[-1]):
        yield Finding(
            "betas-fall",
            "note",
            "the betas do not grow with t: a step adds less noise than the one before",
            "check that they are meant so",
        )


def _visits(read: SchedulerConfig, steps: int) -> Iterator[Finding]:
    """The time steps that the scheduler would visit, and the levels that it believes to step to."""
    total, visits = read.schedule.num_steps, read.visits(steps)
    if read.sigma_placing:
        if read.final_level_is_the_first:
            yield _idle("the last noise level")
        if not read.sigmas_span_training and visits[0][0] < total:
            yield _late(read, visits[0][0])
        return
    times = [t for t, _ in visits]
    if max(times) > total:
        yield Finding(
            "beyond-T",
            "error",
            f"steps_offset {read.offset} leads to time step {max(times) - 1} of 0 … {total - 1}: beyond what was trained",
            f"lower steps_offset to {max(read.offset - (max(times) - total), 0)} or choose 'trailing' spacing",
        )
    repeated = len(times) - len(set(times))
    if repeated or len(times) != steps:
        yield Finding(
            "steps-lost",
            "error",
            f"{steps} steps were asked for and {len(set(times))} different ones are visited",
            "ask for fewer steps, or give the time steps explicitly",
        )
    broken = [(k, s, t) for k, ((_, s), (t, _)) in enumerate(zip(visits, visits[1:], strict=False)) if s != t]
    if broken:
        k, s, t = broken[0]
        dividing = max(n for n in range(1, steps + 1) if total % n == 0)
        yield Finding(
            "stride",
            "error",
            f"{len(broken)} of {len(visits)} steps end at another noise level than the next one starts from: {read.scheduler} steps back by"
            f" T // n = {total // steps} whatever the spacing, so step {k + 1} leads to {s - 1} and the next is taken at {t - 1}"
            " ('previous step' computed with another stride than the spacing)",
            f"take a number of steps that divides {total} ({dividing} is the nearest below)"
            + (" with 'trailing' spacing" if read.spacing == "linspace" else "")
            + ", or a solver that goes by its own list",
        )
    if max(times) < total:
        yield _late(read, max(times))
    last, end = visits[-1]
    if end >= last:
        yield _idle(f"time step {last - 1}")
    elif end > 0 and not broken:  # else the stride is why
        yield Finding(
            "noise-left",
            "note",
            f"the last step ends at the noise level of time step 0 (σ = {read.schedule.level(1).sigma:.3g}), not at the data",
            "set set_alpha_to_one to true, or final_sigmas_type to 'zero', unless the model was made for it",
        )


def _late(read: SchedulerConfig, first: int) -> Finding:
    total = read.schedule.num_steps
    return Finding(
        "late-start",
        "warning",
        f"sampling starts at time step {first - 1} of {total - 1} from pure noise, where training showed"
        f" {read.schedule.level(first).alpha:.3f} of the signal: {read.spacing!r} spacing disagrees with training",
        "set timestep_spacing to 'trailing'",
    )


def _idle(place: str) -> Finding:
    return Finding(
        "idle-last-step",
        "error",
        f"the last step goes from {place} to the same noise level: it does nothing, and some noise stays in",
        "set set_alpha_to_one (or final_sigmas_type 'zero'), or steps_offset 1 with 'leading' spacing; or another solver",
    )


def _settings(read: SchedulerConfig, steps: int) -> Iterator[Finding]:
    if read.ignored:
        yield Finding(
            "ignored-setting",
            "note",
            f"{read.scheduler} has no {', '.join(map(repr, read.ignored))}: diffusers drops what only other schedulers have",
            "remove it, or name the scheduler that has it",
        )
    if read.setting("clip_sample", read.scheduler in ("DDIMScheduler", "DDPMScheduler")):
        bound = read.setting("clip_sample_range", 1.0)
        yield Finding(
            "clipping",
            "warning",
            f"the predicted x_0 is clipped to ±{bound:g}: right for pixels scaled so, wrong for latents, and it hides a divergence",
            "set clip_sample to false unless the data are pixels within that range",
        )
    if read.setting("thresholding", False):
        yield Finding(
            "thresholding",
            "note",
            "dynamic thresholding rescales each sample by a quantile of itself: for pixels only, and the law is no longer the model's",
            "set thresholding to false for latents and whenever likelihood or coverage is measured",
        )
    order = read.setting("solver_order", 2)
    if order is not None and steps < order:
        yield Finding(
            "order-without-effect", "note", f"solver_order {order} needs as many steps, {steps} are asked for", "take more steps"
        )
    # DPM-Solver falls back to order 1 there by itself; UniPC does not, at any number of steps.
    to_data = not read.final_level_is_the_first
    if read.scheduler == "UniPCMultistepScheduler" and to_data and order > 1 and read.setting("lower_order_final", True) is False:
        yield Finding(
            "unstable-end",
            "error",
            "with lower_order_final false the last step extrapolates over an infinite step of log-SNR: the samples are not numbers",
            "set lower_order_final to true",
        )
    if len(read.sigma_placing) > 1:
        yield Finding("two-spacings", "error", f"{' and '.join(read.sigma_placing)} exclude each other", "keep one")
    elif read.sigma_placing:
        span = (
            "over all noise levels of training"
            if read.sigmas_span_training
            else f"between those that {read.spacing!r} spacing reaches"
        )
        yield Finding(
            "sigmas-replace-spacing",
            "note",
            f"{read.sigma_placing[0]} places the steps by noise level, {span}",
            "nothing, if that is meant",
        )


def _guidance(scale: float | None, stated: str | None) -> Iterator[Finding]:
    if stated is not None:
        yield Finding(
            "ambiguous-guidance",
            "warning",
            f"{stated!r} is no setting of a scheduler, and its meaning differs: papers write 1 + w for what libraries call the scale",
            "give it where the pipeline is called, and say which convention: here w = 0 is unconditional, w = 1 conditional",
        )
    if scale is not None and scale < 1.0:
        meant = "unconditional samples" if scale == 0.0 else f"a mixture of both models with w = {scale:g}"
        yield Finding(
            "guidance-off",
            "warning",
            f"diffusers' pipelines run no guidance at a scale of 1 or less: {scale:g} gives plain conditional samples there, not {meant}",
            "guide in a pipeline that takes w at its word, as ornstein's does, or use a scale above 1",
        )
