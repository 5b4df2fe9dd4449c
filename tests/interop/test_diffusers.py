"""Our samplers against diffusers' own, element by element, on its own networks; and where it is wrong, by how much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from ornstein.core.errors import CheckpointError, DataError
from ornstein.diffusion import DDIM, DDPM, ClassifierFreeGuidance, DPMSolverPP2M, DPMSolverPP2MSDE, Gaussian, NoiseSchedule
from ornstein.interop import load_denoiser, load_scheduler

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SHAPE = (2, 3, 8, 8)


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random U-Net of theirs, saved by them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(
            sample_size=8,
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
        )
    folder = tmp_path_factory.mktemp("unet")
    network.save_pretrained(folder)
    return folder


def _noise() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


class _Same:
    """A noise source that gives theirs and ours the same numbers."""

    def at(self, step: int, shape: Any) -> torch.Tensor:
        return torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + step))


def _same_noise(monkeypatch: pytest.MonkeyPatch, module: str, n: int) -> None:
    drawn = iter(range(n))
    monkeypatch.setattr(
        f"diffusers.schedulers.scheduling_{module}.randn_tensor", lambda *a, **k: _Same().at(next(drawn), SHAPE[1:])
    )


@torch.no_grad()
def _by_theirs(scheduler: Any, network: Any, steps: int, **settings: Any) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x = _noise() * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t).sample, t, x, **settings).prev_sample
    return x


@torch.no_grad()
def _by_ours(sampler: Any, denoiser: Any) -> torch.Tensor:
    return sampler.sample(denoiser, _noise(), None, _Same())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("n", [5, 20, 50])
def test_ddim_agrees_where_the_steps_divide(unet: Path, prediction: str, n: int, tmp_path: Path) -> None:
    theirs = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False, timestep_spacing="trailing")
    theirs.save_config(tmp_path)
    read, denoiser = load_scheduler(tmp_path), load_denoiser(unet)
    sampler = DDIM(read.schedule, n, prediction=read.prediction, spacing=read.spacing)
    torch.testing.assert_close(
        _by_ours(sampler, denoiser),
        _by_theirs(theirs, denoiser.network, n),
        atol=1e-5,
        rtol=1e-4 if prediction == "epsilon" else 1e-5,
    )


@pytest.mark.parametrize("clip", [None, 1.5])
def test_a_whole_pipeline_of_theirs_draws_the_same_pictures(unet: Path, tmp_path: Path, clip: float | None) -> None:
    """Where it clips, only with `use_clipped_model_output`: else it goes on with an ε̂ that does not belong to the clipped x̂_0."""
    settings = {"clip_sample": False} if clip is None else {"clip_sample": True, "clip_sample_range": clip}
    theirs = diffusers.DDIMPipeline(
        diffusers.UNet2DModel.from_pretrained(unet),
        diffusers.DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", **settings),
    )
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    pictures = {
        consistent: theirs(
            2, torch.Generator().manual_seed(5), num_inference_steps=25, output_type="np", use_clipped_model_output=consistent
        ).images
        for consistent in (True, False)
    }
    read, denoiser = load_scheduler(tmp_path), load_denoiser(tmp_path / "unet")
    sampler = DDIM(read.schedule, 25, prediction=read.prediction, spacing=read.spacing, clip=clip)
    with torch.no_grad():
        x = sampler.sample(denoiser, torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)))
    ours = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, torch.from_numpy(pictures[True]), atol=1e-5, rtol=0)
    assert (abs(pictures[True] - pictures[False]).max() > 1e-3) == (clip is not None)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("n", [20, 37])
def test_ddpm_agrees(unet: Path, variance: str, n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = diffusers.DDPMScheduler(prediction_type="v_prediction", clip_sample=False, variance_type=f"fixed_{variance}")
    theirs.save_config(tmp_path)
    read, denoiser = load_scheduler(tmp_path), load_denoiser(unet)
    _same_noise(monkeypatch, "ddpm", n)
    times = [t for t, _ in read.visits(n)]
    sampler = DDPM(read.schedule, n, prediction="v_prediction", variance=variance, spacing=times)  # type: ignore[arg-type]
    torch.testing.assert_close(_by_ours(sampler, denoiser), _by_theirs(theirs, denoiser.network, n), atol=1e-5, rtol=1e-4)


def test_its_ddpm_adds_noise_at_the_last_step_unless_that_is_step_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the large variance and "trailing" spacing: Ho et al. 2020, algorithm 2, adds none. The data's spread is 0.3."""
    gaussian = Gaussian(torch.tensor([0.5]), torch.tensor([[0.09]]))
    schedule = NoiseSchedule.linear()
    denoiser = gaussian.denoiser(schedule, "v_prediction")
    start = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    class Stream:
        def __init__(self) -> None:
            self.rng = torch.Generator().manual_seed(1)

        def at(self, step: int, shape: Any) -> torch.Tensor:
            return torch.randn(len(start), *shape, generator=self.rng, dtype=torch.float64)

    theirs = diffusers.DDPMScheduler(
        prediction_type="v_prediction", clip_sample=False, variance_type="fixed_large", timestep_spacing="trailing"
    )
    theirs.set_timesteps(20)
    noise, x = Stream(), start
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: noise.at(0, (1,)))
    for t in theirs.timesteps:
        x = theirs.step(denoiser(x, (t + 1).expand(len(x))), t, x).prev_sample
    ours = DDPM(schedule, 20, prediction="v_prediction", variance="large").sample(denoiser, start, None, Stream())
    added = schedule.jump_variance(50, 0)
    assert abs(float(x.var()) - float(ours.var()) - added) < 0.15 * added
    assert abs(float(ours.std()) - 0.3) < abs(float(x.std()) - 0.3)


