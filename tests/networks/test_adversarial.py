from __future__ import annotations

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.networks.adversarial import AdversarialPair, DCGANConfig, FixupBlock, R3GANConfig

CONFIGS = (R3GANConfig(16, 6, 1, (8, 12)), DCGANConfig(16, 6, (8, 4)))


def _z(batch: int) -> torch.Tensor:
    return torch.randn(batch, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", CONFIGS)
def test_pictures_and_logits_have_their_shapes(config: R3GANConfig | DCGANConfig) -> None:
    pair = AdversarialPair(config)
    pictures = pair.draw(_z(3))
    assert pictures.shape == (3, 3, 16, 16)
    assert pair.judge(pictures).shape == (3,)
    for parameter in pair.parameters():
        parameter.grad = None
    pair.judge(pictures).sum().backward()
    assert all(p.grad is not None for p in pair.parameters())


def test_blocks_start_as_the_identity_and_scale_with_their_number() -> None:
    """Fix-up: whatever the depth, the network at its start is as if it had no blocks; the first layers shrink with 1/√blocks."""
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(FixupBlock(8, 4)(x), x)
    one, four = (FixupBlock(256, n).conv1.weight.detach().std() for n in (1, 4))
    assert abs(float(one / four) - 2) < 0.02
    assert abs(float(one) - (2 / 1.04 / (256 * 9)) ** 0.5) < 1e-4


def test_at_the_start_activations_are_of_unit_size() -> None:
    pair = AdversarialPair(R3GANConfig())
    with torch.no_grad():
        pictures = pair.draw(torch.randn(256, 64))
        assert 0.3 < float(pictures.std()) < 3
        assert 0.1 < float(pair.judge(torch.randn(256, 3, 32, 32)).std()) < 10


def test_dcgan_starts_as_the_paper_says() -> None:
    pair = AdversarialPair(DCGANConfig())
    weights = [m.weight.detach() for m in pair.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    assert all(abs(float(w.std()) - 0.02) < 0.002 for w in weights)
    assert pair.draw(torch.randn(8, 64)).abs().max() <= 1


def test_mistakes_are_named() -> None:
    pair = AdversarialPair(CONFIGS[0])
    for call, message in (
        (lambda: pair.draw(torch.zeros(2, 5)), r"\(batch, 6\)"),
        (lambda: pair.judge(torch.zeros(2, 3, 8, 8)), r"\(batch, 3, 16, 16\)"),
        (lambda: R3GANConfig(resolution=64), "give pictures of 32 px, not 64"),
        (lambda: DCGANConfig(channels=()), "0 levels"),
        (lambda: DCGANConfig(channels=(8, 0, 4)), r"channels\[1\]"),
    ):
        with pytest.raises(DataError, match=message):
            call()
