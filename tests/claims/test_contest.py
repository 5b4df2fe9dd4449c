"""How D8 judges, counts and scores; its verdicts are for `ornstein claims D8` to give."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ornstein.claims.arithmetic import count_flops
from ornstein.claims.comparison import Comparison
from ornstein.claims.contest import _roughness, contestants, judge_parts
from ornstein.claims.outcome import Measure, combined
from ornstein.data.icons import icon_names, icons

LOW, HIGH = [1.0, 1.1, 0.95], [5.0, 5.2, 5.1]
METHODS = ("diffusion", "modern GAN", "classical GAN", "VAE")


def _comparisons(**changes: dict[str, list[float]]) -> dict[str, Comparison]:
    """Diffusion is best everywhere, the VAE dull, the GANs' spread a hundredfold; then with changes."""
    distance = {"diffusion": LOW, "modern GAN": [20.0, 90.0, 45.0], "classical GAN": [30.0, 120.0, 50.0], "VAE": HIGH}
    coverage = {"diffusion": HIGH, "modern GAN": LOW, "classical GAN": LOW, "VAE": LOW}
    sharpness = {"diffusion": HIGH, "modern GAN": HIGH, "classical GAN": HIGH, "VAE": LOW}
    given = {"kernel distance": distance, "coverage": coverage, "sharpness": sharpness} | changes
    return {
        name: Comparison("here", name, Measure("floor", 0.0), 3, scores, more_is_better=not name.endswith("distance"))
        for name, scores in given.items()
    }


TIMES = {"diffusion": 20.0, "modern GAN": 1.0, "classical GAN": 0.5, "VAE": 1.5}


def test_each_statement_is_judged_by_itself() -> None:
    parts = judge_parts(_comparisons(), TIMES)
    assert parts["diffusion covers more than the GANs"] == "supported"
    assert parts["GAN and VAE draw faster"] == "supported"
    assert parts["a VAE's pictures are blurred"] == "supported"
    better_gan = {"diffusion": HIGH, "modern GAN": LOW, "classical GAN": HIGH, "VAE": HIGH}
    assert judge_parts(_comparisons(**{"kernel distance": better_gan}), TIMES)["diffusion has the best quality"] == "refuted"
    assert judge_parts(_comparisons(), TIMES | {"VAE": 30.0})["GAN and VAE draw faster"] == "refuted"
    sharp = {"diffusion": LOW, "modern GAN": LOW, "classical GAN": LOW, "VAE": HIGH}
    assert judge_parts(_comparisons(sharpness=sharp), TIMES)["a VAE's pictures are blurred"] == "refuted"


def test_a_failed_run_is_what_instability_means() -> None:
    steady = dict.fromkeys(METHODS, LOW)
    assert judge_parts(_comparisons(**{"kernel distance": steady}), TIMES)["the GANs' training is less stable"] == "cannot tell"
    failed = steady | {"classical GAN": LOW[:2]}
    assert judge_parts(_comparisons(**{"kernel distance": failed}), TIMES)["the GANs' training is less stable"] == "supported"
    both = failed | {"diffusion": LOW[:2]}
    assert judge_parts(_comparisons(**{"kernel distance": both}), TIMES)["the GANs' training is less stable"] == "cannot tell"
    wild = {"diffusion": LOW, "modern GAN": [1.0, 90.0, 8.0], "classical GAN": [2.0, 120.0, 9.0], "VAE": LOW}
    assert judge_parts(_comparisons(**{"kernel distance": wild}), TIMES)["the GANs' training is less stable"] == "supported"
    calm = {"diffusion": wild["modern GAN"], "modern GAN": LOW, "classical GAN": LOW, "VAE": LOW}
    assert judge_parts(_comparisons(**{"kernel distance": calm}), TIMES)["the GANs' training is less stable"] == "refuted"


def test_the_rows_verdict_is_its_weakest_part() -> None:
    assert combined({"a": "supported", "b": "supported"}) == "supported"
    assert combined({"a": "supported", "b": "cannot tell"}) == "cannot tell"
    assert combined({"a": "refuted", "b": "cannot tell"}) == "refuted"


def test_arithmetic_is_counted_by_hand() -> None:
    """y = x W of (5, 7) and (7, 11): 2·5·7·11; its backward twice that, or once where x needs no gradient."""
    layer = nn.Linear(7, 11)
    once = 2 * 5 * 7 * 11
    assert count_flops(lambda: layer(torch.zeros(5, 7))) == once
    assert count_flops(lambda: layer(torch.zeros(5, 7)).sum().backward()) == 2 * once
    assert count_flops(lambda: layer(torch.zeros(5, 7, requires_grad=True)).sum().backward()) == 3 * once
    conv = nn.Conv2d(2, 3, 3, padding=1)
    assert count_flops(lambda: conv(torch.zeros(4, 2, 6, 6))) == 2 * 4 * 36 * 2 * 3 * 9

    def penalty() -> None:  # a gradient within the loss, which torch's own counter cannot see through
        x = torch.zeros(5, 7, requires_grad=True)
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()

    assert count_flops(penalty) > 3 * once


def test_all_contestants_have_one_budget() -> None:
    """Parameters within 10 % of each other, and so is the arithmetic of a training."""
    from ornstein.claims.contest import _cost

    costs = np.array([_cost(one) for one in contestants().values()])
    assert (costs.max(0) / costs.min(0) < 1.1).all(), costs


def test_blur_lowers_sharpness() -> None:
    pictures, _ = icons(range(20), names=icon_names(10))
    small = pictures.reshape(20, 16, 2, 16, 2, 3).mean((2, 4))
    assert _roughness(np.repeat(np.repeat(small, 2, 1), 2, 2).astype(np.uint8)) < 0.9 * _roughness(pictures)
