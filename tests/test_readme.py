"""The README's Python runs as it stands and does what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_models_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ornstein.simulation import TabletopEnv

    monkeypatch.chdir(tmp_path)
    env = TabletopEnv()
    try:
        observation, info = env.reset(seed=0)
    finally:
        env.close()
    names = {"observation": {**observation, "instruction": info["instruction"]}}
    exec(BLOCKS[0].replace("num_inference_steps=50", "num_inference_steps=2"), names)
    assert (tmp_path / "apples.png").exists()
    assert np.asarray(names["action"]).shape == (7,)


def test_the_diffusion_core_on_an_exact_denoiser() -> None:
    names: dict[str, torch.Tensor] = {}
    exec(BLOCKS[1], names)
    assert f"{names['x_0'].mean():.3f} and {names['x_0'].std():.3f}" in BLOCKS[1]


def test_the_names_on_the_page_exist() -> None:
    from ornstein.cli import COMMANDS
    from ornstein.commands.train import RECIPES

    commands = set(re.findall(r"^ornstein (\w+)", README, re.MULTILINE))
    assert commands == set(COMMANDS)
    for recipe in RECIPES:
        assert recipe in README
