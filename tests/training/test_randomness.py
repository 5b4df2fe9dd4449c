from __future__ import annotations

import itertools

import torch
from torch import nn

from ornstein.training import initialise
from ornstein.training.randomness import borrowed_global_generator, step_seeds


def test_seeds_differ_between_steps_processes_and_trainings() -> None:
    keys = list(itertools.product(range(3), range(200), range(4)))
    seeds = [seed for key in keys for seed in step_seeds(*key)]
    assert len(set(seeds)) == 2 * len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seeds(1, 2, 3) == step_seeds(1, 2, 3)


def test_the_global_generator_is_handed_back() -> None:
    before = torch.get_rng_state()
    with borrowed_global_generator(3, torch.device("cpu")):
        inside = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    with borrowed_global_generator(3, torch.device("cpu")):
        assert torch.equal(torch.rand(4), inside)


def test_initialise_depends_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    weights = [initialise(lambda: nn.Linear(4, 4), seed).weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)
