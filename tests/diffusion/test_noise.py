from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ornstein.core.errors import DataError
from ornstein.diffusion import DDPM, Gaussian, KeyedNoise, NoiseSchedule

seeds = st.integers(0, 2**64 - 1)
GOLDEN = {"initial": [0.05991104, 0.01555963, -1.16443849], "step 2": [-1.02142012, -0.72790682, 0.35353458]}


@settings(deadline=None)
@given(order=st.permutations(list(range(5))), seed=seeds)
def test_noise_follows_its_sample_bit_for_bit(order: list[int], seed: int) -> None:
    together = KeyedNoise(seed, range(5))
    shuffled = KeyedNoise(seed, order)
    for draw in (lambda n: n.initial((3, 2)), lambda n: n.at(0, (3, 2)), lambda n: n.at(7, (3, 2))):
        assert torch.equal(draw(shuffled), draw(together)[order])
        assert torch.equal(draw(KeyedNoise(seed, [order[0]])), draw(together)[order[0]][None])


@settings(deadline=None)
@given(keys=st.lists(st.tuples(seeds, seeds, st.integers(-1, 2**32)), min_size=2, max_size=6, unique=True))
@example(keys=[(2**64 - 1, 0, 0), (2**64 - 2, 0, 0), (0, 2**64 - 1, 0), (0, 2**64 - 2, 0)])
@example(keys=[(2**32, 5, -1), (0, 1, 4), (1, 0, 4), (0, 5, 0)])
@example(keys=[(0, 5, 0), (2**32, 5, 0), (0, 2**32 + 5, 0), (0, 5, 2**32)])
def test_different_keys_never_share_their_noise(keys: list[tuple[int, int, int]]) -> None:
    """Numbers of more than 32 bits included, where concatenated words could be cut apart in two ways."""
    draws = [
        KeyedNoise(seed, [index]).initial((4,)) if step < 0 else KeyedNoise(seed, [index]).at(step, (4,))
        for seed, index, step in keys
    ]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert not torch.equal(one, other)


def test_a_hundred_thousand_draws_are_all_different() -> None:
    """Keys hashed into a 32-bit seed would repeat among them: by the birthday problem about once in 77 thousand."""
    noise = KeyedNoise(0, range(2000))
    rows = torch.cat([noise.initial((2,)), *(noise.at(step, (2,)) for step in range(49))])
    assert len(torch.unique(rows, dim=0)) == len(rows) == 100_000


def test_neighbouring_keys_do_not_share_a_stretch() -> None:
    """A key that only starts the same stream a little later would look different at first, and repeat after a few numbers."""
    long = [KeyedNoise(seed, [index]).at(step, (5000,))[0] for seed, index, step in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))]
    stretches = [{tuple(triple) for triple in row.unfold(0, 3, 1).tolist()} for row in long]
    for i, one in enumerate(stretches):
        assert len(one) == 4998
        for other in stretches[:i]:
            assert not one & other


def test_the_stream_stays_the_published_one() -> None:
    """A stored picture can be drawn again only while these numbers stay. To renew them, print the left-hand sides."""
    assert KeyedNoise(0, [0]).initial((3,))[0].tolist() == pytest.approx(GOLDEN["initial"], abs=1e-6)
    assert KeyedNoise(7, [3]).at(2, (3,))[0].tolist() == pytest.approx(GOLDEN["step 2"], abs=1e-6)


def test_noise_is_standard_normal_and_independent_over_all_keys() -> None:
    draws = torch.stack(
        [KeyedNoise(seed, range(50)).at(step, (40,)) for seed in (0, 1) for step in range(10)]
        + [KeyedNoise(2, range(50)).initial((40,))]
    )
    n = draws.numel()
    assert abs(float(draws.mean())) < 4 / n**0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / n) ** 0.5
    assert abs(float((draws**4).mean()) - 3) < 4 * (96 / n) ** 0.5  # Var[z⁴] = 105 − 9
    rows = draws.flatten(0, 1)
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlation.abs().max() < 6 / 40**0.5


def test_a_sample_comes_out_the_same_alone_or_in_any_batch() -> None:
    """Through a whole stochastic trajectory, with a denoiser that treats rows alike."""
    schedule = NoiseSchedule.linear()
    denoiser = Gaussian(torch.tensor([0.3, -0.2]), torch.tensor([[0.5, 0.2], [0.2, 0.3]])).denoiser(schedule, "epsilon")

    def draw(indices: list[int]) -> torch.Tensor:
        noise = KeyedNoise(11, indices)
        return DDPM(schedule, 20, prediction="epsilon").sample(denoiser, noise.initial((2,)).double(), None, noise)

    together = draw([0, 1, 2, 3, 4])
    torch.testing.assert_close(draw([3, 0, 4, 1, 2]), together[[3, 0, 4, 1, 2]], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(draw([4]), together[4:], rtol=1e-12, atol=1e-13)


def test_one_source_serves_many_threads() -> None:
    noise = KeyedNoise(5, range(20))
    expected = [noise.at(step, (64,)) for step in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(lambda step: noise.at(step, (64,)), range(40)), expected, strict=True):
            assert torch.equal(got, wanted)


def test_shapes_of_every_kind() -> None:
    assert KeyedNoise(0, []).initial((3,)).shape == (0, 3)
    assert KeyedNoise(0, [4, 5]).at(0, ()).shape == (2,)
    assert KeyedNoise(0, [1]).initial((2, 3, 4)).dtype == torch.float32


def test_mistakes_are_named() -> None:
    for make, message in (
        (lambda: KeyedNoise(-1, [0]), "the seed .* got -1"),
        (lambda: KeyedNoise(2**64, [0]), "the seed"),
        (lambda: KeyedNoise(0, [3, -2]), "a sample index .* got -2"),
        (lambda: KeyedNoise(1.5, [0]), "the seed .* whole number .* got 1.5"),  # type: ignore[arg-type]
        (lambda: KeyedNoise(1, [0.5]), "a sample index .* whole number .* got 0.5"),  # type: ignore[list-item]
        (lambda: KeyedNoise(0, [0]).at(-1, (2,)), "count from 0"),
    ):
        with pytest.raises(DataError, match=message):
            make()
