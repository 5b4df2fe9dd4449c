"""Every shipped model is what its recipe makes today: the same hyper-parameters, first stage, world and vocabulary."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from ornstein.assets import openmoji
from ornstein.core import Checkpoint, read_checkpoint
from ornstein.hub import BUNDLED, bundled_names
from ornstein.recipes.autoencoder import AutoencoderRecipe
from ornstein.recipes.emoji_classifier import EmojiClassifierRecipe
from ornstein.recipes.modular_tabletop import ModularTabletopRecipe
from ornstein.recipes.rt1_tabletop import RT1TabletopRecipe
from ornstein.recipes.text_to_image import TextToImageRecipe, hyper_parameters
from ornstein.recipes.vlm_emoji import VLMEmojiRecipe
from ornstein.simulation.tabletop import contract

RECIPES: dict[str, Any] = {
    "autoencoder": AutoencoderRecipe(),
    "emoji-classifier": EmojiClassifierRecipe(),
    "modular-tabletop": ModularTabletopRecipe(),
    "rt1-tabletop": RT1TabletopRecipe(),
    "text-to-image": TextToImageRecipe(),
    "vlm-emoji": VLMEmojiRecipe(),
}
# Where a run found its data, and how often it wrote something, change no weight.
_NOT_COMPARED = ("data", "cache", "data_fingerprint")


@pytest.fixture(params=list(RECIPES))
def shipped(request: pytest.FixtureRequest) -> Checkpoint:
    return read_checkpoint(BUNDLED / request.param)


def test_nothing_is_missing_or_extra() -> None:
    assert bundled_names() == sorted(RECIPES)


def test_it_was_trained_by_the_recipe_as_committed(shipped: Checkpoint) -> None:
    own = RECIPES[shipped.path.name]
    settings = hyper_parameters(own) if isinstance(own, TextToImageRecipe) else asdict(own)
    recipe = json.loads(json.dumps(settings, default=str))
    trained = dict(shipped.provenance["hyper_parameters"])
    for name in _NOT_COMPARED:
        recipe.pop(name, None)
        trained.pop(name, None)
    assert trained == recipe
    assert shipped.provenance["steps"] == RECIPES[shipped.path.name].optimization.steps
    assert shipped.provenance["seconds"] <= 90 * 60


def test_matrices_are_half_precision_and_every_number_is_finite(shipped: Checkpoint) -> None:
    for name, array in shipped.tensors().items():
        assert np.isfinite(array).all(), name
        assert array.dtype == (np.float16 if array.ndim >= 2 else np.float32) or not np.issubdtype(array.dtype, np.floating), name


def test_the_card_says_where_it_comes_from(shipped: Checkpoint) -> None:
    card = (shipped.path / "card.md").read_text(encoding="utf8")
    assert f"ornstein train {shipped.path.name}" in card
    assert shipped.provenance["commit"] in card


def test_they_fit_each_other_and_the_world() -> None:
    first_stage = read_checkpoint(BUNDLED / "autoencoder").fingerprint
    assert read_checkpoint(BUNDLED / "text-to-image").config["autoencoder_fingerprint"] == first_stage
    assert read_checkpoint(BUNDLED / "emoji-classifier").config["names"] == list(openmoji.names())
    for name in ("modular-tabletop", "rt1-tabletop"):
        policy = read_checkpoint(BUNDLED / name)
        assert policy.contract is not None
        size = policy.config.get("network", policy.config)["image_size"]
        policy.contract.require_match(contract({"front": size}), "the shipped policy", "the tabletop")
