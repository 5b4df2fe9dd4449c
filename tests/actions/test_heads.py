"""All heads by one protocol: what they learn, what they draw, and whether their densities are densities."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from ornstein.actions import (
    HEADS,
    ActionHead,
    BinsHead,
    DiffusionHead,
    FastHead,
    FastTokenizer,
    FlowHead,
    MixtureHead,
    QuantileBins,
    UniformBins,
    build_head,
    describe_head,
)
from ornstein.core.errors import DataError, UnknownNameError
from ornstein.simulation.tabletop import contract as tabletop

TABLETOP = tabletop()
#: Two numbers, with bounds that are neither alike nor around zero.
SMALL = replace(
    TABLETOP, action=(replace(TABLETOP.action[0], low=-2.0, high=2.0), replace(TABLETOP.action[1], low=1.0, high=3.0))
)
CONTEXT, LENGTH = 4, 3
MEMORYLESS = ("regression-l1", "regression-l2")


def _right(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two right answers for every context: which way is open, all else follows from it. What the context says shifts both."""
    g = torch.Generator().manual_seed(seed)
    context = torch.randn((n, CONTEXT), generator=g)
    way = torch.randint(0, 2, (n, 1), generator=g) * 2.0 - 1
    time = torch.linspace(0.5, 1, LENGTH)
    shift = 0.2 * torch.tanh(context[:, :1])
    first, second = way * time * 0.6 + shift, -way * time * 0.6
    return context, torch.stack([2 * first, 2 + second], dim=-1)


def _head(name: str, **settings: object) -> ActionHead:
    _, actions = _right(2000, 5)
    torch.manual_seed(0)
    size = {} if name.startswith(("regression", "mixture")) else {"width": 64, "depth": 1 + (name in ("diffusion", "flow"))}
    return build_head({**describe_head(name, actions.numpy(), SMALL, num_bins=32), **size, **settings}, CONTEXT, SMALL)


@pytest.fixture(scope="module")
def taught() -> dict[str, ActionHead]:
    heads = {name: _head(name) for name in HEADS}
    for head in heads.values():
        # A single linear layer learns with steps that would upset a deeper network.
        rate = 5e-2 if hasattr(head, "out") else 3e-3
        optimizer, rng = torch.optim.AdamW(head.parameters(), rate), torch.Generator().manual_seed(1)
        for step in range(300):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / 300)
            loss = head.loss(*_right(64, 10 + step), rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return heads


@pytest.mark.parametrize("name", HEADS)
def test_what_is_learnt_of_a_task_with_two_right_answers(name: str, taught: dict[str, ActionHead]) -> None:
    """A density finds both ways, half of the time each; regression lies between them; one token a number without knowing the others mixes
    them up."""
    context, _ = _right(400, 999)
    drawn = taught[name].sample(context, torch.Generator().manual_seed(2))
    assert drawn.shape == (400, LENGTH, 2)
    shift = 0.2 * torch.tanh(context[:, 0])
    way_first, way_second = (drawn[:, -1, 0] / 2 - shift) / 0.6, -(drawn[:, -1, 1] - 2) / 0.6
    near = ((way_first.abs() - 1).abs() < 0.3) & ((way_second.abs() - 1).abs() < 0.3)
    agree = (way_first.sign() == way_second.sign()).float().mean()
    if name in MEMORYLESS:
        assert near.float().mean() < 0.2
        return
    assert near.float().mean() > 0.85
    assert abs(float((way_first > 0).float().mean()) - 0.5) < 0.12
    alone = name in ("uniform-bins", "quantile-bins")
    assert abs(float(agree) - 0.5) < 0.12 if alone else agree > 0.95


@pytest.mark.parametrize("name", HEADS)
def test_the_same_draws_are_the_same_actions(name: str, taught: dict[str, ActionHead]) -> None:
    head, (context, _) = taught[name], _right(50, 4)
    first, again, other = (head.sample(context, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in MEMORYLESS)
    assert (first >= head.low).all()
    assert (first <= head.high).all()
    greedy = [head.sample(context, torch.Generator().manual_seed(seed), greedy=True) for seed in (3, 4)]
    assert torch.equal(*greedy) == (name not in ("diffusion", "flow"))


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_was_kept_says_the_same(name: str, taught: dict[str, ActionHead]) -> None:
    """Through its description and its weights alone."""
    again = _head(name)
    again.load_state_dict(taught[name].state_dict())
    context, actions = _right(20, 8)
    assert torch.equal(
        again.sample(context, torch.Generator().manual_seed(1)), taught[name].sample(context, torch.Generator().manual_seed(1))
    )
    losses = [head.loss(context, actions, torch.Generator().manual_seed(1)) for head in (again, taught[name])]
    assert torch.equal(*losses)


def test_who_knows_less_is_less_sure() -> None:
    """Heads of bins: certainty has no entropy, ignorance the most; others: the spread of what is drawn; regression has no doubts."""
    context, rng = torch.zeros(2, CONTEXT), torch.Generator().manual_seed(0)
    bins = UniformBins.from_contract(SMALL, 8)
    head = BinsHead(CONTEXT, 1, SMALL, bins=bins)
    assert head.uncertainty(context, rng).tolist() == pytest.approx([np.log(8)] * 2)
    with torch.no_grad():
        head.out.bias[[3, 8 + 5]] = 50.0
    assert head.uncertainty(context, rng).abs().max() < 1e-4
    mixture = MixtureHead(CONTEXT, 1, SMALL, components=1)
    with torch.no_grad():
        mixture.out.weight.zero_()
        mixture.out.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -3.0, -3.0]))
    spread = float(torch.nn.functional.softplus(torch.tensor(-3.0)) + mixture.SMALLEST_SPREAD)
    many = mixture.uncertainty(torch.zeros(4000, CONTEXT), rng)
    assert float(many.mean()) == pytest.approx(spread, rel=0.05)
    assert not build_head({"kind": "regression", "length": 1}, CONTEXT, SMALL).uncertainty(context, rng).any()


