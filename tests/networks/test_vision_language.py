"""A text depends on what was said before and on its picture; the cache changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork

CONFIG = VisionLanguageConfig(
    image_size=32,
    channels=(8, 16),
    blocks=(0, 1),
    vision_depth=1,
    vision_heads=2,
    width=24,
    depth=2,
    heads=3,
    vocabulary=40,
    context=12,
)


@pytest.fixture
def network(shaken: Callable[[Callable[[], VisionLanguageNetwork]], VisionLanguageNetwork]) -> VisionLanguageNetwork:
    return shaken(lambda: VisionLanguageNetwork(CONFIG))


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(3, 3, 32, 32, generator=rng), torch.randint(0, 40, (3, 9), generator=rng)


def test_nothing_that_comes_later_matters_and_all_that_came_before_does(network: VisionLanguageNetwork) -> None:
    pictures, tokens = _inputs()
    seen = network.see(pictures)
    whole = network(seen, tokens)
    assert whole.shape == (3, 9, 40)
    for k in (0, 4):
        changed = tokens.clone()
        changed[:, k] = (changed[:, k] + 1) % 40
        difference = (network(seen, changed) - whole).abs().amax(-1)
        assert (difference[:, :k] == 0).all()
        assert (difference[:, k:] > 1e-4).all()
    torch.testing.assert_close(network(seen, tokens[:, :5]), whole[:, :5])


def test_one_token_after_the_other_is_all_at_once(network: VisionLanguageNetwork) -> None:
    pictures, tokens = _inputs()
    seen = network.see(pictures)
    whole = network(seen, tokens)
    logits, cache = network.begin(seen, tokens[:, :4])
    torch.testing.assert_close(logits, whole[:, 3])
    for k in range(4, 9):
        logits, cache = network.go_on(tokens[:, k], cache)
        torch.testing.assert_close(logits, whole[:, k])


def test_every_text_is_about_its_own_picture(network: VisionLanguageNetwork) -> None:
    """Also wherever in the picture something changes: every place is looked at."""
    pictures, tokens = _inputs()
    whole = network(network.see(pictures), tokens)
    for row, column in ((2, 3), (17, 29), (30, 9)):
        changed = pictures.clone()
        changed[1, :, row, column] = 1 - changed[1, :, row, column]
        difference = (network(network.see(changed), tokens) - whole).abs().amax((-1, -2))
        assert difference[1] > 1e-5
        assert (difference[[0, 2]] == 0).all()
    as_bytes = (pictures * 255).round().to(torch.uint8)
    torch.testing.assert_close(network.see(as_bytes.movedim(1, -1)), network.see(as_bytes.float() / 255))


def test_many_texts_about_one_picture_are_each_as_if_alone(network: VisionLanguageNetwork) -> None:
    pictures, tokens = _inputs()
    asked = torch.cat([tokens, tokens.flip(0)])[torch.tensor([0, 3, 1, 4, 2, 5])]
    together = network(network.see(pictures), asked)
    alone = torch.cat([network(network.see(pictures[k // 2 : k // 2 + 1]), asked[k : k + 1]) for k in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    _, cache = network.begin(network.see(pictures), asked[:, :3])
    torch.testing.assert_close(network.go_on(asked[:, 3], cache)[0], together[:, 3])


def test_the_size_that_ships_has_a_few_million_numbers() -> None:
    network = VisionLanguageNetwork(VisionLanguageConfig())
    assert 2e6 < sum(parameter.numel() for parameter in network.parameters()) < 5e6


def test_mistakes_are_named(network: VisionLanguageNetwork) -> None:
    pictures, tokens = _inputs()
    with pytest.raises(DataError, match="32 × 32"):
        network.see(pictures[:, :, :24])
    seen = network.see(pictures)
    with pytest.raises(DataError, match="18 tokens, this model's context holds 12"):
        network(seen, torch.cat([tokens, tokens], dim=1))
    with pytest.raises(DataError, match="4 texts cannot be as many for each of 3 pictures"):
        network(seen, tokens[[0, 0, 1, 2]])
    with pytest.raises(DataError, match="image_size"):
        VisionLanguageConfig(image_size=100)
    with pytest.raises(DataError, match="width"):
        VisionLanguageConfig(width=100)
