"""Recipes `ddpm-pixels`, `gan`, `dcgan` and `vae`: small pictures from noise, four ways, on the same icons.

The defaults have parameters within 10 % of each other, and as many steps as one budget of arithmetic pays (66.6 TFLOP, counted by
`ornstein.claims.arithmetic`); the contest (claim D8) takes half of them. They were tuned with training seed 100 only; docs/lab-notes.md says how.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.checks import require_at_least, require_seeds
from ornstein.diffusion import Prediction, Weighting
from ornstein.networks.adversarial import AdversarialPair, DCGANConfig, R3GANConfig
from ornstein.networks.categorical_vae import CategoricalVAE, CategoricalVAEConfig
from ornstein.networks.unet import UNet, UNetConfig
from ornstein.training import Optimization

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from ornstein.images import PixelDiffusionConfig
    from ornstein.training import Batch, TrainResult
    from ornstein.training.objective import LossFn

CARD = """Draws icons: one OpenMoji drawing on a plain ground. Trained on icons rendered on the fly (stream seed 0). The drawings are CC BY-SA 4.0
by OpenMoji (https://openmoji.org), and so are these weights and the pictures that they draw."""


def _optimization(steps: int, **settings: Any) -> Optimization:
    return Optimization(
        **{"batch_size": 32, "warmup_steps": 100, "ema_decay": 0.999, "checkpoint_every": 500, "preview_every": 500} | settings,
        steps=steps,
    )


@dataclass(frozen=True)
class DDPMPixelsRecipe:
    """A U-Net that denoises pixels.

    names: how many of the vocabulary's names the icons show. prediction, weighting: see `ornstein.diffusion`.
    """

    network: UNetConfig = field(default_factory=UNetConfig)
    optimization: Optimization = field(default_factory=lambda: _optimization(3200, learning_rate=1e-3, weight_decay=0.01))
    names: int = 20
    data_seed: int = 0
    prediction: Prediction = "v_prediction"
    weighting: Weighting = "simple"

    def __post_init__(self) -> None:
        require_at_least(1, names=self.names)
        require_seeds(data_seed=self.data_seed)

    def config(self) -> PixelDiffusionConfig:
        from ornstein.diffusion import NoiseSchedule
        from ornstein.images import PixelDiffusionConfig

        return PixelDiffusionConfig(self.network, NoiseSchedule.cosine().to_json(), self.prediction)

    def objective(self) -> tuple[nn.Module, LossFn]:
        """A fresh network, and its loss on {"pixels": …}."""
        from ornstein.diffusion import NoiseSchedule, ddpm_loss

        schedule = NoiseSchedule.from_json(self.config().schedule)

        def loss_fn(model: Any, batch: Batch, rng: torch.Generator) -> Tensor:
            return ddpm_loss(
                model, batch["pixels"], None, schedule, self.prediction, rng, weighting=self.weighting, times="stratified"
            ).loss

        return UNet(self.network), loss_fn


@dataclass(frozen=True)
class GANRecipe:
    """The modern pair: the relativistic loss with R1 and R2. penalty: γ of both. names: as above."""

    network: R3GANConfig = field(default_factory=R3GANConfig)
    optimization: Optimization = field(
        default_factory=lambda: _optimization(
            5840,
            batch_size=8,
            learning_rate=3e-4,
            betas=(0.0, 0.99),
            weight_decay=0.0,
            max_grad_norm=None,
            final_learning_rate_fraction=0.25,
        )
    )
    names: int = 20
    data_seed: int = 0
    penalty: float = 0.5

    def __post_init__(self) -> None:
        require_at_least(1, names=self.names)
        require_at_least(0, penalty=self.penalty)
        require_seeds(data_seed=self.data_seed)

    def objective(self) -> tuple[nn.Module, LossFn]:
        """A fresh pair, and its loss on {"pixels": …}."""
        from ornstein.images.adversarial import relativistic_loss

        return AdversarialPair(self.network), lambda model, batch, rng: relativistic_loss(
            model, batch["pixels"], rng, penalty=self.penalty
        )


@dataclass(frozen=True)
class DCGANRecipe:
    """The classical pair with its classical settings (Radford et al. 2016): Adam at 2e-4 with β₁ = 0.5. names: as above."""

    network: DCGANConfig = field(default_factory=DCGANConfig)
    optimization: Optimization = field(
        default_factory=lambda: _optimization(
            4300, learning_rate=2e-4, betas=(0.5, 0.999), weight_decay=0.0, max_grad_norm=None, decay="constant", warmup_steps=0
        )
    )
    names: int = 20
    data_seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(1, names=self.names)
        require_seeds(data_seed=self.data_seed)

    def objective(self) -> tuple[nn.Module, LossFn]:
        """A fresh pair, and its loss on {"pixels": …}."""
        from ornstein.images.adversarial import classical_loss

        return AdversarialPair(self.network), lambda model, batch, rng: classical_loss(model, batch["pixels"], rng)


@dataclass(frozen=True)
class VAERecipe:
    """Groups of categorical latents. names: as above. scale_weight: see `ornstein.images.variational.negative_elbo`."""

    network: CategoricalVAEConfig = field(default_factory=CategoricalVAEConfig)
    optimization: Optimization = field(default_factory=lambda: _optimization(26_850, learning_rate=2e-3, weight_decay=0.01))
    names: int = 20
    data_seed: int = 0
    scale_weight: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(1, names=self.names)
        require_at_least(0, scale_weight=self.scale_weight)
        require_seeds(data_seed=self.data_seed)

    def objective(self) -> tuple[nn.Module, LossFn]:
        """A fresh network, and its loss on {"pixels": …}."""
        from ornstein.images.variational import negative_elbo

        return CategoricalVAE(self.network), lambda model, batch, rng: negative_elbo(
            model, batch["pixels"], rng, scale_weight=self.scale_weight
        )


PixelRecipe = DDPMPixelsRecipe | GANRecipe | DCGANRecipe | VAERecipe


def train_ddpm_pixels(recipe: DDPMPixelsRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """Train and export to `out/model`; a sheet of drawings lands in `out/previews` as training goes on."""
    from ornstein.images import PixelDiffusion

    config = recipe.config()
    return _train(recipe, "ddpm-pixels", "pixel-diffusion", config.to_json(), out, resume, lambda m: PixelDiffusion(m, config))


def train_gan(recipe: GANRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """As `train_ddpm_pixels`."""
    from ornstein.images import GAN

    return _train(recipe, "gan", "gan", {"recipe": "r3gan", **asdict(recipe.network)}, out, resume, GAN)


def train_dcgan(recipe: DCGANRecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """As `train_ddpm_pixels`."""
    from ornstein.images import GAN

    return _train(recipe, "dcgan", "gan", {"recipe": "dcgan", **asdict(recipe.network)}, out, resume, GAN)


def train_vae(recipe: VAERecipe, out: Path, *, resume: bool = False) -> TrainResult:
    """As `train_ddpm_pixels`."""
    from ornstein.images import VAE

    return _train(recipe, "vae", "vae", asdict(recipe.network), out, resume, VAE)


def _train(
    recipe: PixelRecipe, name: str, kind: str, config: dict[str, Any], out: Path, resume: bool, as_model: Callable[[Any], Any]
) -> TrainResult:
    from ornstein.data.icons import icon_names, icons
    from ornstein.images import to_tensor
    from ornstein.training import RunFolder, initialise, train

    RunFolder(out).check(resume=resume)
    names = icon_names(recipe.names)

    def batch_of(indices: np.ndarray) -> Batch:
        pictures, _ = icons(indices, names=names, seed=recipe.data_seed, resolution=recipe.network.resolution)
        return {"pixels": to_tensor(pictures)}

    def preview(model: nn.Module, step: int, path: Path) -> None:
        import copy

        from ornstein.data.pictures import contact_sheet

        drawn = as_model(copy.deepcopy(model)).draw(range(32))
        contact_sheet(drawn.repeat(3, 1).repeat(3, 2)).save(path)

    return train(
        initialise(lambda: recipe.objective()[0], recipe.optimization.seed),
        recipe.objective()[1],
        batch_of,
        recipe.optimization,
        out,
        recipe=name,
        kind=kind,
        config=config,
        hyper_parameters=asdict(recipe),
        preview=preview,
        card=CARD,
        resume=resume,
    )
