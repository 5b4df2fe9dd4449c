from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ornstein.training import ExponentialMovingAverage


def _walk(model: nn.Module, rng: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng))


def test_the_closed_form() -> None:
    """θ̄_N = Σ_n (1 − d_n) Π_{m>n} d_m θ_{n+1} + Π_n d_n θ_0, in float64."""
    model = nn.Linear(3, 2)
    average = ExponentialMovingAverage(model, decay=0.95)
    rng = torch.Generator().manual_seed(0)
    visited = [model.weight.detach().double().numpy().copy()]
    for n in range(300):
        _walk(model, rng)
        visited.append(model.weight.detach().double().numpy().copy())
        average.update(model, n)
    d = np.array([min(0.95, (1 + n) / (10 + n)) for n in range(300)])
    later = np.append(np.cumprod(d[::-1])[::-1][1:], 1.0)  # Π_{m>n} d_m
    expected = np.prod(d) * visited[0] + sum(w * v for w, v in zip((1 - d) * later, visited[1:], strict=True))
    np.testing.assert_allclose(average.model.weight.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_it_is_torchs_once_warm() -> None:
    model = nn.Linear(3, 2)
    ours = ExponentialMovingAverage(model, decay=0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)  # torch's first update copies
    rng = torch.Generator().manual_seed(0)
    for n in range(100, 150):
        _walk(model, rng)
        ours.update(model, n)
        theirs.update_parameters(model)
    torch.testing.assert_close(ours.model.weight, theirs.module.weight.detach())


def test_the_warm_up_of_the_decay() -> None:
    average = ExponentialMovingAverage(nn.Linear(1, 1), decay=0.99)
    assert [average.decay_at(n) for n in (0, 8, 90)] == [1 / 10, 9 / 18, 91 / 100]
    assert average.decay_at(889) == 890 / 899
    assert average.decay_at(891) == average.decay_at(10**6) == 0.99


def test_it_neither_disturbs_nor_follows_the_model_by_reference() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).train()
    average = ExponentialMovingAverage(model, decay=0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))  # moves batch norm's statistics
    statistics = model[1].running_mean.clone()
    average.update(model, 0)
    assert not average.model.training
    assert model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(average.model[1].running_mean, statistics)
    assert average.model[1].num_batches_tracked == 1
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name])


def test_a_parameter_in_two_places_is_averaged_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.append(model[0])
    average = ExponentialMovingAverage(model, decay=0.9)
    start = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    average.update(model, 10**6)
    assert average.model[0].weight is average.model[1].weight
    torch.testing.assert_close(average.model[0].weight, start + 0.1)