@pytest.mark.parametrize("n", [5, 20, 50])
def test_dpm_solver_agrees(unet: Path, n: int) -> None:
    theirs = diffusers.DPMSolverMultistepScheduler(prediction_type="v_prediction", timestep_spacing="trailing", solver_order=2)
    denoiser = load_denoiser(unet)
    sampler = DPMSolverPP2M(NoiseSchedule.linear(), n, prediction="v_prediction")
    torch.testing.assert_close(_by_ours(sampler, denoiser), _by_theirs(theirs, denoiser.network, n), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n", [20, 50])
def test_sde_solver_agrees(unet: Path, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = diffusers.DPMSolverMultistepScheduler(
        prediction_type="v_prediction", timestep_spacing="trailing", algorithm_type="sde-dpmsolver++"
    )
    _same_noise(monkeypatch, "dpmsolver_multistep", n)
    denoiser = load_denoiser(unet)
    sampler = DPMSolverPP2MSDE(NoiseSchedule.linear(), n, prediction="v_prediction")
    torch.testing.assert_close(_by_ours(sampler, denoiser), _by_theirs(theirs, denoiser.network, n), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("spacing", "n"), [("trailing", 300), ("linspace", 400), ("trailing", 600)])
def test_where_its_ddim_is_wrong_ours_is_nearer_to_the_exact_flow(spacing: str, n: int) -> None:
    """It steps back by T // n whatever the spacing, so each step ends at another noise level than the next one starts from.

    With few steps the solver's own error hides it; with many it is all that is left.
    """
    gaussian = Gaussian(torch.tensor([0.5]), torch.tensor([[0.3]]))
    schedule = NoiseSchedule.linear()
    denoiser = gaussian.denoiser(schedule, "v_prediction")
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact = gaussian.flow(start, schedule, 1000, 0)
    theirs = diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False, timestep_spacing=spacing)
    theirs.set_timesteps(n)
    x = start
    for t in theirs.timesteps:
        x = theirs.step(denoiser(x, (t + 1).expand(len(x))), t, x).prev_sample
    ours = DDIM(schedule, n, prediction="v_prediction", spacing=spacing).sample(denoiser, start)  # type: ignore[arg-type]
    error, their_error = (float((found - exact).abs().max()) for found in (ours, x))
    assert error < 0.02
    assert their_error > 3 * error, (error, their_error)


def test_a_text_conditioned_network_and_guidance(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=6,
            attention_head_dim=4,
        )
    network.save_pretrained(tmp_path)
    denoiser = load_denoiser(tmp_path)
    words = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2))
    guided = ClassifierFreeGuidance(denoiser, 3.0, {"encoder_hidden_states": torch.zeros(1, 4, 6)})
    with torch.no_grad():
        found = guided(_noise(), torch.tensor([500, 500]), {"encoder_hidden_states": words})
        given, without = (network(_noise(), 499, c).sample for c in (words, torch.zeros(2, 4, 6)))
    torch.testing.assert_close(found, without + 3 * (given - without), atol=1e-5, rtol=1e-4)
    with pytest.raises(DataError, match="dictionary"):
        denoiser(_noise(), torch.tensor([1, 1]), words)  # type: ignore[arg-type]


def test_a_dit_that_predicts_variances_gives_its_means(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=3, out_channels=6, num_layers=1, sample_size=8, patch_size=2,
            num_embeds_ada_norm=10, norm_num_groups=1,
        )  # fmt: skip
    network.save_pretrained(tmp_path)
    denoiser = load_denoiser(tmp_path)
    labels = {"class_labels": torch.tensor([1, 2])}
    with torch.no_grad():
        found = denoiser(_noise(), torch.tensor([7, 900]), labels)
        expected = network.eval()(_noise(), torch.tensor([6, 899]), **labels).sample[:, :3]
    torch.testing.assert_close(found, expected)


def _copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (to / name).write_bytes((folder / name).read_bytes())
    return to


def test_loading_is_strict(unet: Path, tmp_path: Path) -> None:
    tensors = load_file(unet / "diffusion_pytorch_model.safetensors")
    first = next(iter(tensors))
    broken = _copy(unet, tmp_path / "missing")
    save_file({k: v for k, v in tensors.items() if k != first}, broken / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=f"do not fit.*{first}"):
        load_denoiser(broken)
    broken = _copy(unet, tmp_path / "torn")
    whole = (unet / "diffusion_pytorch_model.safetensors").read_bytes()
    (broken / "diffusion_pytorch_model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_denoiser(broken)
    (broken / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safe_serialization"):
        load_denoiser(broken)
    (broken / "config.json").write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    with pytest.raises(CheckpointError, match="names no network"):
        load_denoiser(broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_denoiser(broken)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_denoiser(tmp_path)
    with pytest.raises(CheckpointError, match=r"no scheduler_config\.json"):
        load_scheduler(tmp_path)
