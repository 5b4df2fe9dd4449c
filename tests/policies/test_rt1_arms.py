"""What decides behind the eyes of a small RT-1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ornstein
from ornstein.core.checkpoint import write_checkpoint
from ornstein.core.errors import DataError, UnknownNameError
from ornstein.networks.waves import waves
from ornstein.policies import RT1, RT1Config, RT1Policy, rt1_loss
from ornstein.policies.rt1_arms import MLPArm
from ornstein.simulation.tabletop import contract

CONFIG = RT1Config(image_size=64, channels=(16, 16), blocks=(1, 1), arm="mlp", tokens=3, width=24, depth=2, language_width=16)
CHANNELS = 5
BODY = contract({"front": 64})
HEAD = {"kind": "bins", "length": 1, "decoding": "parallel", "bins": {"num_bins": 256}}


@pytest.fixture
def arm(shaken: Callable[[Callable[[], nn.Module]], nn.Module]) -> MLPArm:
    return cast("MLPArm", shaken(lambda: MLPArm(CHANNELS, tokens=3, words=16, state=7, width=24, depth=2, dropout=0.5)))


def _inputs(frames: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(4, frames, 3, CHANNELS + 2, generator=g),
        torch.randn(4, 16, generator=g),
        torch.randn(4, frames, 7, generator=g),
    )


def test_an_mlp_decides_as_written_out(arm: MLPArm) -> None:
    tokens, words, state = _inputs(1)
    weights = arm.state_dict()
    for row in range(4):
        read = [
            weights[f"features.{k}.weight"] @ token[:-2] + weights[f"features.{k}.bias"] for k, token in enumerate(tokens[row, 0])
        ]
        for token in tokens[row, 0]:
            read.append(token[-2:])
            for octave in range(4):
                read += [(token[-2:] * math.pi * 2**octave).sin(), (token[-2:] * math.pi * 2**octave).cos()]
        read += [waves(state[row, 0] / 3, 3), weights["words.weight"] @ words[row] + weights["words.bias"]]
        x = weights["enter.weight"] @ torch.cat(read) + weights["enter.bias"]
        for k in range(2):
            h = functional.layer_norm(x, (24,), weights[f"norms.{k}.weight"], weights[f"norms.{k}.bias"])
            h = functional.gelu(weights[f"layers.{k}.0.up.weight"] @ h + weights[f"layers.{k}.0.up.bias"], approximate="tanh")
            x = x + weights[f"layers.{k}.0.down.weight"] @ h + weights[f"layers.{k}.0.down.bias"]
        expected = functional.layer_norm(x, (24,), weights["norms.2.weight"], weights["norms.2.bias"])
        torch.testing.assert_close(arm(tokens, words, state)[row, 0], expected, atol=1e-4, rtol=1e-4)


def test_layers_are_left_out_in_training_alone(arm: MLPArm) -> None:
    inputs = _inputs()
    assert torch.equal(arm(*inputs), arm(*inputs))
    with torch.random.fork_rng():
        arm.train()
        assert not torch.equal(arm(*inputs), arm(*inputs))


def test_all_of_a_frame_matters_and_no_other_frame(arm: MLPArm) -> None:
    tokens, words, state = _inputs()
    decided = arm(tokens, words, state)
    for k in range(tokens.shape[2]):
        for part in (slice(CHANNELS), slice(CHANNELS, None)):
            changed = tokens.clone()
            changed[:, 1, k, part] *= -1
            found = arm(changed, words, state)
            assert (found[:, 1] - decided[:, 1]).abs().amax(-1).min() > 1e-3
            assert torch.equal(found[:, 0], decided[:, 0])
    assert (arm(tokens, -words, state) - decided).abs().amax(-1).min() > 1e-3
    assert (arm(tokens, words, -state) - decided).abs().amax(-1).min() > 1e-3


def test_it_may_read_neither_state_nor_words(shaken: Callable[[Callable[[], nn.Module]], nn.Module]) -> None:
    network = cast("RT1", shaken(lambda: RT1(replace(CONFIG, state_size=0, language_token=False), HEAD, BODY)))
    tokens, words, state = torch.randn(2, 1, 3, 18), torch.randn(2, 16), torch.randn(2, 1, 7)
    assert torch.equal(network.decide(tokens, words, state), network.decide(tokens, -words, None))
    with pytest.raises(DataError, match="reads 7 numbers of the arm's state"):
        RT1(CONFIG, HEAD, BODY).decide(tokens, words)


def test_behind_eyes_it_overfits_one_batch() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RT1(CONFIG, {**HEAD, "smoothing_bins": 0.5}, BODY)
    g = torch.Generator().manual_seed(2)
    pictures = torch.randint(0, 256, (8, 1, 64, 64, 3), generator=g, dtype=torch.uint8)
    sentence, state = torch.randn(8, 25, 512, generator=g), torch.randn(8, 1, 7, generator=g)
    low, high = (torch.from_numpy(np.asarray(bound)) for bound in (BODY.action_low, BODY.action_high))
    actions = torch.rand((8, 1, 1, 7), generator=g) * (high - low) + low
    places, headings = torch.rand(8, 1, 2, 2, generator=g) * 2 - 1, torch.ones(8, 1, 2)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(120):
        loss, _ = rt1_loss(network, pictures, sentence, state, actions, places, headings, g, acting=1.0, color_jitter=0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    said = network.head.sample(network(pictures, sentence, state)[0].flatten(0, 1), g, greedy=True)
    assert ((said - actions.flatten(0, 1)).abs() / (high - low) * 256).mean() < 2


def test_a_saved_one_acts_the_same(shaken: Callable[[Callable[[], nn.Module]], nn.Module], tmp_path: Path) -> None:
    from dataclasses import asdict

    network = cast("RT1", shaken(lambda: RT1(CONFIG, HEAD, BODY)))
    write_checkpoint(
        tmp_path / "it",
        kind="rt1",
        config={**asdict(CONFIG), "head": HEAD, "execution": {"every": 1, "ensemble_decay": None}},
        tensors=network.state_dict(),
        provenance={},
        card="",
        contract=BODY,
    )
    loaded = ornstein.load(tmp_path / "it", expect="rt1")
    assert isinstance(loaded, RT1Policy)
    observation = {
        "pixels": {"front": np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)},
        "agent_pos": np.full(7, 0.1, np.float32),
        "instruction": "pick up the lion",
    }
    assert np.array_equal(loaded.act(observation), RT1Policy(network, BODY).act(observation))  # type: ignore[arg-type]


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(DataError, match="decides from one frame: got a history of 2"):
        RT1Config(arm="mlp", history=2)
    with pytest.raises(UnknownNameError, match="transformer"):
        RT1Config(arm="transfomer")  # type: ignore[arg-type]
