"""What the tabletop's scenes, robot data and planners share: the committed wordings, splits and directions."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

#: Unit steps (x, y) of each direction in the robot's base frame; left and right as the front camera shows them.
DIRECTIONS = MappingProxyType({"left": (0.0, -1.0), "right": (0.0, 1.0), "towards": (-1.0, 0.0), "away": (1.0, 0.0)})


@lru_cache(maxsize=1)
def language() -> dict[str, Any]:
    """Templates of sentences by skill, seen and unseen; phrases for directions and mats; joints of chains."""
    return _read("tabletop_language.json")


@lru_cache(maxsize=1)
def splits() -> dict[str, Any]:
    """Names by kind and split, and the held-out pairs of skill and object."""
    return _read("tabletop_splits.json")


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(files("ornstein.assets").joinpath(name).read_text(encoding="utf8"))
    return read
