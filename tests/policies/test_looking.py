"""Where a head is told to look, written out text by text; and that what it is told reaches the answers' readers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.data.questions import PLACES, place_of
from ornstein.language import TextTokenizer
from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork
from ornstein.policies import PlaceTokens, looking_loss, text_tensors
from ornstein.policies.looking import spoken_places
from ornstein.training import initialise

_MARKS = [f"<{axis}{k}>" for axis in "xy" for k in range(PLACES)]
TOKENIZER = TextTokenizer.train(
    ["Q: where is the lion? A: <x1> <y2>", "Q: what lies at <x3> <y4>? A: a lion"] * 3, size=460, special=_MARKS
)
KNOWN = PlaceTokens.of(TOKENIZER)
TEXTS = text_tensors(
    TOKENIZER,
    [
        ("where is the lion?", "<x20> <y31>"),
        ("what lies at <x3> <y60>?", "a lion"),
        None,
        ("what is this?", "a lion"),
        ("where to?", "<x5><y6><x63><y0>"),
    ],
)


def test_places_are_found_where_texts_speak_of_them() -> None:
    spoken = spoken_places(TEXTS, KNOWN)
    found = {
        (int(text), TOKENIZER.decode([int(TEXTS.tokens[text, token + 1])]), tuple(np.round(place.tolist(), 5)))
        for text, token, place in zip(*spoken, strict=True)
    }
    near = {name: tuple(np.round(place_of(name), 5)) for name in ("<x20> <y31>", "<x3> <y60>", "<x5> <y6>", "<x63> <y0>")}
    assert found == {
        (0, "<x20>", near["<x20> <y31>"]),
        (0, "<y31>", near["<x20> <y31>"]),
        (1, " a", near["<x3> <y60>"]),
        (4, "<x5>", near["<x5> <y6>"]),
        (4, "<y6>", near["<x5> <y6>"]),
        (4, "<x63>", near["<x63> <y0>"]),
        (4, "<y0>", near["<x63> <y0>"]),
    }


def test_the_loss_is_least_where_the_mean_look_is_the_place() -> None:
    spoken = spoken_places(TEXTS, KNOWN)
    grid, looks = 4, torch.full((*TEXTS.tokens[:, :-1].shape, 17), -30.0)
    looks[..., 16] = 3.0  # something besides the picture
    unlooked, log = looking_loss(looks, TEXTS, KNOWN)
    assert float(log["looks_right"]) < 0.5
    entropies = []
    for text, token, place in zip(*spoken, strict=True):
        where = ((place + 1) / 2 * grid - 0.5).clamp(0, grid - 1)
        column, row = (torch.tensor([max(1 - abs(float(where[axis]) - k), 0.0) for k in range(grid)]) for axis in (0, 1))
        share = (row[:, None] * column).flatten()
        looks[text, token] = torch.cat([share, torch.zeros(1)]).clamp_min(1e-9).log()
        entropies.append(float(-(share * share.clamp_min(1e-9).log()).sum()))
        axis = (torch.arange(grid) + 0.5) / grid * 2 - 1
        mean = torch.stack([(column * axis).sum(), (row * axis).sum()])
        inside = place.abs() <= 1 - 1 / grid
        torch.testing.assert_close(mean[inside], place[inside])
    least, log = looking_loss(looks, TEXTS, KNOWN)
    assert float(least) == pytest.approx(np.mean(entropies), abs=1e-4)
    assert float(log["looks_right"]) == 1.0
    assert float(unlooked) > float(least) + 1


def test_it_teaches_the_head_and_not_by_the_answers() -> None:
    """Gradients reach the query of the block in the middle; a step along them lowers the loss."""
    config = VisionLanguageConfig(
        image_size=32,
        channels=(8, 16),
        blocks=(0, 1),
        vision_depth=1,
        vision_heads=2,
        width=24,
        depth=3,
        heads=2,
        vocabulary=TOKENIZER.size,
    )
    network = initialise(lambda: VisionLanguageNetwork(config), 0)
    pictures = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def loss() -> torch.Tensor:
        read, looks = network.read_and_look(network.see(pictures), TEXTS.tokens[:, :-1])
        torch.testing.assert_close(read, network.follow(TEXTS.tokens[:, :-1], network.open(network.see(pictures)))[0])
        return looking_loss(looks, TEXTS, KNOWN)[0]

    before = loss()
    before.backward()
    assert network.blocks[1].cross.query.weight.grad.abs().max() > 0  # type: ignore[union-attr,operator]
    assert network.blocks[2].cross.query.weight.grad is None  # type: ignore[union-attr,operator]
    torch.optim.SGD(network.parameters(), 0.5).step()
    assert float(loss().detach()) < float(before.detach())


def test_texts_without_places_cost_nothing_and_a_tokenizer_without_them_is_refused() -> None:
    texts = text_tensors(TOKENIZER, [("what is this?", "a lion")])
    loss, log = looking_loss(torch.randn(1, texts.tokens.shape[1] - 1, 16), texts, KNOWN)
    assert (float(loss), log) == (0.0, {})
    with pytest.raises(DataError, match="no tokens of their own for places"):
        PlaceTokens.of(TextTokenizer.train(["a lion"], size=300))
