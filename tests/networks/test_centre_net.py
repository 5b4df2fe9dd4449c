"""Objects as points: a perfect answer costs next to nothing, each kind of mistake costs what it should, and training finds the points."""

from __future__ import annotations

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.networks.centre_net import CentreNet, CentreNetConfig, Centres, CentreTargets, centre_loss
from ornstein.policies.sight import found_things

CONFIG = CentreNetConfig(image_size=32, kinds=2, names=3, channels=(8, 8), blocks=1)


def _truth() -> CentreTargets:
    """Two things in the first picture, one in the second, and one beyond its border that counts for nothing."""
    return CentreTargets(
        present=torch.tensor([[True, True], [True, True]]),
        kind=torch.tensor([[0, 1], [1, 0]]),
        name=torch.tensor([[2, 0], [1, 1]]),
        place=torch.tensor([[[-0.5, 0.25], [0.6, -0.7]], [[0.1, 0.1], [1.4, 0.0]]]),
        heading=torch.tensor([[0.3, -0.2], [0.0, 0.0]]),
    )


def _perfect(truth: CentreTargets, grid: int = 8) -> Centres:
    batch = len(truth.kind)
    heat, names = torch.full((batch, 2, grid, grid), -20.0), torch.zeros(batch, 3, grid, grid)
    offset, turn = torch.full((batch, 2, grid, grid), 0.5), torch.zeros(batch, 2, grid, grid)
    for b, m in ((0, 0), (0, 1), (1, 0)):
        at = (truth.place[b, m] + 1) / 2 * grid
        column, row = at.long().tolist()
        heat[b, truth.kind[b, m], row, column] = 20.0
        names[b, truth.name[b, m], row, column] = 30.0
        offset[b, :, row, column] = at - at.long()
        angle = 4 * truth.heading[b, m]
        turn[b, :, row, column] = torch.stack([angle.cos(), angle.sin()])
    return Centres(heat, offset, turn, names)


def test_a_perfect_answer_costs_nothing_and_is_read_back() -> None:
    truth = _truth()
    said = _perfect(truth)
    loss, parts = centre_loss(said, truth)
    assert float(loss) < 1e-4
    assert float(parts["named_right"]) == 1.0
    for b, expected in ((0, 2), (1, 1)):
        things = found_things(said, b)
        assert len(things) == expected
        for thing in things:
            m = int((truth.place[b] - torch.from_numpy(thing.place)).norm(dim=1).argmin())
            assert torch.allclose(torch.from_numpy(thing.place).float(), truth.place[b, m], atol=1e-6)
            assert (thing.kind, int(thing.names.argmax())) == (int(truth.kind[b, m]), int(truth.name[b, m]))
            assert abs(thing.heading - float(truth.heading[b, m])) < 1e-6


@pytest.mark.parametrize("part", ["heat", "offset", "turn", "names"])
def test_each_mistake_shows_in_its_part_alone(part: str) -> None:
    truth = _truth()
    said = _perfect(truth)._asdict()
    said[part] = said[part].flip(-1) if part != "offset" else 1 - said[part]
    _, parts = centre_loss(Centres(**said), truth)
    assert float(parts[part]) > 0.05
    assert all(float(value) < 1e-4 for name, value in parts.items() if name not in (part, "named_right"))


def test_a_false_alarm_near_a_centre_costs_less_than_one_far_away() -> None:
    truth, costs = _truth(), []
    for column in (3, 6):  # the first picture's first thing is in column 2
        said = _perfect(truth)
        said.heat[0, 0, 5, column] = 3.0
        costs.append(float(centre_loss(said, truth)[1]["heat"]))
    assert 0 < costs[0] < costs[1] / 2


def test_it_learns_where_squares_are() -> None:
    """Bright squares on black, named by colour: after a minute's work it places them within a pixel."""
    torch.manual_seed(0)
    net = CentreNet(CONFIG)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)

    def batch(n: int, rng: torch.Generator) -> tuple[torch.Tensor, CentreTargets]:
        pictures = torch.zeros(n, 32, 32, 3, dtype=torch.uint8)
        corner = torch.randint(2, 24, (n, 2), generator=rng)
        name = torch.randint(3, (n,), generator=rng)
        for k in range(n):
            x, y = corner[k].tolist()
            pictures[k, y : y + 6, x : x + 6, name[k]] = 255
        place = ((corner + 3).float() / 32 * 2 - 1)[:, None]
        ones = torch.ones(n, 1, dtype=torch.bool)
        return pictures, CentreTargets(ones, torch.zeros(n, 1, dtype=torch.long), name[:, None], place, torch.zeros(n, 1))

    rng = torch.Generator().manual_seed(1)
    for _ in range(150):
        pictures, truth = batch(16, rng)
        optimiser.zero_grad()
        centre_loss(net(pictures), truth)[0].backward()
        optimiser.step()
    pictures, truth = batch(20, torch.Generator().manual_seed(2))
    with torch.no_grad():
        said = net.eval()(pictures)
    for k in range(20):
        first = found_things(said, k)[0]
        assert float((torch.from_numpy(first.place) - truth.place[k, 0]).abs().max()) * 16 < 1.0
        assert int(first.names.argmax()) == int(truth.name[k, 0])


def test_impossible_sizes_are_named() -> None:
    for wrong in ({"image_size": 30}, {"channels": (8, 12)}, {"kinds": 0}):
        with pytest.raises(DataError):
            CentreNetConfig(**wrong)  # type: ignore[arg-type]
