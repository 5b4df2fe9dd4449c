"""The four roads to small pictures, tiny: train, resume, load by kind, draw by number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ornstein
from ornstein.core.errors import CheckpointError, DataError
from ornstein.diffusion import DDPM
from ornstein.images import GAN, VAE, PixelDiffusion
from ornstein.networks.adversarial import DCGANConfig, R3GANConfig
from ornstein.networks.categorical_vae import CategoricalVAEConfig
from ornstein.networks.unet import UNetConfig
from ornstein.recipes import pixels
from ornstein.training import Optimization

TINY: dict[str, tuple[Any, Callable[..., Any], type]] = {
    "ddpm-pixels": (
        pixels.DDPMPixelsRecipe(network=UNetConfig(16, channels=8, multipliers=(1, 2), blocks=1, heads=2)),
        pixels.train_ddpm_pixels,
        PixelDiffusion,
    ),
    "gan": (pixels.GANRecipe(network=R3GANConfig(16, 6, 1, (8, 8))), pixels.train_gan, GAN),
    "dcgan": (pixels.DCGANRecipe(network=DCGANConfig(16, 6, (8, 8))), pixels.train_dcgan, GAN),
    "vae": (pixels.VAERecipe(network=CategoricalVAEConfig(16, (8, 8), 16, 2, 1, 4, 16, 8, 1, 4, 16)), pixels.train_vae, VAE),
}


def _recipe(name: str, steps: int) -> Any:
    from dataclasses import replace

    recipe = TINY[name][0]
    optimization = Optimization(
        steps=steps, batch_size=4, learning_rate=1e-3, warmup_steps=1, checkpoint_every=2, preview_every=4, betas=(0.5, 0.99),
        decay="constant", precision="fp32",
    )  # fmt: skip
    return replace(recipe, optimization=optimization, names=4)


@pytest.fixture(scope="module", params=TINY)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    name = request.param
    out = tmp_path_factory.mktemp("run") / name
    TINY[name][1](_recipe(name, 4), out)
    return name, out


def test_a_trained_model_is_loaded_by_its_kind_and_draws(trained: tuple[str, Path]) -> None:
    name, out = trained
    model = ornstein.load(out)
    assert type(model) is TINY[name][2]
    drawn = model.draw(range(3))
    assert (drawn.shape, drawn.dtype) == ((3, 16, 16, 3), np.uint8)
    assert drawn.std() > 0
    assert (out / "previews" / "step-0000004.png").exists()


def test_a_picture_keeps_its_number_in_any_batch(trained: tuple[str, Path]) -> None:
    model = ornstein.load(trained[1])
    together = model.draw(range(5), seed=7).astype(int)
    for order in ([3], [4, 0, 3]):
        assert np.abs(model.draw(order, seed=7).astype(int) - together[order]).max() <= 2  # rounding, in bf16 where it is native
    assert np.array_equal(model.draw(range(5), seed=7, batch_size=5), together)
    assert not np.array_equal(model.draw(range(5), seed=8), together)


def test_weights_of_another_configuration_are_refused(trained: tuple[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(trained[1] / "model", folder)
    data = json.loads((folder / "config.json").read_text())
    inner = data["config"].get("network", data["config"])
    inner["resolution"] = "large"
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError):
        ornstein.load(folder)


def test_mistakes_are_named(trained: tuple[str, Path]) -> None:
    model = ornstein.load(trained[1])
    for call, message in (
        (lambda: model.draw([]), "a number to draw"),
        (lambda: model.draw([0], batch_size=0), "batch size"),
        (lambda: model.draw([-1]), "sample index"),
    ):
        with pytest.raises(DataError, match=message):
            call()
    with pytest.raises(DataError, match="names"):
        type(TINY[trained[0]][0])(names=0)


def test_the_diffusion_model_takes_any_sampler(tmp_path: Path) -> None:
    """A U-Net at its start predicts v = 0: x̂_0 = α x_t, for which one step from T to 0 gives α_T x_T, clipped."""
    from ornstein.diffusion import KeyedNoise, NoiseSchedule
    from ornstein.images import PixelDiffusionConfig, to_pixels
    from ornstein.networks.unet import UNet

    schedule = NoiseSchedule.linear(num_steps=5, beta_start=0.1, beta_end=0.2)
    config = PixelDiffusionConfig(UNetConfig(16, channels=8, multipliers=(1,), blocks=1), schedule.to_json(), "v_prediction")
    model = PixelDiffusion(UNet(config.network), PixelDiffusionConfig.from_json(config.to_json()))
    noise = KeyedNoise(3, [1]).initial((3, 16, 16))
    drawn = model.draw([1], seed=3, stepper=model.sampler(DDPM, 1))
    assert np.abs(drawn.astype(int) - to_pixels(float(schedule.alphas[-1]) * noise).astype(int)).max() <= 1
    assert model.denoise(noise, torch.tensor([2])).shape == noise.shape
