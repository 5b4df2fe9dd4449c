"""Several data sets of one body as one, in their order: what training windows are drawn from."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.core.errors import ContractError, DataError
from ornstein.core.statistics import NormalizationStatistics
from ornstein.data.lerobot_format import ACTION, STATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ornstein.core.contract import EmbodimentContract
    from ornstein.data.lerobot import EpisodeRow, LeRobotDataset


class JoinedDatasets:
    """Reads like a `LeRobotDataset` as far as training goes. For one thread at a time.

    Attributes:
        sets: the data sets. episodes: of all, numbered on. contract: theirs, if any, with statistics of all numbers together.
    """

    def __init__(self, sets: Sequence[LeRobotDataset]) -> None:
        """
        Raises:
            DataError: none is given, or one twice. ContractError: see `require_one_body`.
        """
        if not sets:
            raise DataError("there must be at least one data set to join")
        self.sets = tuple(sets)
        self.folder = self.sets[0].folder
        self.info: dict[str, Any] = self.sets[0].info
        require_one_body(self.sets)
        twice = [
            one.folder for k, one in enumerate(self.sets) if one.fingerprint in {other.fingerprint for other in self.sets[:k]}
        ]
        if twice:
            raise DataError(f"{twice[0]} holds the same data as one before it: give weights instead")
        starts = np.cumsum([0, *(len(one) for one in self.sets)]).tolist()
        counts = np.cumsum([0, *(len(one.episodes) for one in self.sets)]).tolist()
        #: Of each data set, its first frame.
        self.starts: list[int] = starts[:-1]
        self.episodes: list[EpisodeRow] = [
            replace(row, index=row.index + count, start=row.start + start, stop=row.stop + start)
            for one, start, count in zip(self.sets, starts, counts, strict=False)
            for row in one.episodes
        ]

    def __len__(self) -> int:
        """Frames."""
        return sum(len(one) for one in self.sets)

    @cached_property
    def contract(self) -> EmbodimentContract | None:
        """None where nobody signed them."""
        first = self.sets[0].contract
        if first is None:
            return None
        return replace(first, statistics=NormalizationStatistics.from_arrays({STATE: self.states, ACTION: self.actions}))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of theirs in their order."""
        return hashlib.sha256("\n".join(one.fingerprint for one in self.sets).encode()).hexdigest()[:16]

    @cached_property
    def states(self) -> NDArray[np.float32]:
        """See `LeRobotDataset`."""
        return np.concatenate([one.states for one in self.sets])

    @cached_property
    def actions(self) -> NDArray[np.float32]:
        """See `LeRobotDataset`."""
        return np.concatenate([one.actions for one in self.sets])

    @cached_property
    def pointers(self) -> NDArray[np.float32] | None:
        """See `LeRobotDataset`; None where one of them says nothing."""
        parts = [one.pointers for one in self.sets]
        return None if any(part is None for part in parts) else np.concatenate([part for part in parts if part is not None])

    def column(self, name: str) -> NDArray[Any]:
        """See `LeRobotDataset`."""
        return np.concatenate([one.column(name) for one in self.sets])

    def frames(self, camera: str) -> Iterator[NDArray[np.uint8]]:
        """See `LeRobotDataset`."""
        return chain.from_iterable(one.frames(camera) for one in self.sets)


def require_one_body(sets: Sequence[LeRobotDataset]) -> None:
    """
    Raises:
        ContractError: some have a contract and some none, or two are of different bodies.
    """
    first = sets[0]
    for one in sets:
        if (one.contract is None) != (first.contract is None):
            unsigned = one.folder if one.contract is None else first.folder
            raise ContractError(f"{unsigned} has no contract: nobody can tell whether its numbers mean the same as the others'")
        if one.contract is not None and first.contract is not None:
            # Statistics are of the data and differ as they do.
            replace(one.contract, statistics=None).require_match(first.contract, str(one.folder), str(first.folder))


def shares(sizes: Sequence[int], weights: Sequence[float] | None) -> NDArray[np.float64]:
    """How often each of several data sets is drawn from, adding to one: by weights in any unit, or by their sizes.

    Raises:
        DataError: not as many weights, one below zero or not finite, or all zero.
    """
    given = np.array(sizes if weights is None else weights, dtype=np.float64)
    if given.shape != (len(sizes),) or not np.isfinite(given).all() or (given < 0).any() or given.sum() <= 0:
        raise DataError(f"{len(sizes)} data sets need as many weights, none negative and not all zero; got {weights}")
    return np.asarray(given / given.sum())
