"""Text ↔ tokens for a language model that also says places and actions.

Byte-pair codes of bytes (Sennrich et al. 2016; bytes as GPT-2 has them), so that every text has tokens and comes back as it was; every digit is a
token by itself, so that sums can be learnt. Places have tokens of their own. Actions get theirs either by extension, as PaLI-X's integers are, or by
overwriting the codes that are least frequent, as RT-2 does with PaLM-E's (Zitkovich et al. 2023, §3.2).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from ornstein.core.errors import DataError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tokenizers import Tokenizer

ActionTokens = Literal["extend", "overwrite"]

PAD, END = "<pad>", "<end>"
_BYTES = 256


def action_token(number: int) -> str:
    """How the token of an action's bin is written."""
    return f"<action{number}>"


@dataclass(frozen=True)
class TextTokenizer:
    """Made by `train`; `to_json` and `from_json` keep it.

    codes: the byte-pair vocabulary, as `tokenizers` writes it. special: tokens of their own, never the outcome of text that does not spell them.
    counts: how often each token came in the training text, by number. actions: the numbers of the action tokens, bin by bin; empty before
    `with_actions`. pad_token, end_token: how padding and an answer's end are written.
    """

    codes: str = field(repr=False)
    special: tuple[str, ...]
    counts: tuple[int, ...] = field(repr=False)
    actions: tuple[int, ...] = ()
    pad_token: str = PAD
    end_token: str = END

    def __post_init__(self) -> None:
        from tokenizers import Tokenizer

        try:
            loaded = Tokenizer.from_str(self.codes)
        except Exception as error:  # tokenizers raises bare Exception
            raise DataError(f"not a byte-pair vocabulary: {error}") from error
        loaded.encode_special_tokens = True  # a text that spells "<end>" does not end there
        numbers = loaded.get_vocab(with_added_tokens=True)
        missing = [token for token in (self.pad_token, self.end_token, *self.special) if token not in numbers]
        if missing or len(self.counts) != len(numbers) or sorted(numbers.values()) != list(range(len(numbers))):
            raise DataError(f"not a tokenizer: {missing[:3] or 'its counts'} do not fit its {len(numbers)} tokens")
        object.__setattr__(self, "_tokenizer", loaded)
        object.__setattr__(self, "size", len(numbers))
        object.__setattr__(self, "pad", numbers[self.pad_token])
        object.__setattr__(self, "end", numbers[self.end_token])

    #: Different tokens; the numbers of padding and of an answer's end.
    size: int = field(init=False, repr=False, compare=False)
    pad: int = field(init=False, repr=False, compare=False)
    end: int = field(init=False, repr=False, compare=False)
    _tokenizer: Tokenizer = field(init=False, repr=False, compare=False)

    @classmethod
    def train(cls, texts: Iterable[str], *, size: int = 2048, special: Sequence[str] = ()) -> TextTokenizer:
        """From texts, which are read twice.

        Args:
            size: the most tokens, bytes and special ones included. special: those that are tokens by themselves ("<x12>").

        Raises:
            DataError: no text, a special token twice, or a size that bytes and special tokens already exceed.
        """
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        read = list(texts)
        marks = [PAD, END, *special]
        if len(set(marks)) < len(marks):
            raise DataError(f"special tokens must differ, got {[mark for mark, n in Counter(marks).items() if n > 1]} twice")
        if not any(read):
            raise DataError("a tokenizer is trained on texts: there are none")
        if size < _BYTES + len(marks):
            raise DataError(f"{_BYTES} bytes and {len(marks)} special tokens do not fit into {size}")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size - len(special),
            special_tokens=[PAD, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        # No code is made of the marks' letters.
        cut = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        tokenizer.train_from_iterator((part for text in read for part in cut.split(text)), trainer)
        tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in special])
        # In the codes' own vocabulary they keep their numbers, whatever is added later.
        data = json.loads(tokenizer.to_str())
        data["model"]["vocab"] |= {mark: tokenizer.token_to_id(mark) for mark in special}
        counts = Counter(number for one in tokenizer.encode_batch(read) for number in one.ids)
        total = tokenizer.get_vocab_size(with_added_tokens=True)
        return cls(_plain(json.dumps(data)), tuple(special), tuple(counts[k] for k in range(total)))

    def encode(self, text: str) -> list[int]:
        """Its tokens. Letters lose their case."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text, special and action tokens spelled out; padding and an answer's end are left out.

        Raises:
            DataError: a token that does not exist.
        """
        found, run = [], list[int]()
        spelled = {self._tokenizer.token_to_id(mark): mark for mark in self.special}
        spelled |= {token: action_token(k) for k, token in enumerate(self.actions)}
        for token in tokens:
            if not 0 <= int(token) < self.size:
                raise DataError(f"tokens run 0 … {self.size - 1}, got {token}")
            if int(token) in spelled:
                found += [self._tokenizer.decode(run), spelled[int(token)]]
                run = []
            elif int(token) not in (self.pad, self.end):
                run.append(int(token))
        return "".join([*found, self._tokenizer.decode(run)])

    def with_actions(self, bins: int = 256, manner: ActionTokens = "overwrite") -> TextTokenizer:
        """The same with a token for each bin of an action.

        Args:
            manner: "extend" adds tokens; "overwrite" takes the codes that came least often, which texts are then spelled without.

        Raises:
            DataError: it has them already, bins below 2, or fewer codes than bins can be overwritten. UnknownNameError: no such manner.
        """
        if manner not in get_args(ActionTokens):
            raise unknown_name("manner of action tokens", manner, get_args(ActionTokens))
        if self.actions:
            raise DataError(f"this tokenizer has tokens for {len(self.actions)} bins already")
        if bins < 2:
            raise DataError(f"an action has at least 2 bins, got {bins}")
        data = json.loads(self.codes)
        if manner == "extend":
            chosen = list(range(self.size, self.size + bins))
            gone: set[str] = set()
        else:
            chosen, gone = self._least_frequent(data, bins)
        merges = [pair for pair in data["model"]["merges"] if not gone & {pair[0], pair[1], pair[0] + pair[1]}]
        kept = {token: k for token, k in data["model"]["vocab"].items() if token not in gone}
        kept |= {action_token(k): number for k, number in enumerate(chosen)}
        data["model"] |= {"vocab": kept, "merges": merges}
        counts = [*self.counts, *[0] * (bins if manner == "extend" else 0)]
        for number in chosen:
            counts[number] = 0
        return replace(self, codes=_plain(json.dumps(data)), counts=tuple(counts), actions=tuple(chosen))

    def _least_frequent(self, data: dict[str, Any], bins: int) -> tuple[list[int], set[str]]:
        """Numbers and texts of codes that may go: those that two others make and that none which stays is built from. So bytes and special tokens stay."""
        pairs = data["model"]["merges"]
        needed = {part for pair in pairs for part in pair} | {token["content"] for token in data["added_tokens"]}
        vocabulary = data["model"]["vocab"]
        made = {pair[0] + pair[1] for pair in pairs}
        spare = [token for token in vocabulary if token in made and token not in needed]
        if len(spare) < bins:
            raise DataError(
                f"{bins} bins need as many codes that nothing is built from; there are {len(spare)}: train a larger vocabulary, or extend it"
            )
        spare.sort(key=lambda token: (self.counts[vocabulary[token]], -vocabulary[token]))
        return [vocabulary[token] for token in spare[:bins]], set(spare[:bins])

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint's configuration."""
        return {name: getattr(self, name) for name in ("codes", "special", "counts", "actions", "pad_token", "end_token")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TextTokenizer:
        """The inverse of `to_json`.

        Raises:
            DataError: a key is missing or unknown, or a value is impossible.
        """
        try:
            fields: dict[str, Any] = {name: value if isinstance(value, str) else tuple(value) for name, value in data.items()}
            return cls(**fields)
        except TypeError as error:
            raise DataError(f"not a tokenizer: {error}") from error


def _plain(text: str) -> str:
    """As text that is the same whenever the same texts are read."""
    return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
