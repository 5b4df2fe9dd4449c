"""Each rule on a configuration that breaks it, and on one that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from ornstein.cli import main
from ornstein.core.errors import DataError, UnknownNameError
from ornstein.diffusion import NoiseSchedule
from ornstein.hub import BUNDLED
from ornstein.interop import lint

GOOD: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
}
#: Stable Diffusion 1's file, as its authors published it.
PUBLISHED = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "clip_sample": False,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}


def _rules(config: Any, **settings: Any) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in lint(config, **settings)}


def test_a_good_configuration_is_clean() -> None:
    for steps in (1, 20, 50, 1000):
        assert _rules(GOOD, steps=steps) == {}


@pytest.mark.parametrize(
    ("changes", "settings", "rule", "severity"),
    [
        ({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}, {}, "terminal-signal", "warning"),
        ({"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}, {}, "zero-snr-with-epsilon", "error"),
        ({}, {"steps": 7}, "stride", "error"),
        ({"timestep_spacing": "linspace"}, {"steps": 50}, "stride", "error"),
        ({"timestep_spacing": "leading"}, {}, "late-start", "warning"),
        ({"timestep_spacing": "leading", "steps_offset": 30}, {}, "beyond-T", "error"),
        ({"timestep_spacing": "leading", "set_alpha_to_one": False}, {}, "idle-last-step", "error"),
        ({"timestep_spacing": "leading", "set_alpha_to_one": False, "steps_offset": 1}, {}, "noise-left", "note"),
        ({"clip_sample": True}, {}, "clipping", "warning"),
        ({"thresholding": True}, {}, "thresholding", "note"),
        ({"trained_betas": [0.9, 0.5, 0.95], "num_train_timesteps": 3}, {"steps": 3}, "betas-fall", "note"),
        ({"guidance_scale": 7.5}, {}, "ambiguous-guidance", "warning"),
        ({}, {"guidance": 0.5}, "guidance-off", "warning"),
        ({}, {"guidance": 0.0}, "guidance-off", "warning"),
    ],
)
def test_each_rule_finds_its_mistake(changes: dict[str, Any], settings: dict[str, Any], rule: str, severity: str) -> None:
    assert _rules({**GOOD, **changes}, **settings).get(rule) == severity
    assert rule not in _rules(GOOD)


@pytest.mark.parametrize(
    ("changes", "steps", "rule", "severity"),
    [
        ({"_class_name": "UniPCMultistepScheduler", "lower_order_final": False}, 20, "unstable-end", "error"),
        ({"use_karras_sigmas": True}, 20, "sigmas-replace-spacing", "note"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, 20, "two-spacings", "error"),
        ({"solver_order": 3}, 2, "order-without-effect", "note"),
        ({"final_sigmas_type": "sigma_min", "timestep_spacing": "linspace"}, 20, "noise-left", "note"),
        ({"timestep_spacing": "linspace"}, 1000, "steps-lost", "error"),
        ({"_class_name": "DEISMultistepScheduler", "use_karras_sigmas": True}, 20, "idle-last-step", "error"),
        ({"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, 20, "idle-last-step", "error"),
        ({"clip_sample": True}, 20, "ignored-setting", "note"),
    ],
)
def test_rules_of_multistep_solvers(changes: dict[str, Any], steps: int, rule: str, severity: str) -> None:
    solver = {**GOOD, "_class_name": "DPMSolverMultistepScheduler", "solver_order": 2}
    del solver["clip_sample"]
    assert _rules(solver, steps=20) == {}
    assert _rules({**solver, **changes}, steps=steps).get(rule) == severity


def _solver(name: str, **settings: Any) -> Any:
    return getattr(diffusers, name)(prediction_type="v_prediction", timestep_spacing="trailing", **settings)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("steps", [8, 20])
@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DPMSolverMultistepScheduler"])
def test_an_unstable_end_is_one_in_diffusers(name: str, steps: int) -> None:
    solver = _solver(name, lower_order_final=False)
    solver.set_timesteps(steps)
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in solver.timesteps:
        x = solver.step(0.1 * x, t, x).prev_sample
    found = _rules({"_class_name": name, "timestep_spacing": "trailing", "lower_order_final": False}, steps=steps)
    assert bool(torch.isfinite(x).all()) == ("unstable-end" not in found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler", "LMSDiscreteScheduler"]
)
def test_late_starts_with_karras_sigmas_are_late_in_diffusers(name: str) -> None:
    """Multistep solvers run over all of training's noise levels, the others only between those of their own time steps."""
    settings = {"timestep_spacing": "leading", "use_karras_sigmas": True, "beta_schedule": "scaled_linear"}
    solver = getattr(diffusers, name)(**settings)
    solver.set_timesteps(20)
    late = float(solver.sigmas[0]) < 0.99 * float(((1 - solver.alphas_cumprod[-1]) / solver.alphas_cumprod[-1]).sqrt())
    assert late == ("late-start" in _rules({"_class_name": name, **settings}, steps=20))


