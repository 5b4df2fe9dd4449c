"""Chunks of actions as few tokens: FAST (Pertsch et al. 2025, "FAST: Efficient Action Tokenization for Vision-Language-Action Models").

    chunk (H, D), scaled to [−1, 1] ─ cosine transform along time ─ × scale, rounded ─ lowest frequencies first ─ byte-pair codes

Smooth motion has few large coefficients, and byte-pair coding folds the zeros that remain: a chunk takes fewer tokens than numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.actions.bins import checked_actions
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from ornstein.core.contract import EmbodimentContract

#: Coefficients are written as characters from here on: a block of Unicode without spaces or marks that a tokenizer would touch.
_FIRST_CHARACTER = 0x4E00


@dataclass(frozen=True)
class FastTokenizer:
    """Fitted by `fit`; `to_json` and `from_json` keep it.

    low, high: what becomes −1 and 1, a dimension. length: actions a chunk. scale: coefficients are rounded after it: larger is finer.
    codes: the byte-pair vocabulary, as `tokenizers` writes it; every coefficient that a chunk can have is a token by itself.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    length: int
    scale: float
    codes: str = field(repr=False)

    def __post_init__(self) -> None:
        from tokenizers import Tokenizer

        if self.length < 1 or not self.scale > 0 or len(self.low) != len(self.high):
            raise DataError(f"not a FAST tokenizer: {self!r}")
        try:
            loaded = Tokenizer.from_str(self.codes)
        except Exception as error:  # tokenizers raises bare Exception
            raise DataError(f"not a byte-pair vocabulary: {error}") from error
        object.__setattr__(self, "_codes", loaded)
        object.__setattr__(self, "_texts", [loaded.id_to_token(k) or "" for k in range(loaded.get_vocab_size())])
        object.__setattr__(self, "lengths", np.array([len(text) for text in self._texts], dtype=np.int64))

    #: Coefficients that each token stands for, int64 (vocabulary,).
    lengths: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _codes: Tokenizer = field(init=False, repr=False, compare=False)
    _texts: list[str] = field(init=False, repr=False, compare=False)

    @property
    def numbers(self) -> int:
        """Coefficients a chunk: length × dimensions."""
        return self.length * len(self.low)

    @property
    def vocabulary(self) -> int:
        """Different tokens."""
        return len(self.lengths)

    @classmethod
    def fit(
        cls, chunks: NDArray[np.floating], contract: EmbodimentContract, *, vocabulary: int = 512, scale: float = 10.0
    ) -> FastTokenizer:
        """To chunks (N, H, D) of a data set, scaled by the contract's bounds.

        Args:
            vocabulary: the most tokens; the possible coefficients are tokens themselves. scale: the paper's γ, 10 there.

        Raises:
            DataError: no chunks, another number of dimensions, a number that is not finite, or a vocabulary too small for the coefficients.
        """
        from tokenizers import Tokenizer, models, trainers

        low, high = contract.action_low.astype(np.float64), contract.action_high.astype(np.float64)
        values = checked_actions(chunks, len(low))
        if values.ndim != 3 or not len(values):
            raise DataError(f"FAST is fitted to chunks (N, H, {len(low)}), got {values.shape}")
        length = values.shape[1]
        alphabet = [chr(_FIRST_CHARACTER + k) for k in range(2 * _largest(length, scale) + 1)]
        if len(alphabet) > vocabulary:
            raise DataError(f"{len(alphabet)} different coefficients do not fit into {vocabulary} tokens: lower the scale")
        rounded = _coefficients(np.clip(values, low, high), low, high, scale)
        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=[], show_progress=False, max_token_length=10_000
        )
        tokenizer.train_from_iterator((_text(row, length, scale) for row in rounded), trainer)
        return cls(tuple(low.tolist()), tuple(high.tolist()), length, scale, _without_whims(tokenizer))

    def encode(self, chunks: NDArray[np.floating]) -> tuple[list[list[int]], int]:
        """Tokens of chunks (N, H, D), lists of different lengths; and how many numbers were clipped into their bounds.

        Raises:
            DataError: another shape, or a number that is not finite.
        """
        values = checked_actions(chunks, len(self.low))
        if values.ndim != 3 or values.shape[1] != self.length:
            raise DataError(f"this tokenizer takes chunks (N, {self.length}, {len(self.low)}), got {values.shape}")
        low, high = np.array(self.low), np.array(self.high)
        slack = 1e-6 * (high - low)
        clipped = int(((values < low - slack) | (values > high + slack)).sum())
        rounded = _coefficients(np.clip(values, low, high), low, high, self.scale)
        texts = [_text(row, self.length, self.scale) for row in rounded]
        return [one.ids for one in self._codes.encode_batch(texts)], clipped

    def decode(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Chunks (N, H, D) of token lists, float32, within bounds.

        The inverse of `encode` up to rounding: every coefficient is right within 0.5 / scale, so a chunk is within √D·H · 0.5 / scale, in halves
        of the range, by its norm (the transform is orthonormal).

        Raises:
            DataError: a token that does not exist, or tokens that stand for another number of coefficients than a chunk has.
        """
        found, largest = np.empty((len(tokens), self.numbers)), _largest(self.length, self.scale)
        for k, one in enumerate(tokens):
            if any(not 0 <= int(token) < self.vocabulary for token in one):
                raise DataError(f"tokens run 0 … {self.vocabulary - 1}, got {list(one)}")
            text = "".join(self._texts[int(token)] for token in one)
            if len(text) != self.numbers:
                raise DataError(f"tokens of a chunk stand for {self.numbers} coefficients, these for {len(text)}")
            found[k] = [ord(character) - _FIRST_CHARACTER - largest for character in text]
        from scipy.fft import idct

        waves = found.reshape(len(tokens), self.length, len(self.low)) / self.scale
        low, high = np.array(self.low), np.array(self.high)
        scaled = np.clip(idct(waves, axis=1, norm="ortho"), -1, 1)
        return (low + (scaled + 1) / 2 * (high - low)).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint's configuration."""
        names = ("low", "high", "length", "scale", "codes")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FastTokenizer:
        """The inverse of `to_json`.

        Raises:
            DataError: a key is missing or unknown, or a value is impossible.
        """
        try:
            return cls(**{**data, "low": tuple(data["low"]), "high": tuple(data["high"])})
        except (TypeError, KeyError) as error:
            raise DataError(f"not a FAST tokenizer: {error}") from error


def _coefficients(
    values: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], scale: float
) -> NDArray[np.int64]:
    """(N, H·D), all dimensions' lowest frequency first."""
    from scipy.fft import dct

    scaled = (values - low) / (high - low) * 2 - 1
    return np.rint(dct(scaled, axis=1, norm="ortho") * scale).astype(np.int64).reshape(len(values), -1)


def _largest(length: int, scale: float) -> int:
    """No coefficient is larger: a wave has norm 1, and numbers within −1 … 1 have at most √H."""
    return int(np.rint(np.sqrt(length) * scale))


def _text(row: NDArray[np.int64], length: int, scale: float) -> str:
    return "".join(chr(_FIRST_CHARACTER + int(number) + _largest(length, scale)) for number in row)


def _without_whims(tokenizer: Tokenizer) -> str:
    """As text that is the same whenever the same data are fitted."""
    return json.dumps(json.loads(tokenizer.to_str()), sort_keys=True, ensure_ascii=False)
