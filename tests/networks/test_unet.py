from __future__ import annotations

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.networks.unet import UNet, UNetConfig

CONFIG = UNetConfig(resolution=16, channels=8, multipliers=(1, 2), blocks=1, heads=2)


@pytest.fixture
def network() -> UNet:
    """With the zero-initialised layers shaken, so that everything has an effect."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(CONFIG).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def _noise(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_it_starts_at_zero_and_learns_from_there() -> None:
    fresh = UNet(CONFIG)
    out = fresh(_noise(), torch.tensor([1, 900]))
    assert torch.equal(out, torch.zeros_like(out))
    (out - 1).square().mean().backward()
    assert fresh.out.weight.grad is not None
    assert fresh.out.weight.grad.abs().max() > 0


def test_every_pixel_and_the_time_reach_every_pixel(network: UNet) -> None:
    x, t = _noise(1).requires_grad_(), torch.tensor([10])
    for row, column in ((0, 0), (15, 7), (8, 15)):
        (slope,) = torch.autograd.grad(network(x, t)[0, :, row, column].sum(), x)
        assert (slope.abs().amax(1) > 0).all()
    assert (network(x, torch.tensor([500])) - network(x, t)).abs().mean() > 1e-3
    between = network(x, torch.tensor([10.5]))
    assert not torch.equal(between, network(x, t))


def test_rows_do_not_mix(network: UNet) -> None:
    x, t = _noise(3), torch.tensor([3, 400, 900])
    torch.testing.assert_close(network(x, t)[1:2], network(x[1:2], t[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(resolution=32, channels=8, multipliers=(1, 2, 2)),
        UNetConfig(resolution=64, patch_size=4, channels=8, multipliers=(1, 2), heads=0),
        UNetConfig(resolution=8, patch_size=1, channels=16, multipliers=(1,), blocks=2),
    ],
)
def test_other_sizes(config: UNetConfig) -> None:
    side = config.resolution
    assert UNet(config)(torch.zeros(1, 3, side, side), torch.tensor([1])).shape == (1, 3, side, side)


def test_mistakes_are_named(network: UNet) -> None:
    x, t = _noise(), torch.tensor([1, 2])
    for call, message in (
        (lambda: network(x[:, :2], t), r"\(batch, 3, 16, 16\)"),
        (lambda: network(x, t[:1]), "one time step each"),
        (lambda: network(x, t, "a cat"), "no condition"),
        (lambda: UNetConfig(resolution=20), "multiple of 16"),
        (lambda: UNetConfig(channels=12), "multiple of 8"),
        (lambda: UNetConfig(multipliers=()), "levels"),
        (
            lambda: UNetConfig(channels=8, heads=3, multipliers=(1,)) and UNet(UNetConfig(channels=8, heads=3, multipliers=(1,))),
            "heads",
        ),
    ):
        with pytest.raises(DataError, match=message):
            call()
