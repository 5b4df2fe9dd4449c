"""How D6 counts and judges; its verdict is for `ornstein claims D6` to give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ornstein.claims.arithmetic import count_flops, peak_bytes
from ornstein.claims.comparison import Comparison
from ornstein.claims.exam import DISTANCE, RIGHT
from ornstein.claims.latent_costs import Costs, budgets
from ornstein.claims.latent_or_pixels import Artefacts, Course, band_errors, judge_parts
from ornstein.claims.outcome import Measure
from ornstein.claims.pixel_rivals import CaptionedUNet, rivals
from ornstein.claims.small_text_to_image import Setting, condition_of, latents
from ornstein.core.errors import DataError
from ornstein.images import Estimate
from ornstein.networks.dit import TextCondition
from ornstein.networks.unet import UNetConfig

PARTS = (
    "about 50 times fewer numbers",
    "draws several times faster",
    "learns several times faster to equal quality",
    "at least the same quality",
    "slight artefacts",
)
PIXELS = ("P", "U")
TIMES = {"latents": {1: 10.0, 2: 20.0, 3: 30.0}, "P": {1: 20.0, 2: 40.0, 3: 60.0}, "U": {1: 30.0, 2: 60.0, 3: 90.0}}
SPREAD = (0.99, 1.0, 1.01)


def _course(latent: tuple[float, ...], pixels: tuple[float, ...] = (300.0, 200.0, 100.0), runs: int = 3) -> Course:
    """Kernel distances after each of three parts of a training, the same for both pixel models; three seeds."""
    distances = {"latents": latent} | dict.fromkeys(PIXELS, pixels)
    ends = {
        figure: Comparison("in all", figure, Measure("floor", 0.0), 3, more_is_better=figure != DISTANCE)
        for figure in (RIGHT, DISTANCE)
    }
    found = Course({name: [] for name in distances}, ends)
    for name, values in distances.items():
        for seed in range(runs):
            run = {step: {DISTANCE: value * SPREAD[seed], RIGHT: 0.5} for step, value in enumerate(values, 1)}
            found.runs[name].append(run)
            for figure, comparison in ends.items():
                comparison.add(name, run[3][figure])
        for _ in range(3 - runs):
            for comparison in ends.values():
                comparison.add(name, None)
    return found


def _costs(latent: tuple[float, ...] = (1.0, 1.1), pixels: tuple[float, ...] = (3.0, 3.1)) -> dict[str, Costs]:
    one = Costs("latents", 10, 1024, 4, 3, 1e12, 1e12, (1.0,), latent, latent, 0.1, 10, 10)
    return {"latents": one} | {
        name: replace(one, name=name, numbers=49152, encoding=0.0, picture=pixels, alone=pixels, encoded=0.0) for name in PIXELS
    }


def _artefacts(change: float = 0.1, lost: tuple[float, float, float] = (0.01, 0.0, 0.03)) -> Artefacts:
    nothing = np.zeros(3)
    return Artefacts(np.zeros((3, 4, 4, 3), np.uint8), {}, Estimate(change, 0.01), lost, nothing, nothing, nothing)


def _judged(course: Course, costs: dict[str, Costs] | None = None, artefacts: Artefacts | None = None) -> list[str]:
    parts = judge_parts(course, costs or _costs(), TIMES, artefacts or _artefacts())
    assert tuple(parts) == PARTS
    return list(parts.values())


def test_each_statement_is_judged_by_itself() -> None:
    assert _judged(_course((90.0, 60.0, 30.0))) == ["supported"] * 5
    costs = {name: replace(one, numbers=1024) for name, one in _costs(latent=(2.0, 2.0)).items()}
    bad = _artefacts(0.1, (0.2, 0.1, 0.3))
    assert _judged(_course((900.0, 600.0, 300.0)), costs, bad) == ["refuted"] * 5
    assert _judged(_course((150.0, 102.0, 100.5)), _costs(latent=(1.0, 2.0)), _artefacts(0.0))[1:] == [
        "cannot tell", "refuted", "cannot tell", "cannot tell",
    ]  # fmt: skip


def test_no_artefacts_are_not_slight_ones() -> None:
    assert _judged(_course((90.0, 60.0, 30.0)), artefacts=_artefacts(-0.1))[-1] == "refuted"
    assert _judged(_course((90.0, 60.0, 30.0)), artefacts=_artefacts(0.1, (0.04, 0.01, 0.08)))[-1] == "cannot tell"


def test_speed_to_equal_quality_by_hand() -> None:
    """The pixel models end at 100 after 60 and 90 s; the latent one is there after its second part, at 20 s, with every seed."""
    course = _course((150.0, 90.0, 80.0))
    assert course.times_faster("latents", "P", TIMES) == [3.0] * 3
    assert course.times_faster("latents", "U", TIMES) == [4.5] * 3
    course.runs["latents"][1] = {1: {DISTANCE: 300.0}, 2: {DISTANCE: 200.0}, 3: {DISTANCE: 100.0}}
    assert course.times_faster("latents", "P", TIMES) == [3.0, 2.0, 3.0]
    assert _judged(course)[2] == "supported"
    course.runs["latents"][1][3][DISTANCE] = 101.0  # never
    assert course.times_faster("latents", "P", TIMES) == [3.0, 0.0, 3.0]
    assert _judged(course)[2] == "cannot tell"


def test_a_training_that_diverged_leaves_open_what_it_was_to_show() -> None:
    judged = _judged(_course((90.0, 60.0, 30.0), runs=2))
    assert judged == ["supported", "supported", "cannot tell", "cannot tell", "supported"]


@pytest.mark.parametrize(("cycles", "fine"), [(40, True), (10, False)])
def test_errors_fall_into_the_band_of_their_frequency(cycles: int, fine: bool) -> None:
    """A grating of half the amplitude of the picture's own has a quarter of its power; the other band has no error."""
    place = np.arange(128)
    own = np.cos(2 * np.pi * 10 * place / 128) + np.cos(2 * np.pi * 40 * place / 128)
    wrong = np.cos(2 * np.pi * cycles * place / 128) / 2

    def pictures(wave: np.ndarray) -> np.ndarray:
        return np.broadcast_to((100 + 30 * wave)[None, None, :, None], (2, 128, 128, 3))

    high, low = band_errors(pictures(own), pictures(own + wrong))
    np.testing.assert_allclose(high, 0.25 if fine else 0, atol=1e-9)
    np.testing.assert_allclose(low, 0 if fine else 0.25, atol=1e-9)


