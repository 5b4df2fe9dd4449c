"""ornstein: diffusion models for pictures and robot actions.

    >>> import ornstein
    >>> pipeline = ornstein.load("text-to-image")
    >>> pipeline("a red apple on a yellow background")[0].save("apple.png")

Leonard Ornstein gave his name to the process that every diffusion model runs forward. ornstein runs it backward.
Nothing below is imported before it is used (PEP 562): `import ornstein` costs milliseconds and does not need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ornstein.hub import load as load

__version__ = "0.1.0"

# From the plainest to what stands on it.
_FOLDERS = (
    "core",
    "assets",
    "diffusion",
    "networks",
    "language",
    "simulation",
    "actions",
    "data",
    "images",
    "policies",
    "training",
    "evaluation",
    "recipes",
)

__all__ = ["load", "__version__", *_FOLDERS]


def __getattr__(name: str) -> Any:
    if name == "load":
        from ornstein.hub import load

        return load
    if name in _FOLDERS:
        return importlib.import_module(f"ornstein.{name}")
    raise AttributeError(f"module 'ornstein' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
