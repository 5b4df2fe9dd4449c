"""From a sentence to goals: the tabletop's templates read backwards, and key words where no template fits.

The planner of the classical pipeline. It knows the phrasings that training data hold (`assets/tabletop_language.json`), not those kept for
evaluation; for these and for anybody's own words it looks for what is named and which verb goes with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ornstein.assets.tabletop import language
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIGITS = tuple("0123456789")
#: Which words speak for which skill, the more telling first: words of the seen templates only, or the unseen ones would test nothing.
_KEY_WORDS: tuple[tuple[str, str], ...] = (
    (r"\b(open|out)\b.*\bdrawer\b|\bdrawer\b.*\b(open|out)\b", "open_drawer"),
    (r"\b(close|shut|in)\b.*\bdrawer\b|\bdrawer\b.*\b(closed|shut|in)\b", "close_drawer"),
    (r"\bbowl\b", "place_in_bowl"),
    (r"\b(mat|square|number)\b", "place_on_mat"),
    (r"\b(push|slide|shove|nudge|without lifting)\b", "push"),
    (r"\b(stack|on top|tower|pile)\b", "stack"),
    (r"\b(near|next to|beside|close|by)\b", "move_near"),
)
_DIRECTIONS = (
    ("left", r"\bleft"),
    ("right", r"\bright"),
    ("towards", r"\b(towards|closer|back)\b"),
    ("away", r"\b(away|forward|further)\b"),
)


@dataclass(frozen=True)
class Goal:
    """One thing to do. mat: kind and value."""

    skill: str
    object: str = ""
    reference: str = ""
    mat: tuple[str, str] | None = None
    direction: str = ""


def goals_of(sentence: str, objects: Sequence[str], symbols: Sequence[str], colours: Sequence[str]) -> tuple[Goal, ...]:
    """What the sentence asks for, in its order.

    Args:
        objects, symbols, colours: the names that can be meant.

    Raises:
        DataError: part of it asks for nothing that this grammar knows.
    """
    vocabulary = _Vocabulary(tuple(objects), tuple(symbols), tuple(colours))
    return tuple(_goal(clause, vocabulary) for clause in _clauses(sentence))


@dataclass(frozen=True)
class _Vocabulary:
    objects: tuple[str, ...]
    symbols: tuple[str, ...]
    colours: tuple[str, ...]

    def mat(self, phrase: str) -> tuple[str, str] | None:
        """Which mat a phrase means: "number 3", "the red mat", "the mat with the star"."""
        digits = [d for d in _DIGITS if re.search(rf"\b{d}\b", phrase)]
        symbols = [name for name in self.symbols if re.search(rf"\b{re.escape(name)}\b", phrase)]
        colours = [name for name in self.colours if re.search(rf"\b{name}\b", phrase)]
        if symbols:
            return "symbol", max(symbols, key=len)
        if colours:
            return "colour", colours[0]
        return ("number", digits[0]) if digits else None


def _clauses(sentence: str) -> list[str]:
    """A chain taken apart at its joints."""
    text = re.sub(r"^first\s+", "", sentence.strip().rstrip("."))
    return [part.strip() for part in re.split(r", then |,? and then |; after that, ", text) if part.strip()]


def _goal(clause: str, vocabulary: _Vocabulary) -> Goal:
    for skill, pattern in _patterns():
        match = pattern.fullmatch(clause)
        goal = None if match is None else _filled(skill, match.groupdict(), vocabulary)
        if goal is not None:
            return goal
    goal = _by_key_words(clause, vocabulary)
    if goal is None:
        raise DataError(f"nothing is known that {clause!r} could ask for")
    return goal


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Every seen template; the longer, the earlier: "put {object} on top of {reference}" before "put {object} on {mat}"."""
    found = []
    phrases = [re.escape(phrase) for of in language()["directions"].values() for phrase in of]
    # Nothing stands between a name and a direction, so the direction's own words must say where it begins.
    direction = f"(?P<direction>{'|'.join(sorted(phrases, key=len, reverse=True))})"
    for skill, templates in language()["skills"].items():
        for template in templates["seen"]:
            pattern = re.escape(template).replace(r"\{direction\}", direction)
            pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", pattern)
            found.append((len(template), skill, re.compile(pattern)))
    return tuple((skill, pattern) for _, skill, pattern in sorted(found, key=lambda item: -item[0]))


def _filled(skill: str, words: dict[str, str], vocabulary: _Vocabulary) -> Goal | None:
    """The goal, if every word is one that it may be."""
    named = [words[key] for key in ("object", "reference") if key in words]
    if not all(name in vocabulary.objects for name in named):
        return None
    mat = vocabulary.mat(words["mat"]) if "mat" in words else None
    directions = language()["directions"]
    direction = next((key for key, phrases in directions.items() if words.get("direction") in phrases), "")
    if ("mat" in words and mat is None) or ("direction" in words and not direction):
        return None
    return Goal(skill, words.get("object", ""), words.get("reference", ""), mat, direction)


def _by_key_words(clause: str, vocabulary: _Vocabulary) -> Goal | None:
    skill = next((skill for pattern, skill in _KEY_WORDS if re.search(pattern, clause)), "pick")
    if skill.endswith("_drawer"):
        return Goal(skill)
    named = _named(clause, vocabulary.objects)
    if not named:
        return None
    mat = vocabulary.mat(clause.replace(named[0], ""))
    if skill == "place_on_mat" or (skill == "pick" and mat is not None):
        return None if mat is None else Goal("place_on_mat", named[0], mat=mat)
    if skill in ("stack", "move_near"):
        if len(named) < 2:
            return None
        return Goal(skill, named[0], named[1])
    if skill == "push":
        direction = next((name for name, pattern in _DIRECTIONS if re.search(pattern, clause)), "")
        return Goal(skill, named[0], direction=direction) if direction else None
    return Goal(skill, named[0])


def _named(clause: str, objects: Sequence[str]) -> list[str]:
    """The objects that it names, in their order; a longer name hides those within it."""
    found: list[tuple[int, int, str]] = []
    for name in sorted(objects, key=len, reverse=True):
        for match in re.finditer(rf"\b{re.escape(name)}\b", clause):
            if not any(start <= match.start() < end for start, end, _ in found):
                found.append((match.start(), match.end(), name))
    return [name for _, _, name in sorted(found)]
