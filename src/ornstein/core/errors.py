"""Mistakes that a user can mend.

Everything raised on purpose derives from `OrnsteinError`: its text is one clear sentence (what was tried, what came,
what was expected, what to do), which the command line prints as `error: …` without a traceback and with exit code 2.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Lists up to this length are printed whole; a longer one would hide the suggestion.
_FEW = 12


class OrnsteinError(Exception):
    """A mistake that the user can mend; the message says how."""


class CheckpointError(OrnsteinError):
    """A checkpoint is missing, damaged, of another kind, or cannot be written."""


class ContractError(OrnsteinError):
    """Two embodiments that meet do not fit, or one is described wrongly."""


class DataError(OrnsteinError, ValueError):
    """Data or an argument is empty, out of range, of the wrong shape or not finite."""


class DivergenceError(OrnsteinError, ValueError):
    """A model's numbers are no longer finite; the message says where."""


class UnknownNameError(OrnsteinError, ValueError):
    """A name that is not among the choices."""


class MissingDependencyError(OrnsteinError):
    """An optional part is not installed; the message names the extra that holds it."""


class TrainingError(OrnsteinError):
    """A training cannot start, go on or be resumed."""


class TrainingDivergedError(TrainingError, DivergenceError):
    """A loss or gradient is no longer finite."""


class RenderingError(OrnsteinError):
    """No headless GL, or it failed to draw."""


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UnknownNameError:
    """The error for `name`, with the nearest choices, and all of them where they are few.

    Args:
        kind: what was named, in the singular: "recipe", "checkpoint", "sampler".
    """
    known = sorted(set(choices))
    # Case and separators are the commonest slips: compare without them, offer the real names.
    plain = {_plain(choice): choice for choice in known}
    near = [plain[match] for match in get_close_matches(_plain(name), plain, n=3, cutoff=0.6)]
    message = f"unknown {kind} {name!r}"
    if near:
        message += f": did you mean {' or '.join(map(repr, near))}?"
    if not known:
        message += ": there is none to choose from"
    elif len(known) <= _FEW:
        message += f" (choices: {', '.join(known)})"
    elif not near:
        message += f": none of the {len(known)} choices is near it (for instance {', '.join(known[:3])})"
    return UnknownNameError(message)


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")
