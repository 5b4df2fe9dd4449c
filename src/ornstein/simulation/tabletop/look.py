"""How a tabletop looks apart from what lies on it: light, table, camera. Evaluation moves along these axes; training data may vary them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pattern = Literal["plain", "checks", "stripes", "wood", "marble", "speckles"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
_MOST_SHIFT, _MOST_TURN = 0.15, 0.30


@dataclass(frozen=True)
class Look:
    """The defaults are the usual look.

    brightness: of all light, 1 as usual. warmth: −1 bluish … 1 yellowish. light_angle: from which side it comes [rad].
    table, table_color, table_seed: pattern, its main colour (r, g, b in 0 … 1) and its variant.
    camera_shift: of the front camera's place [m]. camera_turn: about its axis and sideways [rad]. field_of_view: factor, 1 as usual.
    """

    brightness: float = 1.0
    warmth: float = 0.0
    light_angle: float = 0.0
    table: Pattern = "plain"
    table_color: tuple[float, float, float] = (0.86, 0.89, 0.91)
    table_seed: int = 0
    camera_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    camera_turn: tuple[float, float] = (0.0, 0.0)
    field_of_view: float = 1.0

    def check(self) -> None:
        """
        Raises:
            DataError: a value of another type or beyond what a picture bears.
        """
        if self.table not in PATTERNS:
            raise DataError(f"a table's pattern is one of {', '.join(PATTERNS)}; got {self.table!r}")
        if type(self.table_seed) is not int or self.table_seed < 0:
            raise DataError(f"table_seed must be a whole number from 0 on, got {self.table_seed!r}")
        bounds: tuple[tuple[str, tuple[Any, ...], float, float], ...] = (
            ("brightness", (self.brightness,), 0.3, 1.8),
            ("warmth", (self.warmth,), -1.0, 1.0),
            ("light_angle", (self.light_angle,), -math.pi, math.pi),
            ("table_color", self.table_color, 0.0, 1.0),
            ("camera_shift", self.camera_shift, -_MOST_SHIFT, _MOST_SHIFT),
            ("camera_turn", self.camera_turn, -_MOST_TURN, _MOST_TURN),
            ("field_of_view", (self.field_of_view,), 0.7, 1.5),
        )
        for name, values, low, high in bounds:
            if any(isinstance(v, bool) or not isinstance(v, int | float) or not low <= v <= high for v in values):
                raise DataError(f"a look's {name} lies within {low:g} … {high:g}, got {getattr(self, name)!r}")
        if (len(self.table_color), len(self.camera_shift), len(self.camera_turn)) != (3, 3, 2):
            raise DataError("a look's table_color and camera_shift have three numbers, its camera_turn two")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Look:
        """The inverse of `dataclasses.asdict`, through JSON or not. TypeError: an unknown key, or no list where one belongs."""
        lists: dict[str, Any] = {n: tuple(data[n]) for n in ("table_color", "camera_shift", "camera_turn") if n in data}
        return cls(**{**data, **lists})


def sample_look(rng: np.random.Generator, *, lights: bool = False, table: bool = False, camera: bool = False) -> Look:
    """A look drawn at random along the chosen axes; the others as usual."""
    look = Look()
    if lights:
        look = dataclasses.replace(
            look,
            brightness=float(rng.uniform(0.6, 1.25)),
            warmth=float(rng.uniform(-0.8, 0.8)),
            light_angle=float(rng.uniform(-2.5, 2.5)),
        )
    if table:
        look = dataclasses.replace(
            look,
            table=str(rng.choice(PATTERNS)),  # type: ignore[arg-type]  # one of them
            table_color=tuple(float(v) for v in rng.uniform(0.35, 0.95, 3)),  # type: ignore[arg-type]  # three
            table_seed=int(rng.integers(10_000)),
        )
    if camera:
        look = dataclasses.replace(
            look,
            camera_shift=tuple(float(v) for v in rng.uniform(-0.08, 0.08, 3)),  # type: ignore[arg-type]  # three
            camera_turn=tuple(float(v) for v in rng.uniform(-0.02, 0.02, 2)),  # type: ignore[arg-type]  # two
            field_of_view=float(rng.uniform(1.0, 1.12)),
        )
    return look


@lru_cache(maxsize=64)
def table_texture(pattern: Pattern, color: tuple[float, float, float], seed: int, size: int) -> NDArray[np.uint8]:
    """The table's surface, RGB uint8 (size, size, 3); cached, so not to be written to."""
    return shaded(table_shade(pattern, seed, size), color)


def shaded(shade: NDArray[np.float64], color: tuple[float, float, float]) -> NDArray[np.uint8]:
    """A colour, 0 … 1 each, made lighter and darker: RGB uint8."""
    return (255 * np.clip(np.array(color) + 0.22 * shade[..., None], 0, 1)).round().astype(np.uint8)


def table_shade(pattern: Pattern, seed: int, size: int) -> NDArray[np.float64]:
    """Darker and lighter places of about unit spread, (size, size)."""
    rng = np.random.default_rng([seed, PATTERNS.index(pattern)])
    v, u = np.mgrid[:size, :size] / size
    match pattern:
        case "plain":
            shade = np.zeros((size, size))
        case "checks":
            n = int(rng.integers(12, 30))
            shade = ((u * n).astype(int) + (v * n).astype(int)) % 2 - 0.5
        case "stripes":
            angle, n = rng.uniform(0, math.pi), int(rng.integers(16, 40))
            shade = 0.5 * np.sign(np.sin(2 * math.pi * n * (u * math.cos(angle) + v * math.sin(angle))))
        case "wood":
            bend = 0.04 * np.sin(2 * math.pi * (2 * v + rng.uniform()))
            shade = 0.5 * np.sin(2 * math.pi * (14 * (u + bend) + 2 * _clouds(rng, size, 4)))
        case "marble":
            shade = _clouds(rng, size, 6)
        case "speckles":
            shade = rng.uniform(-0.5, 0.5, (size, size))
    return shade


def _clouds(rng: np.random.Generator, size: int, cells: int) -> NDArray[np.float64]:
    """Smooth noise of unit spread: random waves of a few lengths."""
    v, u = np.mgrid[:size, :size] / size
    total = np.zeros((size, size))
    for k in range(1, 5):
        for _ in range(4):
            a, b = rng.normal(0, cells * k, 2)
            total += np.sin(2 * math.pi * (a * u + b * v + rng.uniform())) / k
    return np.asarray(total / total.std() / 2)
