"""The README's Python runs as it stands and does what its comments say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ornstein.core import read_checkpoint
from ornstein.hub import BUNDLED, SHIPPED

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_models_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ornstein.simulation.tabletop import TabletopEnv

    monkeypatch.chdir(tmp_path)
    env = TabletopEnv()
    try:
        observation, _ = env.reset(seed=0)
    finally:
        env.close()
    names = {"observation": observation}
    exec(BLOCKS[0].replace("num_inference_steps=50", "num_inference_steps=2"), names)
    assert (tmp_path / "apples.png").exists()
    assert np.asarray(names["action"]).shape == (7,)


def test_the_diffusion_core_on_an_exact_denoiser() -> None:
    names: dict[str, torch.Tensor] = {}
    exec(BLOCKS[1], names)
    assert f"{names['x_0'].mean():.3f} and {names['x_0'].std():.3f}" in BLOCKS[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


@pytest.mark.usefixtures("benchmarks")
def test_every_figure_on_the_page_and_in_the_cards_comes_from_a_results_file() -> None:
    import cards
    import questions_page
    import readme

    assert readme.with_figures(README, readme.table()) == README, "run benchmarks/readme.py"
    page = questions_page.PAGE.read_text(encoding="utf8")
    assert questions_page.with_figures(page, questions_page.table()) == page, "run benchmarks/questions_page.py"
    for name in SHIPPED:
        assert (BUNDLED / name / "card.md").read_text(encoding="utf8") == cards.card(name), "run benchmarks/cards.py"
    for line in README.split(readme.BEGIN)[0].splitlines() + README.split(readme.END)[1].splitlines():
        assert not re.search(r"\d+(\.\d+)? ?(%|dB)", line.replace("95 % interval", "interval")), line


@pytest.mark.usefixtures("benchmarks")
def test_the_results_are_of_the_shipped_models() -> None:
    from record import RESULTS

    pictures, robot = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("pictures", "tabletop-pipeline"))
    for name, fingerprint in pictures["checkpoints"].items():
        assert fingerprint == read_checkpoint(BUNDLED / name).fingerprint, name
    asked = json.loads((RESULTS / "questions.json").read_text())
    assert asked["fingerprint"] == read_checkpoint(BUNDLED / "vlm-emoji").fingerprint
    assert robot["checkpoint"] == read_checkpoint(BUNDLED / "modular-tabletop").fingerprint


def test_the_names_on_the_page_exist() -> None:
    from ornstein.cli import COMMANDS
    from ornstein.commands.train import RECIPES

    commands = set(re.findall(r"^ornstein ([\w-]+)", README, re.MULTILINE))
    assert commands == set(COMMANDS)
    for recipe in RECIPES:
        assert recipe in README