def test_densities_of_bins_sum_to_one() -> None:
    """Over all chunks of a tiny vocabulary; after a disturbance, so that nothing is uniform."""
    for decoding in ("parallel", "autoregressive"):
        for bins in (UniformBins.from_contract(SMALL, 3), QuantileBins.fit(_right(500, 1)[1].flatten(0, 1).numpy(), SMALL, 3)):
            torch.manual_seed(0)
            head = BinsHead(CONTEXT, 2, SMALL, bins=bins, decoding=decoding)  # type: ignore[arg-type]
            for parameter in head.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
            every = torch.from_numpy(bins.decode(np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2)))
            volume = head.widths[torch.arange(4) % 2, head.tokens(torch.zeros(81, CONTEXT), every)].prod(-1)
            density = head.log_prob(torch.ones(81, CONTEXT), every).exp().detach()
            assert float((density * volume).sum()) == pytest.approx(1, abs=1e-4)
            assert density.max() / density.min() > 1.5


def _grid(n: int) -> tuple[torch.Tensor, float]:
    first, second = torch.linspace(-2, 2, n + 1)[:-1] + 2 / n, torch.linspace(1, 3, n + 1)[:-1] + 1 / n
    return torch.cartesian_prod(first, second)[:, None], 4 / n * 2 / n


def test_densities_of_numbers_integrate_to_one() -> None:
    """A mixture well within the bounds, and the flow of an untrained diffusion (most of it lies within)."""
    grid, cell = _grid(60)
    torch.manual_seed(1)
    mixture = MixtureHead(CONTEXT, 1, SMALL)
    mixture.out.weight.data *= 0.1
    k = mixture.components
    mixture.out.bias.data[k : 3 * k] *= 0.3
    mixture.out.bias.data[3 * k :] = -2.0
    assert float(mixture.log_prob(torch.ones(len(grid), CONTEXT), grid).exp().sum().detach() * cell) == pytest.approx(1, abs=0.01)
    diffusion = DiffusionHead(CONTEXT, 1, SMALL, train_steps=20, width=16, depth=1)
    for parameter in diffusion.net.out.parameters():
        parameter.data *= 0.2
    grid, cell = _grid(14)
    inside = float(diffusion.log_prob(torch.ones(len(grid), CONTEXT), grid).exp().sum() * cell)
    drawn = diffusion.sampler.sample(
        diffusion.denoise, torch.randn((4000, 2), generator=torch.Generator().manual_seed(1)), torch.ones(4000, CONTEXT)
    )
    assert inside == pytest.approx(float((drawn.abs() < 1).all(-1).float().mean()), abs=0.06)


def test_the_mixtures_draws_follow_its_density() -> None:
    """Mean and spread of many draws against the parameters, component by component."""
    torch.manual_seed(3)
    head = MixtureHead(CONTEXT, 1, SMALL, components=2)
    head.out.weight.data.zero_()
    head.out.bias.data = torch.tensor([0.0, 1.0, -0.5, -0.4, 0.5, 0.3, -2.5, -2.5, -3.0, -2.0])
    drawn = head.scaled(head.sample(torch.zeros(40_000, CONTEXT), torch.Generator().manual_seed(0)))[:, 0]
    second = drawn[:, 0] > 0
    assert float(second.float().mean()) == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.01)
    assert drawn[second].mean(0).tolist() == pytest.approx([0.5, 0.3], abs=0.01)
    expected = torch.nn.functional.softplus(torch.tensor([-3.0, -2.0])) + head.SMALLEST_SPREAD
    assert drawn[second].std(0).tolist() == pytest.approx(expected.tolist(), rel=0.03)


