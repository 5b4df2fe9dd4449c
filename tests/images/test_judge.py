"""The shipped judge and first stage on fresh scenes: what the figures of generated pictures hang on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ornstein
from ornstein.core import CheckpointError, DataError, read_checkpoint
from ornstein.data.scenes import BACKGROUNDS, render, sample_scene
from ornstein.hub import BUNDLED
from ornstein.images import EmojiJudge, psnr, to_pixels, to_tensor

_SCENES = [sample_scene(i, seed=77, kind="single") for i in range(64)]
_PICTURES = np.stack([render(scene) for scene in _SCENES])


@pytest.fixture(scope="module")
def judge() -> EmojiJudge:
    return ornstein.load("emoji-classifier", expect="emoji-classifier")


def test_it_names_what_is_there(judge: EmojiJudge) -> None:
    verdicts = judge.verdicts(_PICTURES)
    assert (
        np.mean([verdict.ranking[0] == scene.objects[0].name for verdict, scene in zip(verdicts, _SCENES, strict=True)]) >= 0.95
    )
    for verdict in verdicts:
        assert len(set(verdict.ranking)) == 5
        assert 0.2 < verdict.probability <= 1.0


def test_it_says_that_it_does_not_know(judge: EmojiJudge) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 128, 128, 3), dtype=np.uint8)
    sure = np.mean([verdict.probability for verdict in judge.verdicts(_PICTURES)])
    assert np.mean([verdict.probability for verdict in judge.verdicts(noise)]) < sure - 0.3


def test_names_come_from_its_own_activations_too(judge: EmojiJudge) -> None:
    with torch.inference_mode():
        features = judge.network.features(to_tensor(_PICTURES)).double().numpy()
    assert judge.first_names(features) == [verdict.ranking[0] for verdict in judge.verdicts(_PICTURES)]
    with pytest.raises(DataError, match=r"\(n, 384\) activations"):
        judge.first_names(features[:, :5])


def test_backgrounds_are_read_from_the_border(judge: EmojiJudge) -> None:
    assert judge.backgrounds(_PICTURES) == [scene.background for scene in _SCENES]
    for name, rgb in BACKGROUNDS.items():
        assert judge.backgrounds(np.full((1, 64, 64, 3), rgb, np.uint8)) == [name]


def test_the_first_stage_gives_scenes_back() -> None:
    autoencoder = ornstein.load("autoencoder", expect="autoencoder")
    with torch.inference_mode():
        again = to_pixels(autoencoder.decode(autoencoder.encode(to_tensor(_PICTURES[:16]))))
    assert psnr(_PICTURES[:16], again).mean() >= 22


def test_a_judge_with_another_number_of_names_is_refused() -> None:
    checkpoint = read_checkpoint(BUNDLED / "emoji-classifier")
    checkpoint.config["names"] = checkpoint.config["names"][:-1]
    with pytest.raises(CheckpointError, match="one name for each"):
        EmojiJudge.from_checkpoint(checkpoint)
    checkpoint.config["names"].append("again")
    del checkpoint.config["channels"]
    with pytest.raises(CheckpointError, match="does not fit a classifier"):
        EmojiJudge.from_checkpoint(checkpoint)
