"""What a robot is told and should do, as text of a vision-language model (Zitkovich et al. 2023, "RT-2", §3.2 and Appendix A).

    Q: what action should the robot take to pick up the lion? A:<x20><y31><x40><y12><action127>…<action255>

Before it acts, the model may say where what is moved lies and where it should go, in the places that it answers questions with: so what it knows
from pictures reaches the arm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ornstein.actions import UniformBins
from ornstein.core.errors import DataError
from ornstein.data.questions import place_of, place_tokens
from ornstein.policies.looking import PlaceTokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract
    from ornstein.language import TextTokenizer

#: Places that are said before an action: of what is moved, and where to.
POINTERS = 2


class Said(NamedTuple):
    """action: float32 (7,), bin centres. pointers: (2, 2), (column, row) in −1 … 1, of what is moved and where to; None if they are not said."""

    action: NDArray[np.float32]
    pointers: NDArray[np.float32] | None


@dataclass(frozen=True)
class RobotSpeech:
    """tokenizer: with action tokens. contract: of the body. pointers: whether places are said before the action."""

    tokenizer: TextTokenizer
    contract: EmbodimentContract
    pointers: bool = True

    #: The tokens that may stand at each place of an answer, its end among them.
    pattern: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    #: The tokens of places.
    places: PlaceTokens = field(init=False, repr=False, compare=False)
    _bins: UniformBins = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """
        Raises:
            DataError: the tokenizer has no action tokens, or none for places.
        """
        if not self.tokenizer.actions:
            raise DataError("this tokenizer has no action tokens: make them by TextTokenizer.with_actions")
        known = PlaceTokens.of(self.tokenizer)
        places = [*known] * POINTERS if self.pointers else []
        pattern = [*places, *[self.tokenizer.actions] * len(self.contract.action), (self.tokenizer.end,)]
        object.__setattr__(self, "pattern", tuple(pattern))
        object.__setattr__(self, "places", known)
        object.__setattr__(self, "_bins", UniformBins.from_contract(self.contract, len(self.tokenizer.actions)))

    def question(self, instruction: str) -> list[int]:
        """The tokens that it reads. An instruction's own full stop or question mark is left out."""
        asked = instruction.strip().rstrip(".?!")
        return self.tokenizer.encode(f"Q: what action should the robot take to {asked}? A:")

    def answer(self, action: NDArray[np.floating], pointers: Sequence[Sequence[float]] | NDArray[np.floating]) -> list[int]:
        """The tokens that it should say.

        Args:
            action: (7,), in the contract's units and bounds. pointers: (2, 2), (column, row) in −1 … 1; not read where they are not said.

        Raises:
            DataError: another number of dimensions, or a number that is not finite.
        """
        bins, _ = self._bins.encode(np.asarray(action))
        said = [self.tokenizer.actions[int(number)] for number in bins]
        return [*(self.where(pointers) if self.pointers else []), *said, self.tokenizer.end]

    def where(self, pointers: Sequence[Sequence[float]] | NDArray[np.floating]) -> list[int]:
        """The part of it that says places.

        Raises:
            DataError: a number that is not finite.
        """
        if not np.isfinite(np.asarray(pointers)).all():
            raise DataError(f"a pointer is not finite: {pointers!r}")
        # No space between them: each would be one step more at every decision.
        return self.tokenizer.encode("".join(place_tokens(float(x), float(y)) for x, y in pointers).replace(" ", ""))

    def understood(self, tokens: Sequence[int]) -> Said:
        """What an answer says, its end left out or not.

        Raises:
            DataError: it is none.
        """
        heard = [int(token) for token in tokens]
        heard = heard[:-1] if heard[-1:] == [self.tokenizer.end] else heard
        if len(heard) != len(self.pattern) - 1 or any(token not in may for token, may in zip(heard, self.pattern, strict=False)):
            raise DataError(f"this is no action: {self.tokenizer.decode(heard)!r}")
        dimensions = len(self.contract.action)
        number = {token: k for k, token in enumerate(self.tokenizer.actions)}
        action = self._bins.decode(np.array([number[token] for token in heard[-dimensions:]]))
        if not self.pointers:
            return Said(action, None)
        words = [self.tokenizer.decode([token]) for token in heard[:-dimensions]]
        places = [place_of(f"{column} {row}") for column, row in zip(words[::2], words[1::2], strict=True)]
        return Said(action, np.array(places, np.float32))
