from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ornstein.core.errors import DataError
from ornstein.networks.attention import Attention
from ornstein.networks.causal_transformer import CausalTransformer

WIDTH, FRAMES, TOKENS = 16, 4, 3


@pytest.fixture
def transformer() -> CausalTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CausalTransformer(WIDTH, depth=2, heads=2, max_frames=FRAMES, tokens_per_frame=TOKENS).eval()


def _tokens(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, FRAMES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def test_attention_is_torchs_own() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = Attention(WIDTH, heads=4)
    x, context = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH)
    mask = torch.rand(5, 7) < 0.6
    mask[:, 0] = True
    query = attention.query(x).unflatten(-1, (4, -1)).transpose(1, 2)
    key, value = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in attention.key_value(context).chunk(2, -1))
    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(attention(x, context, mask), attention.out(expected.transpose(1, 2).flatten(2)))


def test_each_frame_is_what_it_would_be_if_the_video_ended_there(transformer: CausalTransformer) -> None:
    tokens = _tokens()
    whole = transformer(tokens)
    assert whole.shape == (2, FRAMES, WIDTH)
    for stop in range(1, FRAMES + 1):
        torch.testing.assert_close(transformer(tokens[:, :stop])[:, -1], whole[:, stop - 1])


def test_gradients_reach_every_token_of_the_past_and_none_of_the_future(transformer: CausalTransformer) -> None:
    tokens = _tokens(1).requires_grad_()
    for frame in range(FRAMES):
        (gradient,) = torch.autograd.grad(transformer(tokens)[:, frame].square().sum(), tokens)
        reached = gradient.abs().sum(-1)[0] > 0
        assert reached[: frame + 1].all()
        assert not reached[frame + 1 :].any()


def test_order_of_frames_and_of_tokens_matters(transformer: CausalTransformer) -> None:
    tokens = _tokens()
    read = transformer(tokens)[:, -1]
    # One layer alone tells frames apart by their positions only; with more, what earlier readouts saw gives the order away.
    shallow = CausalTransformer(WIDTH, depth=1, heads=2, max_frames=FRAMES, tokens_per_frame=TOKENS).eval()
    swapped_frames = tokens[:, [1, 0, 2, 3]]
    assert (shallow(swapped_frames)[:, -1] - shallow(tokens)[:, -1]).abs().max() > 1e-5
    assert (transformer(tokens.flip(2))[:, -1] - read).abs().max() > 1e-4


def test_windows_do_not_look_at_each_other(transformer: CausalTransformer) -> None:
    tokens = _tokens(3)
    torch.testing.assert_close(transformer(tokens)[1:2], transformer(tokens[1:2]))


def test_a_width_that_the_heads_do_not_share_is_refused() -> None:
    with pytest.raises(DataError, match="divisible by the number of heads 3"):
        CausalTransformer(WIDTH, depth=1, heads=3, max_frames=2, tokens_per_frame=1)
