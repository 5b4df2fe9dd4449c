"""The replay of known defects (docs/defects.md) still means something: each applies to the source as it is, and was seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])


@pytest.mark.usefixtures("benchmarks")
def test_every_defect_applies_once_to_the_source() -> None:
    from defects import DEFECTS

    for defect in DEFECTS:
        text = (ROOT / "src" / "ornstein" / defect.file).read_text(encoding="utf8")
        assert text.count(defect.old) == 1, defect.id
        assert defect.new != defect.old
        assert all((ROOT / path).exists() for path in defect.tests.split()), defect.id
    assert len({defect.id for defect in DEFECTS}) == len(DEFECTS) >= 25


@pytest.mark.usefixtures("benchmarks")
def test_all_were_caught_by_tests_that_exist() -> None:
    from defects import DEFECTS

    found = json.loads((ROOT / "benchmarks" / "results" / "defects.json").read_text())["defects"]
    assert set(found) == {defect.id for defect in DEFECTS}
    for name, row in found.items():
        assert row["caught_by"], name
        file, _, test = row["caught_by"].partition("::")
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf8"), name