def test_a_smoothed_target_prefers_neighbours() -> None:
    bins = UniformBins.from_contract(SMALL, 16)
    head = BinsHead(CONTEXT, 1, SMALL, bins=bins, smoothing_bins=1.0)
    context, actions = torch.zeros(1, CONTEXT), torch.tensor([[[0.01, 2.0]]])
    with torch.no_grad():
        losses = []
        for off in (0, 1, 5):
            head.out.bias.zero_()
            for k, token in enumerate(head.tokens(context, actions)[0].tolist()):
                head.out.bias[k * 16 + token + off] = 5.0
            losses.append(float(head.loss(context, actions, torch.Generator())))
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] - losses[0] < 0.5 * (losses[2] - losses[0])


def test_whatever_fast_draws_decodes() -> None:
    """From weights that never saw a chunk. And where every token is as likely, a chunk costs what the choice among those that fit costs."""
    head = _head("fast")
    drawn = head.sample(torch.randn(30, CONTEXT), torch.Generator().manual_seed(0))
    assert drawn.shape == (30, LENGTH, 2)
    assert isinstance(head, FastHead)
    for parameter in head.decoder.out.parameters():
        parameter.data.zero_()
    context, actions = _right(5, 3)
    rows, _ = head.tokenizer.encode(actions.numpy())
    expected, lengths = 0.0, head.tokenizer.lengths
    for row in rows:
        left = head.tokenizer.numbers
        for token in row:
            expected += float(np.log((lengths <= left).sum()))
            left -= int(lengths[token])
        assert left == 0
    loss = head.loss(context, actions, torch.Generator()).detach()
    assert float(loss) == pytest.approx(expected / (5 * head.tokenizer.numbers), rel=1e-5)


def test_regression_gives_mean_or_median() -> None:
    """Of three right answers, (0, 0, 1): the mean is a third, the median is 0."""
    for name, expected in (("regression-l2", 2 / 3), ("regression-l1", 0.0)):
        head = build_head({"kind": "regression", "length": 1, "norm": int(name[-1])}, CONTEXT, SMALL)
        optimizer, context = torch.optim.Adam(head.parameters(), 0.02), torch.zeros(3, CONTEXT)
        actions = torch.tensor([[[0.0, 2.0]], [[0.0, 2.0]], [[2.0, 2.0]]])
        for step in range(300):
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 300)
            optimizer.zero_grad()
            head.loss(context, actions, torch.Generator()).backward()
            optimizer.step()
        assert float(head.sample(context, torch.Generator())[0, 0, 0].detach()) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("name", HEADS)
def test_mistakes_are_named(name: str, taught: dict[str, ActionHead]) -> None:
    head, rng = taught[name], torch.Generator()
    context, actions = _right(4, 0)
    for bad, message in (
        ((context, actions[:, :2]), r"actions \(B, 3, 2\)"),
        ((context[:, :2], actions), r"contexts \(B, 4\)"),
        ((context, torch.full_like(actions, torch.nan)), "not finite"),
        ((context, actions * torch.tensor([1.0, 2.0])), r"dimensions \[1\] of the actions leave the contract's bounds"),
    ):
        with pytest.raises(DataError, match=message):
            head.loss(*bad, rng)
    if not head.has_density:
        with pytest.raises(DataError, match="no density"):
            head.log_prob(context, actions)


def test_descriptions_are_checked() -> None:
    chunks = _right(50, 0)[1].numpy()
    good = describe_head("uniform-bins", chunks, SMALL)
    tokenizer = FastTokenizer.fit(chunks, SMALL)
    for description, error, message in (
        ({"kind": "bins"}, DataError, "`kind` and `length`"),
        ({**good, "kind": "bin"}, UnknownNameError, "bins"),
        ({**good, "widths": 3}, DataError, "widths"),
        ({**good, "bins": {"edges": [[0.0, 0.5, 1.0]]}}, DataError, "bounds"),
        ({**good, "bins": {"edgs": []}}, DataError, "edgs"),
        ({**good, "decoding": "parallell"}, UnknownNameError, "parallel"),
        ({"kind": "fast", "length": 5, "tokenizer": tokenizer.to_json()}, DataError, "chunks of 3"),
        ({"kind": "regression", "length": 1, "norm": 3}, DataError, "norm 1 or 2"),
        ({"kind": "mixture", "length": 1, "components": 0}, DataError, "at least one"),
        ({"kind": "flow", "length": 1, "steps": 0}, DataError, "one step"),
        ({"kind": "flow", "length": 0}, DataError, "at least 1"),
    ):
        with pytest.raises(error, match=message):
            build_head(description, CONTEXT, SMALL)
    with pytest.raises(UnknownNameError, match="mixture"):
        describe_head("mixtures", chunks, SMALL)
    with pytest.raises(DataError, match=r"\(N, H, D\)"):
        describe_head("flow", chunks[0], SMALL)
    assert isinstance(build_head({"kind": "flow", "length": 2}, CONTEXT, SMALL), FlowHead)
