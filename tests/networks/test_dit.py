from __future__ import annotations

import pytest
import torch

from ornstein.core.errors import DataError
from ornstein.networks.dit import DiT, DiTConfig, TextCondition, sincos_positions
from ornstein.networks.text_block import TextBlock, directional_bias

CONFIG = DiTConfig(latent_size=8, patch_size=2, width=32, depth=2, heads=2, text_depth=1, text_length=6)


@pytest.fixture
def network() -> DiT:
    """With the zero-initialised layers shaken, so that everything has an effect."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DiT(CONFIG).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def _inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, TextCondition]:
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(6)[None] < torch.tensor([2, 6, 4][:batch])[:, None]
    condition = TextCondition(torch.randn(batch, 6, 512, generator=g), mask)
    return torch.randn(batch, 4, 8, 8, generator=g), torch.tensor([1, 500, 1000][:batch]), condition


def test_output_is_zero_and_blocks_are_the_identity_at_the_start() -> None:
    fresh = DiT(CONFIG)
    x, t, condition = _inputs()
    assert torch.equal(fresh(x, t, condition), torch.zeros_like(x))
    text, mask, summary = fresh._read(condition)
    modulation = fresh.modulation(fresh.time_in(torch.randn(3, 256)) + summary).unflatten(-1, (6, -1))
    tokens = torch.randn(3, 16, 32)
    torch.testing.assert_close(fresh.blocks[0](tokens, modulation, text, mask), tokens)


def test_where_a_patch_is_matters(network: DiT) -> None:
    """Without positions, exchanging two patches of the input would merely exchange them in the output."""
    x, t, condition = _inputs()
    swapped = x.clone()
    swapped[..., :2, :2], swapped[..., 6:, 6:] = x[..., 6:, 6:], x[..., :2, :2]
    out, other = network(x, t, condition), network(swapped, t, condition)
    assert (other[..., :2, :2] - out[..., 6:, 6:]).abs().max() > 1e-3


def test_the_pieces_are_standardised(network: DiT) -> None:
    x, t, condition = _inputs()
    before = network(x, t, condition)
    network.piece_std.fill_(2.0)
    doubled = condition._replace(pieces=condition.pieces * 2.0)
    torch.testing.assert_close(network(x, t, doubled), before, atol=1e-4, rtol=1e-4)
    assert (network(x, t, condition) - before).abs().max() > 1e-3


def test_a_fresh_text_block_tells_the_order_of_words() -> None:
    """The same three pieces in two orders: the middle one keeps its place, but what is before and behind it changes sides.

    With a bias that is the same at all distances the block could not know: that is what keeps this test honest.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = TextBlock(32, 4, reach=6).eval()
    pieces = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(1, 3, dtype=torch.bool)
    there, back = block(pieces, mask)[0, 1], block(pieces.flip(1), mask)[0, 1]
    assert (there - back).norm() > 0.05 * there.norm()
    with torch.no_grad():
        block.relative_bias.zero_()
    torch.testing.assert_close(block(pieces, mask)[0, 1], block(pieces.flip(1), mask)[0, 1])


def test_heads_look_back_and_ahead_by_turns() -> None:
    bias = directional_bias(4, 3)
    assert bias.shape == (4, 7)
    assert bias[:, 3].tolist() == [0.0] * 4  # every head sees the piece itself
    assert (bias[0::2, :3] > bias[0::2, 4:].max()).all()  # back: negative distances
    assert (bias[1::2, 4:] > bias[1::2, :3].max()).all()
    assert bias[0].tolist() == [-3.0, -2.0, -1.0, 0.0, -6.0, -6.0, -6.0]
    torch.testing.assert_close(bias[3], torch.tensor([-6.0, -6.0, -6.0, 0.0, -0.1, -0.2, -0.3]))


def test_every_modulation_acts(network: DiT) -> None:
    x, t, condition = _inputs()
    before = network(x, t, condition)
    for block in network.blocks:
        for part in range(6):
            with torch.no_grad():
                block.modulation_offset[part] += 1.0
            assert (network(x, t, condition) - before).abs().max() > 1e-4
            with torch.no_grad():
                block.modulation_offset[part] -= 1.0


def test_padding_pieces_do_not_matter(network: DiT) -> None:
    x, t, condition = _inputs()
    garbage = condition._replace(pieces=torch.where(condition.mask[..., None], condition.pieces, 99.0))
    torch.testing.assert_close(network(x, t, condition), network(x, t, garbage))


def test_a_text_without_its_padding_reads_the_same(network: DiT) -> None:
    x, t, condition = _inputs()
    network_input = condition._replace(mask=condition.mask & (torch.arange(6) < 4))
    trimmed = TextCondition(condition.pieces[:, :4], network_input.mask[:, :4])
    torch.testing.assert_close(network(x, t, network_input), network(x, t, trimmed))


def test_a_dropped_condition_is_the_empty_one(network: DiT) -> None:
    x, t, condition = _inputs()
    dropped = condition.drop(torch.tensor([True, True, True]))
    torch.testing.assert_close(network(x, t, dropped), network(x, t, TextCondition.empty(3, 6)))
    partly = network(x, t, condition.drop(torch.tensor([False, True, False])))
    torch.testing.assert_close(partly[[0, 2]], network(x, t, condition)[[0, 2]])


def test_word_order_words_and_time_all_matter(network: DiT) -> None:
    x, t, condition = _inputs()
    base = network(x, t, condition)
    swapped = condition.pieces.clone()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    for other in (
        network(x, t, condition._replace(pieces=swapped)),
        network(x, t, condition._replace(pieces=condition.pieces.flip(2))),
        network(x, t.flip(0), condition)[[0, 2]],
    ):
        assert (other - base[: len(other)]).abs().max() > 1e-3


def test_rows_of_a_batch_do_not_touch(network: DiT) -> None:
    x, t, condition = _inputs()
    alone = network(x[1:2], t[1:2], TextCondition(*(leaf[1:2] for leaf in condition)))
    torch.testing.assert_close(network(x, t, condition)[1:2], alone, rtol=1e-4, atol=1e-5)


def test_patches_go_back_where_they_came_from(network: DiT) -> None:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(network._to_latent(network._to_tokens(x)), x)
    # Token k of a row-by-row grid is the 2×2 patch at (k // 4, k % 4).
    marked = torch.zeros(1, 4, 8, 8)
    marked[0, :, 2:4, 6:8] = 1.0
    assert network._to_tokens(marked)[0].sum(1).nonzero().flatten().tolist() == [1 * 4 + 3]


def test_positions_are_distinct() -> None:
    codes = sincos_positions(8, 64)
    assert codes.shape == (64, 64)
    distances = torch.cdist(codes, codes) + torch.eye(64) * 10
    assert distances.min() > 0.1


def test_wrong_sizes_are_refused(network: DiT) -> None:
    x, t, condition = _inputs()
    with pytest.raises(DataError, match="takes latents"):
        network(torch.zeros(3, 4, 16, 16), t, condition)
    with pytest.raises(DataError, match="reads texts as"):
        network(x, t, condition._replace(pieces=torch.zeros(3, 7, 512)))