def test_all_have_one_budget() -> None:
    """As many parameters and as much arithmetic, encoding included, within a tenth."""
    setting = Setting()
    spaces = [latents(setting), *rivals(setting)]
    sizes = np.array([sum(parameter.numel() for parameter in space.build().parameters()) for space in spaces])
    assert sizes.max() / sizes.min() < 1.1
    found = budgets(setting, spaces, 10)
    whole = np.array([one.training + one.encoding for one in found.values()])
    assert whole.max() / whole.min() < 1.01
    updates = np.array([one.steps for one in found.values()])
    assert updates.max() / updates.min() < 1.1
    assert [one.encoding > 0 for one in found.values()] == [True, False, False]


def test_the_u_net_reads_words_and_nothing_beyond_the_end() -> None:
    torch.manual_seed(0)
    network = CaptionedUNet(UNetConfig(16, 2, 8, (1, 2), 1, 2))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    x_t, t = torch.randn(1, 3, 16, 16), torch.tensor([500])
    apple, fox = (condition_of([caption]) for caption in ("a red apple", "a fox"))
    longer = TextCondition(torch.cat([fox.pieces, 9 * torch.ones(1, 3, 512)], 1), torch.cat([fox.mask, torch.zeros(1, 3) > 0], 1))
    assert not torch.allclose(network(x_t, t, apple), network(x_t, t, fox))
    assert torch.allclose(network(x_t, t, longer), network(x_t, t, fox), atol=1e-6)
    assert torch.isfinite(network(x_t, t, TextCondition.empty(1, 4))).all()
    with pytest.raises(DataError, match="reads captions"):
        network(x_t, t)


def test_arithmetic_is_counted_under_inference_too() -> None:
    layers = nn.Sequential(nn.Linear(7, 11), nn.Unflatten(1, (1, 1, 11)), nn.Conv2d(1, 2, (1, 3), padding=(0, 1)))
    x = torch.zeros(5, 7)
    once = count_flops(lambda: layers(x))
    assert once == 2 * 5 * 7 * 11 + 2 * 5 * 11 * 2 * 3
    with torch.inference_mode():
        assert count_flops(lambda: layers(x)) == once


def test_memory_is_counted_by_hand() -> None:
    """Numbers of four bytes."""

    def apart() -> None:
        for _ in range(5):  # each before the next, two at a time
            x = torch.zeros(1000)
            x = x + 1

    assert peak_bytes(apart) == 2 * 4000
    kept: list[torch.Tensor] = []
    assert peak_bytes(lambda: kept.append(torch.zeros(1000).view(10, 100))) == 4000
    x = torch.zeros(100, 8)
    layers = nn.Sequential(*(module for _ in range(6) for module in (nn.Linear(8, 8), nn.Sigmoid())))

    def forward() -> None:
        layers(x).sum()

    with torch.no_grad():
        assert peak_bytes(forward) == 2 * 3200
    # A sigmoid's output is kept for its own gradient and the next layer's; a linear layer's is not.
    assert peak_bytes(forward) == 7 * 3200
