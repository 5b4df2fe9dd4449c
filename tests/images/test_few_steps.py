"""A few-step pipeline with students that are exact: what comes out is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ornstein.core.errors import CheckpointError, DataError
from ornstein.diffusion import NoiseSchedule
from ornstein.images import DrawingSettings, FewStepPipeline, TextToImageConfig, TextToImagePipeline, image_to_image, interpolate
from ornstein.networks.autoencoder import Autoencoder, AutoencoderConfig
from ornstein.networks.dit import DiT, DiTConfig
from ornstein.networks.jumping_dit import JumpingDiT

NETWORK = DiTConfig(width=32, depth=1, heads=2)
STAGE = AutoencoderConfig(quarter_channels=8, eighth_channels=8, encoder_blocks=1, decoder_blocks=1)
SCHEDULE = NoiseSchedule.cosine()
CONFIG = TextToImageConfig(NETWORK, SCHEDULE.to_json(), "v_prediction", "0" * 16, guidance_range=(1.0, 7.0))
APPLE = "a red apple"


class Gaussian(torch.nn.Module):
    """The flow map of N(w, 1/4) in each number of the latent: exact jumps whose end says which scale was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []

    def forward(self, x_t: Any, t: Any, s: Any, condition: Any, scale: Any) -> torch.Tensor:
        self.asked += list(zip(t.tolist(), s.tolist(), strict=True))
        now, then = (SCHEDULE.angle(time)[:, None, None, None].to(x_t.dtype) for time in (t, s))
        mean = scale[:, None, None, None]
        spread = [(angle.cos() ** 2 / 4 + angle.sin() ** 2).sqrt() for angle in (now, then)]
        end = then.cos() * mean + (x_t - now.cos() * mean) * spread[1] / spread[0]
        return ((now - then).cos() * x_t - end) / (now - then).sin()


@pytest.fixture
def pipeline() -> FewStepPipeline:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = FewStepPipeline(JumpingDiT(NETWORK), Autoencoder(STAGE), CONFIG)
    pipeline.denoiser = Gaussian()  # type: ignore[assignment]
    return pipeline


def _denoise(pipeline: TextToImagePipeline, steps: int, scale: float = 3.0, **settings: Any) -> torch.Tensor:
    return pipeline.denoise([APPLE, APPLE], [0, 1], num_inference_steps=steps, guidance_scale=scale, seed=5, **settings)


def test_one_step_is_as_good_as_many_and_goes_where_it_is_told(pipeline: FewStepPipeline) -> None:
    one, four = _denoise(pipeline, 1), _denoise(pipeline, 4)
    torch.testing.assert_close(one, four, atol=1e-4, rtol=1e-4)
    assert abs(float(one.mean()) - 3.0) < 0.05
    assert abs(float(one.std()) - 0.5) < 0.05
    assert pipeline.denoiser.asked == 2 * [(1000, 0)] + 2 * [(1000, 750), (750, 500), (500, 250), (250, 0)]
    assert abs(float(_denoise(pipeline, 2, scale=6.5).mean()) - 6.5) < 0.05


def test_a_step_costs_one_evaluation_on_one_branch(pipeline: FewStepPipeline) -> None:
    _denoise(pipeline, 2, scale=7.0, batch_size=2)
    assert len(pipeline.denoiser.asked) == 2 * 2  # type: ignore[arg-type]


def test_a_student_that_begins_as_its_teacher_draws_as_ddim_without_guidance() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher, student, stage = DiT(NETWORK), JumpingDiT(NETWORK), Autoencoder(STAGE)
        for parameter in teacher.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    student.start_from(teacher)
    ours = FewStepPipeline(student, stage, CONFIG)
    theirs = TextToImagePipeline(teacher, stage, TextToImageConfig(NETWORK, SCHEDULE.to_json(), "v_prediction", "0" * 16))
    assert torch.equal(_denoise(ours, 3, scale=4.0), _denoise(theirs, 3, scale=1.0))


def test_editing_works_by_jumps(pipeline: FewStepPipeline) -> None:
    from PIL import Image

    settings = DrawingSettings(num_inference_steps=4, guidance_scale=2.0)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    image_to_image(pipeline, APPLE, picture, strength=0.5, settings=settings)
    assert pipeline.denoiser.asked == [(500, 250), (250, 0)]
    assert len(interpolate(pipeline, (APPLE, "a dog"), 3, settings=settings)) == 3


def test_what_a_student_cannot_do_is_refused(pipeline: FewStepPipeline) -> None:
    for settings, message in (
        ({"sampler": "dpm++"}, "'ddim' with eta 0"),
        ({"eta": 0.5}, "'ddim' with eta 0"),
        ({"scale": 7.5}, "from 1 to 7, got 7.5"),
        ({"scale": 0.0}, "from 1 to 7, got 0"),
        ({"negative_prompt": "a dog"}, "no negative prompt"),
    ):
        with pytest.raises(DataError, match=message):
            _denoise(pipeline, 2, **settings)  # type: ignore[arg-type]


def test_the_configuration_tells_a_student_from_a_denoiser() -> None:
    assert TextToImageConfig.from_json(CONFIG.to_json()) == CONFIG
    plain = TextToImageConfig(NETWORK, {}, "v_prediction", "0" * 16)
    assert "guidance_range" not in plain.to_json()
    for wrong in ([7.0, 1.0], [1.0], ["a", 1.0], 3):
        with pytest.raises(CheckpointError, match="does not fit"):
            TextToImageConfig.from_json(CONFIG.to_json() | {"guidance_range": wrong})
