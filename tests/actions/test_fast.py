"""FAST: what comes back, how few tokens, and against the transform written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.actions import FastTokenizer
from ornstein.actions.fast import _coefficients
from ornstein.core.errors import DataError
from ornstein.simulation.tabletop import contract

CONTRACT = contract()
LOW, HIGH = CONTRACT.action_low.astype(float), CONTRACT.action_high.astype(float)
LENGTH = 8


def _chunks(n: int, seed: int = 0) -> np.ndarray:
    """Smooth motions and a gripper that closes once."""
    rng = np.random.default_rng(seed)
    time = np.arange(LENGTH) / LENGTH
    places = 0.5 + 0.3 * rng.normal(size=(n, 1, 7)) * np.cos(np.pi * time[None, :, None] * rng.random((n, 1, 7)))
    places[..., 6] = time[None] > rng.random((n, 1))
    return LOW + np.clip(places, 0, 1) * (HIGH - LOW)


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return FastTokenizer.fit(_chunks(2000), CONTRACT, vocabulary=512)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_a_chunk_comes_back_within_the_rounding(tokenizer: FastTokenizer, seed: int) -> None:
    """The transform is orthonormal: the error's norm in halves of the range is at most that of the rounding."""
    chunks = _chunks(3, seed)
    tokens, clipped = tokenizer.encode(chunks)
    assert clipped == 0
    error = (tokenizer.decode(tokens) - chunks) / (HIGH - LOW) * 2
    assert np.linalg.norm(error.reshape(3, -1), axis=1).max() <= math.sqrt(LENGTH * 7) * 0.5 / tokenizer.scale + 1e-5


def test_the_coefficients_are_those_of_the_cosine_transform() -> None:
    """Written out, for one dimension; dimensions of one frequency lie side by side."""
    chunk = _chunks(1)
    scaled = (chunk - LOW) / (HIGH - LOW) * 2 - 1
    found = _coefficients(chunk, LOW, HIGH, 1000.0).reshape(LENGTH, 7)
    for k in range(LENGTH):
        wave = np.cos(np.pi * k * (np.arange(LENGTH) + 0.5) / LENGTH) * math.sqrt((1 if k == 0 else 2) / LENGTH)
        np.testing.assert_allclose(found[k], 1000 * (scaled[0] * wave[:, None]).sum(0), atol=0.5 + 1e-6)


def test_smooth_motion_takes_far_fewer_tokens_than_numbers(tokenizer: FastTokenizer) -> None:
    tokens, _ = tokenizer.encode(_chunks(300, seed=5))
    assert np.mean([len(one) for one in tokens]) < LENGTH * 7 / 2
    assert all(sum(tokenizer.lengths[one]) == tokenizer.numbers == LENGTH * 7 for one in tokens)


def test_it_is_the_same_when_fitted_again_and_after_keeping(tokenizer: FastTokenizer) -> None:
    again = FastTokenizer.fit(_chunks(2000), CONTRACT, vocabulary=512)
    kept = FastTokenizer.from_json(tokenizer.to_json())
    chunks = _chunks(20, seed=9)
    assert again == tokenizer == kept
    assert again.encode(chunks) == tokenizer.encode(chunks) == kept.encode(chunks)


def test_rare_motions_still_have_tokens(tokenizer: FastTokenizer) -> None:
    """The wildest motion of all, and the largest coefficient: nothing is cut off but what lies outside the bounds."""
    for wild in (np.where(np.arange(LENGTH)[:, None] % 2, LOW, HIGH), np.tile(HIGH, (LENGTH, 1)), np.tile(LOW, (LENGTH, 1))):
        tokens, clipped = tokenizer.encode(wild[None])
        assert clipped == 0
        error = (tokenizer.decode(tokens)[0] - wild) / (HIGH - LOW) * 2
        assert np.linalg.norm(error) <= math.sqrt(LENGTH * 7) * 0.5 / tokenizer.scale + 1e-5
    assert tokenizer.encode(np.tile(HIGH + 1, (1, LENGTH, 1)))[1] == LENGTH * 7


def test_mistakes_are_named(tokenizer: FastTokenizer) -> None:
    tokens, _ = tokenizer.encode(_chunks(1))
    kept = tokenizer.to_json()
    for call, message in (
        (lambda: tokenizer.encode(np.full((1, LENGTH, 7), np.nan)), "not finite"),
        (lambda: tokenizer.encode(np.zeros((1, 3, 7))), r"\(N, 8, 7\)"),
        (lambda: tokenizer.decode([tokens[0][:-1]]), "stand for 56 coefficients"),
        (lambda: tokenizer.decode([[tokenizer.vocabulary]]), "tokens run 0"),
        (lambda: FastTokenizer.fit(_chunks(5), CONTRACT, vocabulary=4), "lower the scale"),
        (lambda: FastTokenizer.fit(np.zeros((5, 7)), CONTRACT), "chunks"),
        (lambda: FastTokenizer.from_json({**kept, "codes": "{"}), "byte-pair"),
        (lambda: FastTokenizer.from_json({**kept, "extra": 1}), "extra"),
        (lambda: FastTokenizer.from_json({"low": [0.0]}), "not a FAST tokenizer"),
    ):
        with pytest.raises(DataError, match=message):
            call()  # type: ignore[operator]
