"""What recipes of robots' policies have in common: demonstrations that are recorded where they are missing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.core.checks import require_at_least, require_seeds, require_shares
from ornstein.data.joined_datasets import shares

if TYPE_CHECKING:
    from ornstein.simulation.tabletop import Variation

#: The scenes that they learn from and are tried in.
SUITE = "all"


@dataclass(frozen=True)
class RecordedDemonstrations:
    """data: the demonstrations' folder, recorded if it is missing; `data` in the run's folder unless given. also: more data sets of the same body.
    weights: how often `data` and each of `also` is drawn from, in any unit ("1 1": as often as one another); by their sizes unless given.
    cache: where decoded pictures and stills are kept; `cache` in the run's folder.
    episodes, data_seed, disturbance, vary, plain: of the recording; see `ornstein data generate --help`.
    """

    data: Path | None = None
    also: tuple[Path, ...] = ()
    weights: tuple[float, ...] = ()
    cache: Path | None = None
    episodes: int = 6000
    data_seed: int = 0
    disturbance: float = 0.05
    vary: tuple[Literal["lights", "table", "camera", "sizes"], ...] = ("lights", "table")
    plain: bool = True

    def __post_init__(self) -> None:
        require_seeds(data_seed=self.data_seed)
        require_at_least(1, episodes=self.episodes)
        require_shares(disturbance=self.disturbance)
        if self.weights:
            shares([1] * (1 + len(self.also)), self.weights)  # says what is wrong with them

    @property
    def look(self) -> Variation:
        """What may vary in scenes that it learns from."""
        from ornstein.simulation.tabletop import suite

        axes: dict[str, Any] = dict.fromkeys(self.vary, True)
        return replace(suite(SUITE).variation, **axes)
