"""The tokenizer of a model of another's, read from its folder, with the tokens that we add to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ornstein.core.errors import CheckpointError, DataError
from ornstein.language.text_tokenizer import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase


def from_transformers(tokenizer: PreTrainedTokenizerBase, special: Sequence[str]) -> TextTokenizer:
    """The same tokenizer as one of ours.

    Codes that were learnt last count as the least frequent, which is the order in which byte-pair codes are learnt.

    Args:
        special: tokens that it should have besides; those that it has already stay where they are.

    Raises:
        CheckpointError: it is slow, not of byte-pair codes, or has no token for an answer's end. DataError: it writes several digits as one token.
    """
    from tokenizers import AddedToken, Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(f"{type(tokenizer).__name__} has no tokenizer.json: save it as a fast tokenizer first")
    if tokenizer.eos_token is None:
        raise CheckpointError("this tokenizer has no token for the end of an answer (eos_token)")
    own = Tokenizer.from_str(backend.to_str())
    own.no_padding()
    own.no_truncation()
    own.add_tokens([AddedToken(mark, normalized=False) for mark in special])
    data: dict[str, Any] = json.loads(own.to_str())
    kind = data["model"].get("type")
    if kind != "BPE":
        raise CheckpointError(f"this tokenizer is of the kind {kind}, and action tokens are made of byte-pair codes (BPE)")
    data["model"]["vocab"] |= {mark: own.token_to_id(mark) for mark in special}
    size = own.get_vocab_size(with_added_tokens=True)
    made = TextTokenizer(
        json.dumps(data, sort_keys=True, ensure_ascii=False),
        tuple(special),
        tuple(range(size, 0, -1)),
        pad_token=tokenizer.pad_token or tokenizer.eos_token,
        end_token=tokenizer.eos_token,
    )
    _require_digits_apart(made)
    return made


def _require_digits_apart(tokenizer: TextTokenizer) -> None:
    for number in ("12", "365", "2048"):
        parts = [tokenizer.decode([token]) for token in tokenizer.encode(f"add {number} to it")]
        merged = [part for part in parts if sum(letter.isdigit() for letter in part) > 1]
        if merged:
            raise DataError(
                f"this tokenizer writes {merged[0].strip()!r} as one token, so sums would be learnt by heart: take one in which every digit is a token"
            )
