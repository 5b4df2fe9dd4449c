"""The shapes in the signatures are true: the public surface runs with jaxtyping's annotations checked by beartype.

In a process of its own, since the annotations must be there before `ornstein.diffusion` is first imported.
"""

from __future__ import annotations

import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Any


def test_the_annotated_shapes_hold_and_are_checked() -> None:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["runs", "refuses"]


def _tour() -> None:
    import beartype

    # The modules import their annotations for type checkers only: users need not have jaxtyping.
    import scipy.integrate  # noqa: F401  # before the next line: scipy's own typing imports are not there at run time
    import torch
    from jaxtyping import TypeCheckError, install_import_hook

    import ornstein  # noqa: F401  # before the next line too: what it imports for type checkers is all the rest

    typing.TYPE_CHECKING = True
    with install_import_hook("ornstein.diffusion", "beartype.beartype"):
        import ornstein.diffusion as d
    assert beartype is not None

    schedule = d.NoiseSchedule.linear()
    x, t = torch.zeros(3, 2), torch.tensor([1, 2, 3])
    noise = d.KeyedNoise(0, [0, 1, 2])
    gaussian = d.Gaussian(torch.zeros(2), torch.eye(2))
    mixture = d.GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
    for picture in (x, torch.zeros(3, 4, 5, 6)):
        schedule.add_noise(picture, t, picture)
        schedule.forward_step(picture, t, picture)
        d.ddpm_loss(lambda x, t, c: x, picture, None, schedule, "v_prediction", torch.Generator(), weighting="min_snr")
        d.ClassifierFreeGuidance(lambda x, t, c: x, 2.0, torch.zeros(1), rescale=0.5)(picture, t, torch.zeros(3))
        d.convert(picture, "epsilon", "score", picture, *schedule.alpha_sigma(t, picture))
        for sampler in (d.DDPM, d.DDIM, d.Euler, d.Heun, d.DPMSolverPP2M, d.DPMSolverPP2MSDE, d.DPMSolverPP3M):
            start = noise.initial(picture.shape[1:])
            sampler(schedule, 3, prediction="sample").sample(lambda x, t, c: x, start, None, noise)
    for data in (gaussian, mixture, d.DiscreteData(torch.zeros(4, 2))):
        draws = data.sample(3, torch.Generator())
        data.log_prob(draws, 0.6, 0.8)
        data.score(draws, 0.6, 0.8)
        data.posterior_variance(draws, 0.6, 0.8)
        data.optimal_loss(schedule, 10, "epsilon", n=4, rng=torch.Generator())
        data.flow(draws, schedule, 900, 30.5, tolerance=1e-3)
        data.denoiser(schedule, "epsilon")(x, t, None)
        data.denoiser(schedule, "epsilon")(x, t - 0.5, None)
    gaussian.flow(x, schedule, 900, 3)
    exact = gaussian.denoiser(schedule, "epsilon")
    found = d.flow_log_likelihood(exact, x, None, schedule, "epsilon", tolerance=1e-2)
    d.bits_per_dimension(found.log_prob, 2, levels=256)
    assert d.variational_bound(exact, x, None, schedule, "epsilon", torch.Generator(), evaluations=2).total.shape == (3,)
    d.dequantise(t, 4, torch.Generator())
    schedule.log_snr(t)
    print("runs")

    for call in _wrong(d):
        try:
            call()
        except TypeCheckError:
            continue
        raise AssertionError("a wrong shape was accepted")
    print("refuses")


def _wrong(d: Any) -> list[Callable[[], Any]]:
    """Calls of `ornstein.diffusion` with a wrong shape or type each."""
    import torch

    schedule, gaussian = d.NoiseSchedule.linear(), d.Gaussian(torch.zeros(2), torch.eye(2))
    x, t = torch.zeros(3, 2), torch.tensor([1, 2, 3])
    return [
        lambda: schedule.add_noise(x, t[:2], x),
        lambda: schedule.alpha(t.int()),
        lambda: schedule.forward_step(x.long(), t, x),
        lambda: d.convert(x, "sample", "epsilon", torch.zeros(2, 2), 0.6, 0.8),
        lambda: gaussian.flow(torch.zeros(3), schedule, 5, 3),
        lambda: gaussian.denoiser(schedule, "epsilon")(x, t[None]),
        lambda: d.GaussianMixture(torch.ones(2), torch.zeros(1, 2), torch.eye(2)[None]),
    ]


if __name__ == "__main__":
    _tour()
