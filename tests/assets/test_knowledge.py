"""What is said of things is consistent, drawn, and of use to the emergent suites."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from ornstein.assets import knowledge, openmoji
from ornstein.assets.knowledge import concepts
from ornstein.core.errors import DataError
from ornstein.simulation.tabletop.splits import words


def test_every_concept_is_true_of_something_false_of_more_and_has_a_source() -> None:
    for concept in concepts().values():
        assert concept.members
        assert len(concept.others) >= 8
        assert not set(concept.members) & set(concept.others)
        assert set(concept.members + concept.others) <= set(openmoji.names())
        assert concept.noun.startswith("the ")
        assert concept.source
    nouns = [concept.noun for concept in concepts().values()]
    assert len(set(nouns)) == len(nouns)


def test_known_facts() -> None:
    """Looked at by hand, not read from the file."""
    found = concepts()
    assert set(found["extinct"].members) == {"dodo", "mammoth", "T-Rex", "sauropod"}
    assert {"lion", "octopus", "honeybee"} <= set(found["animal"].members)
    assert {"car", "hammer", "banana"} <= set(found["animal"].others)
    assert "tomato" not in found["fruit"].members + found["fruit"].others  # botanists and cooks differ
    assert "cup of coffee" in found["drink"].members
    assert "pizza" in found["drink"].others


def test_emergent_suites_can_draw_on_it() -> None:
    """Categories, attributes and purposes with members that no robot data show; a few concepts are kept from all data."""
    web_only = set(words("web_only").objects)
    for kind in ("category", "attribute", "purpose"):
        assert sum(c.kind == kind and not c.held_out and bool(web_only & set(c.members)) for c in concepts().values()) >= 7
    held_out = [concept for concept in concepts().values() if concept.held_out]
    assert len(held_out) >= 5
    shown = web_only | set(words("seen").objects)
    assert all(shown & set(concept.members) for concept in held_out)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"members": ["dodo", "lion"]}, "says both of"),
        ({"members": ["dodo", "gryphon"]}, "'gryphon' in 'extinct'"),
        ({"others": ["@monsters"]}, "'@monsters' in 'extinct'"),
    ],
)
def test_a_wrong_file_is_told(
    change: dict[str, list[str]], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = json.loads(files("ornstein.assets").joinpath("knowledge.json").read_text("utf8"))
    data["concepts"]["extinct"].update(change)
    (tmp_path / "knowledge.json").write_text(json.dumps(data))
    monkeypatch.setattr(knowledge, "files", lambda _: tmp_path)
    with pytest.raises(DataError, match=complaint):
        concepts.__wrapped__()
