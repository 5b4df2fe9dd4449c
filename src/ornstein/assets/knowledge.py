"""What vision-language data say of things: committed concepts with members, non-members, reasons and sources (`knowledge.json`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ornstein.assets import openmoji
from ornstein.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ConceptKind = Literal["category", "attribute", "purpose"]


@dataclass(frozen=True)
class Concept:
    """Something that is true of some drawings and false of others.

    question: follows "which one": "is extinct". noun: in its place in an instruction: "the extinct animal". because: a short reason.
    members, others: names of which it is true and false; nothing is said of the rest. source: where the fact is from.
    held_out: kept from all data.
    """

    name: str
    kind: ConceptKind
    question: str
    noun: str
    because: str
    members: tuple[str, ...]
    others: tuple[str, ...]
    source: str
    held_out: bool


@lru_cache(maxsize=1)
def concepts() -> Mapping[str, Concept]:
    """All of them by name, in the committed order.

    Raises:
        DataError: the committed file names what is not drawn, or says both of one thing.
    """
    data: dict[str, Any] = json.loads(files("ornstein.assets").joinpath("knowledge.json").read_text(encoding="utf8"))
    held_out, found = set(data["held_out"]), {}
    for name, entry in data["concepts"].items():
        undecided = set(_names(name, entry["undecided"]))
        members, others = (
            tuple(one for one in _names(name, entry[part]) if one not in undecided) for part in ("members", "others")
        )
        if set(members) & set(others):
            raise DataError(f"knowledge.json says both of {sorted(set(members) & set(others))}: {name!r}, and not")
        texts = {part: entry[part] for part in ("kind", "question", "noun", "because", "source")}
        found[name] = Concept(name, **texts, members=members, others=others, held_out=name in held_out)
    return MappingProxyType(found)


def _names(concept: str, entries: Iterable[str]) -> list[str]:
    """Without repetition; "@fruit" is a whole group."""
    groups, known, found = openmoji.groups(), set(openmoji.names()), dict[str, None]()
    for entry in entries:
        names = groups.get(entry[1:], ()) if entry.startswith("@") else (entry,) if entry in known else ()
        if not names:
            raise DataError(f"knowledge.json speaks of {entry!r} in {concept!r}, which vocabulary.txt does not have")
        found.update(dict.fromkeys(names))
    return list(found)
