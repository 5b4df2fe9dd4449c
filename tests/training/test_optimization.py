from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ornstein.core import TrainingError
from ornstein.training import Optimization
from ornstein.training.optimization import adamw, uses_bf16

CPU = torch.device("cpu")


def _settings(**changes: Any) -> Optimization:
    return Optimization(**{"steps": 10, "batch_size": 2, "learning_rate": 1e-2, **changes})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size"),
        ({"log_every": 0}, "log_every"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"preview_every": 0}, "preview_every"),
        ({"keep_checkpoints": 0}, "keep_checkpoints"),
        ({"warmup_steps": -1}, "warmup_steps must be finite and not negative"),
        ({"seed": -1}, "seed"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"final_learning_rate_fraction": -0.1}, "final_learning_rate_fraction"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"max_grad_norm": float("inf")}, "None for no clipping"),
        ({"final_learning_rate_fraction": 7.0}, "final_learning_rate_fraction"),
        ({"seed": 2**63}, "seed"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\)"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"betas": (-0.1, 0.9)}, "betas"),
        ({"decay": "exponential"}, "cosine, constant or linear"),
        ({"precision": "fp16"}, "auto, fp32 or bf16"),
    ],
)
def test_an_impossible_hyper_parameter_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        _settings(**change)


def test_weight_decay_acts_on_matrices_only() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 4))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = adamw(model, _settings(weight_decay=0.1), CPU)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        shrunk = before[name] * (1 - 1e-2 * 0.1) if parameter.ndim >= 2 else before[name]
        torch.testing.assert_close(parameter.detach(), shrunk, rtol=1e-6, atol=0)


def test_frozen_parameters_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    optimizer = adamw(model, _settings(), CPU)
    optimised = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in model[1].parameters()}
    with pytest.raises(TrainingError, match="nothing to train"):
        adamw(model.requires_grad_(False), _settings(), CPU)


def test_precision_follows_the_hardware_only_when_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert uses_bf16(_settings(precision="auto"), CPU) is native
        assert uses_bf16(_settings(precision="bf16"), CPU) is True
        assert uses_bf16(_settings(precision="fp32"), CPU) is False
    assert uses_bf16(_settings(precision="auto"), torch.device("mps")) is False
