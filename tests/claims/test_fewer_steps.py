"""How D5 judges; its verdict is for `ornstein claims D5` to give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ornstein
from ornstein.claims import fewer_steps
from ornstein.claims.fewer_steps import Way, _draw, judge_parts, spread_change
from ornstein.data.icons import icon_names, icons
from ornstein.diffusion import DDIM, NoiseSchedule
from ornstein.images import Estimate, Extractor, Features, PixelDiffusion
from ornstein.images.pixel_models import PixelDiffusionConfig
from ornstein.networks.unet import UNet, UNetConfig

WORSE, EQUAL, OPEN = Estimate(0.5, 0.05), Estimate(0.01, 0.01), Estimate(0.04, 0.05)


def _judged(ddim: Estimate, few: Estimate, ddpm: Estimate, spread: Estimate, law: float) -> list[str]:
    changes = {("DDIM", 50): ddim, ("DDIM", 10): WORSE, ("2M", 20): few, ("DDPM", 50): ddpm, ("DDPM", 1000): Estimate(0.0, 0.0)}
    return list(judge_parts(1.0, changes, spread, {"η = 0": law, "η = 1": 0.01}, 0.02).values())


def test_each_statement_is_judged_by_its_interval() -> None:
    """Near is within 0.05 of a distance of 1."""
    assert _judged(EQUAL, EQUAL, WORSE, Estimate(-0.3, 0.1), 0.01) == ["supported"] * 5
    assert _judged(WORSE, WORSE, Estimate(-0.5, 0.1), Estimate(0.3, 0.1), 0.03) == ["refuted"] * 5
    assert _judged(OPEN, OPEN, OPEN, Estimate(0.0, 0.1), 0.01)[:4] == ["cannot tell"] * 4


def test_spread_is_the_mean_distance_of_pairs_and_its_error_covers() -> None:
    """Points scaled by 1.1 are a tenth farther apart; over many draws the interval holds the true change nineteen times in twenty."""

    def features(values: np.ndarray) -> Features:
        return Features(values, "x", "y", "z")

    covered, values = [], []
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.normal(size=(60, 3))
        change = spread_change(features(points), features(1.1 * points))
        pairs = [np.linalg.norm(points[i] - points[j]) for i in range(60) for j in range(i)]
        assert change.value == pytest.approx(0.1 * np.mean(pairs), rel=1e-6)
        values.append(change)
    truth = np.mean([change.value for change in values])
    covered = [change.interval[0] <= truth <= change.interval[1] for change in values]
    assert 0.9 <= np.mean(covered) <= 0.99


def test_pictures_are_drawn_once_and_those_of_other_weights_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time nothing but the timing's few pictures is drawn; with another weight everything is."""
    names = icon_names(3)
    extractor = Extractor.of_judge(ornstein.load("emoji-classifier", expect="emoji-classifier"))
    real = extractor.extract(icons(range(8), names=names, seed=1)[0])
    network = UNet(UNetConfig(channels=8, multipliers=(1, 1), blocks=1, heads=0))
    model = PixelDiffusion(network, PixelDiffusionConfig(network.config, NoiseSchedule.cosine().to_json(), "v_prediction"))
    drawn, draw = [], PixelDiffusion.draw
    monkeypatch.setattr(
        PixelDiffusion, "draw", lambda self, numbers, **rest: (drawn.append(len(numbers)), draw(self, numbers, **rest))[1]
    )
    monkeypatch.setattr(fewer_steps, "_TIMED", 1)
    arguments = (Way(DDIM, {}, (2,)), 2, 8, "DDIM", extractor, real, 1.0, tmp_path)
    first = _draw(model, *arguments)
    assert drawn == [8, 1, 1, 1]
    drawn.clear()
    second = _draw(model, *arguments)
    assert drawn == [1, 1, 1]
    np.testing.assert_array_equal(first.features.values, second.features.values)
    drawn.clear()
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    _draw(model, *arguments)
    assert drawn == [8, 1, 1, 1]
