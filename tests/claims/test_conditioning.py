"""V5's networks and rules; its verdict is for `ornstein claims V5` to give."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ornstein.claims.conditioning import WAYS, Concatenation, CrossAttention, Pointing, judge_parts, learn, pointed_right

WORDS = 16


@pytest.mark.parametrize("module", [Concatenation, CrossAttention])
def test_every_way_in_begins_as_the_identity(module: type[torch.nn.Module]) -> None:
    h = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(module(WORDS, 8)(h, torch.randn(2, WORDS)), h)


@pytest.mark.parametrize("name", WAYS)
def test_words_come_in_where_they_should_and_nowhere_else(name: str) -> None:
    """Disturbed, so that nothing is at its neutral start: the first block that hears differs, those before do not."""
    torch.manual_seed(0)
    model, pictures = Pointing(WAYS[name], WORDS), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    heard: list[torch.Tensor] = []
    for block in [*model.vision.quarter_blocks, *model.vision.eighth_blocks]:
        block.register_forward_hook(lambda _m, _i, out: heard.append(out))
    maps = []
    for words in (torch.ones(1, WORDS), -torch.ones(1, WORDS)):
        with torch.inference_mode():
            maps.append(model(pictures, words))
    differs = [not torch.equal(heard[k], heard[4 + k]) for k in range(4)]
    first = min(WAYS[name].blocks, default=4)
    assert differs == [k >= first for k in range(4)]
    assert torch.equal(*maps) == (name == "no language")
    assert (model.language_numbers > 0) == (name != "no language")


def test_it_learns_where_words_decide_and_only_with_them() -> None:
    """Two squares, red and blue; the word says which to point at."""

    def draw(indices: range) -> tuple[SimpleNamespace, torch.Tensor]:
        rng = np.random.default_rng(list(indices)[0])
        n = len(indices)
        pictures, pointers = np.zeros((n, 64, 64, 3), np.uint8), np.zeros((n, 2, 2), np.float32)
        words = torch.zeros(n, WORDS)
        for k in range(n):
            cells = rng.choice(64, 2, replace=False)
            asked = int(rng.integers(2))
            for colour, cell in enumerate(cells):
                row, column = divmod(int(cell), 8)
                pictures[k, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8, 2 * colour] = 255
                if colour == asked:
                    pointers[k] = (np.array([column, row]) + 0.5) / 4 - 1
            words[k] = 2.0 * asked - 1
        return SimpleNamespace(pictures=pictures, pointers=pointers), words

    found = {}
    for name in ("FiLM", "no language"):
        torch.manual_seed(0)
        model = Pointing(WAYS[name], WORDS)
        learn(model, draw, 60, 32, 0)  # type: ignore[arg-type]
        stills, words = draw(range(100_000, 100_100))
        found[name] = pointed_right(model, stills, words).mean()  # type: ignore[arg-type]
    assert found["FiLM"] > 0.95
    assert found["no language"] < 0.8


def test_each_statement_is_judged_still_by_still() -> None:
    rng = np.random.default_rng(0)
    film = np.tile((rng.random(1000) < 0.9).astype(float), (3, 1))  # three runs alike
    worse, equal = film * (rng.random(1000) < 0.8), film.copy()
    parts = judge_parts(
        {
            "FiLM": film,
            "no language": worse,
            "concatenation": equal,
            "cross-attention": np.minimum(film + 0.2, 1),
            "late fusion": equal,
        }
    )
    assert parts["FiLM is better than no language"] == "supported"
    assert parts["as good as concatenation at every block"] == "supported"
    assert parts["better than late fusion"] == "cannot tell"
    assert "better at every block than in the last alone" not in parts
    assert judge_parts({"FiLM": worse, "concatenation": film})["as good as concatenation at every block"] == "refuted"


def test_a_lead_that_depends_on_the_training_is_none() -> None:
    """One run of three is far better, in every still."""
    lucky = np.array([np.ones(500), np.zeros(500), np.zeros(500)])
    assert judge_parts({"FiLM": lucky, "no language": np.zeros((3, 500))})["FiLM is better than no language"] == "cannot tell"