def test_no_guidance_problem_above_one() -> None:
    assert "guidance-off" not in _rules(GOOD, guidance=1.0)
    assert "guidance-off" not in _rules(GOOD, guidance=7.5)


def test_the_worst_comes_first() -> None:
    severities = [finding.severity for finding in lint({**GOOD, "thresholding": True, "clip_sample": True}, steps=7)]
    assert severities == ["error", "warning", "note"]


def test_a_published_file_shows_what_is_known_of_it() -> None:
    """Lin et al. 2024, table 1: √α̅_T = 0.068265 for it."""
    found = {finding.rule: finding for finding in lint(PUBLISHED)}
    assert "0.0683" in found["terminal-signal"].message
    assert {"late-start", "noise-left"} <= set(found)
    assert "stride" not in found  # 50 divides 1,000, and leading spacing has that stride


def test_our_own_files() -> None:
    assert _rules(NoiseSchedule.cosine().to_json()) == {}
    assert "terminal-signal" in _rules(NoiseSchedule.scaled_linear().to_json())
    zero = NoiseSchedule.linear().with_zero_terminal_snr().to_json()
    assert _rules(zero) == {"zero-snr": "note"}  # what is predicted is not said
    assert _rules({"schedule": zero, "prediction": "epsilon"}) == {"zero-snr-with-epsilon": "error"}
    assert _rules({"schedule": zero, "prediction": "v_prediction"}) == {}
    with pytest.raises(UnknownNameError, match="nonsense"):
        lint({"schedule": zero, "prediction": "nonsense"})
    assert _rules(json.loads((BUNDLED / "text-to-image" / "config.json").read_text())) == {}
    for wrong in ({}, [], {"kind": "betas"}, {"schedule": 3}):
        with pytest.raises(DataError):
            lint(wrong)
    with pytest.raises(DataError, match="between 1 and 1000"):
        lint(NoiseSchedule.cosine().to_json(), steps=1001)


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["lint-schedule", *words])
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, said.err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad" / "scheduler" / "scheduler_config.json"
    bad.parent.mkdir(parents=True)
    good.write_text(json.dumps(GOOD))
    bad.write_text(json.dumps(PUBLISHED))
    code, out, _ = _run(capsys, str(good))
    assert (code, out) == (0, f"{good}: nothing to mend at 50 steps\n")
    code, out, _ = _run(capsys, str(tmp_path / "bad"))
    assert code == 1
    assert "warning: terminal-signal:" in out
    assert out.endswith("2 to mend at 50 steps\n")
    code, out, _ = _run(capsys, str(good), "--steps", "7", "--json")
    assert code == 1
    assert [finding["rule"] for finding in json.loads(out)] == ["stride"]
    (tmp_path / "torn.json").write_text('{"_class_name": "DDIMSch')
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([str(tmp_path / "none.json")], "there is no file"),
        ([str(tmp_path / "torn.json")], "is not JSON"),
        ([str(tmp_path / "empty")], "no scheduler_config.json"),
        ([str(good), "--steps", "0"], "--steps must be at least 1"),
    ):
        code, _, err = _run(capsys, *words)
        assert code == 2
        assert message in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
