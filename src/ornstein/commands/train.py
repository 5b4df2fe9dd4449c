"""`ornstein train RECIPE`: every hyper-parameter of a recipe is an option."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import tyro

from ornstein.commands.parsing import read
from ornstein.core.errors import unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPES: dict[str, str] = {
    "autoencoder": "128 px emoji scenes to 16×16×4 latents and back",
    "text-to-image": "a diffusion transformer over those latents, steered by a sentence; on your own pictures with --data FOLDER",
    "text-to-image-fast": "a student of it that draws in one to four steps",
    "emoji-classifier": "the frozen judge that names the object in a picture",
    "ddpm-pixels": "diffusion over the pixels of 32 px icons",
    "gan": "a modern GAN (relativistic loss, R1 and R2) on the same icons",
    "dcgan": "a classical GAN on the same icons",
    "vae": "a variational autoencoder with categorical latents on the same icons",
    "rt1-tabletop": "a small RT-1 that learns the tabletop's eight skills from demonstrations (records them first)",
    "diffusion-policy-tabletop": "an arm that decides chunks of actions out of noise, or by any action head, behind the eyes of an RT-1",
    "diffusion-policy-tabletop-fast": "a student of it that decides a chunk in one step",
    "vlm-emoji": "a small vision-language model that answers questions about pictures: what a robot's policy can start from",
    "rt2-tabletop": "a small RT-2: that model learns to act, in words for actions, and goes on answering",
    "modular-tabletop": "the eyes of the classical pipeline, which find and name what stands on the tabletop",
}


RecipeT = TypeVar("RecipeT")


@dataclass(frozen=True)
class Run(Generic[RecipeT]):
    """Train this recipe. Progress, log, previews, resumable checkpoints and finally the model land in --out.

    Args:
        recipe: The hyper-parameters.
        out: The run's folder; runs/RECIPE unless given.
        resume: Go on from the newest checkpoint in --out, bit for bit as if never interrupted.
        overfit_one_batch: A sanity check: the first batch again and again, whose loss must fall. What it leaves is no model to use.
    """

    recipe: Annotated[RecipeT, tyro.conf.arg(name="")]
    out: Path | None = None
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    overfit_one_batch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def train(arguments: list[str]) -> int:
    """Train the recipe named first; the remaining words are its options (see `ornstein train RECIPE --help`)."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    name, rest = arguments[0], arguments[1:]
    recipe_type, train_recipe = _recipe(name)
    run = read(Run[recipe_type], rest, f"train {name}")  # type: ignore[valid-type]
    out = run.out or Path("runs") / (f"{name}-one-batch" if run.overfit_one_batch else name)
    from ornstein.training import overfitting_one_batch

    with overfitting_one_batch() if run.overfit_one_batch else nullcontext():
        result = train_recipe(run.recipe, out, resume=run.resume)
    print(result.model_path)
    return 0


def _recipe(name: str) -> tuple[type, Callable[..., Any]]:
    match name:
        case "autoencoder":
            from ornstein.recipes.autoencoder import AutoencoderRecipe, train_autoencoder

            return AutoencoderRecipe, train_autoencoder
        case "text-to-image":
            from ornstein.recipes.text_to_image import TextToImageRecipe, train_text_to_image

            return TextToImageRecipe, train_text_to_image
        case "text-to-image-fast":
            from ornstein.recipes.text_to_image_fast import FastTextToImageRecipe, train_text_to_image_fast

            return FastTextToImageRecipe, train_text_to_image_fast
        case "emoji-classifier":
            from ornstein.recipes.emoji_classifier import EmojiClassifierRecipe, train_emoji_classifier

            return EmojiClassifierRecipe, train_emoji_classifier
        case "diffusion-policy-tabletop":
            from ornstein.recipes.diffusion_policy_tabletop import DiffusionPolicyTabletopRecipe, train_diffusion_policy_tabletop

            return DiffusionPolicyTabletopRecipe, train_diffusion_policy_tabletop
        case "diffusion-policy-tabletop-fast":
            from ornstein.recipes.diffusion_policy_tabletop_fast import (
                FastDiffusionPolicyTabletopRecipe,
                train_diffusion_policy_tabletop_fast,
            )

            return FastDiffusionPolicyTabletopRecipe, train_diffusion_policy_tabletop_fast
        case "modular-tabletop":
            from ornstein.recipes.modular_tabletop import ModularTabletopRecipe, train_modular_tabletop

            return ModularTabletopRecipe, train_modular_tabletop
        case "vlm-emoji":
            from ornstein.recipes.vlm_emoji import VLMEmojiRecipe, train_vlm_emoji

            return VLMEmojiRecipe, train_vlm_emoji
        case "rt2-tabletop":
            from ornstein.recipes.rt2_tabletop import RT2TabletopRecipe, train_rt2_tabletop

            return RT2TabletopRecipe, train_rt2_tabletop
        case "ddpm-pixels" | "gan" | "dcgan" | "vae":
            from ornstein.recipes import pixels

            found: dict[str, tuple[type, Callable[..., Any]]] = {
                "ddpm-pixels": (pixels.DDPMPixelsRecipe, pixels.train_ddpm_pixels),
                "gan": (pixels.GANRecipe, pixels.train_gan),
                "dcgan": (pixels.DCGANRecipe, pixels.train_dcgan),
                "vae": (pixels.VAERecipe, pixels.train_vae),
            }
            return found[name]
        case "rt1-tabletop":
            from ornstein.recipes.rt1_tabletop import RT1TabletopRecipe, train_rt1_tabletop

            return RT1TabletopRecipe, train_rt1_tabletop
        case _:
            raise unknown_name("recipe", name, RECIPES)


def _overview() -> str:
    lines = ["usage: ornstein train RECIPE [--out FOLDER] [--resume] [--FIELD VALUE …]", "", "Recipes:", ""]
    lines += [f"  {name:<20}{text}" for name, text in RECIPES.items()]
    lines += [
        "",
        "`ornstein train RECIPE --help` lists every hyper-parameter with the value that the shipped model was trained with.",
    ]
    return "\n".join(lines)
