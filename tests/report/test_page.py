from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from ornstein.core.errors import OrnsteinError
from ornstein.report import Filmstrip, Gallery, Picture, Report, RobotSection, Video, write_report

PIXELS = np.full((8, 8, 3), 200, np.uint8)


def _report(prompt: str = "an apple") -> Report:
    return Report(
        title="T",
        summary="S",
        galleries=(
            Gallery("G", "x", (Picture(PIXELS, prompt, "apple", True),)),
            Filmstrip("F", "y", (Picture(PIXELS, "t = 0"),)),
        ),
        robots=(
            RobotSection(
                "26 of 30", "z", (("as given", "26 / 30", "70 % – 95 %"),), (Video(b"mp4!", "pick it up", "failed", False),)
            ),
            RobotSection("3 of 4", "w", (), (), title="A robot that thinks"),
        ),
        facts=(("machine", "two cores"),),
        credits=("OpenMoji",),
    )


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    html = write_report(_report(), tmp_path / "deep" / "report.html").read_text(encoding="utf8")
    assert not re.search(r"""(src|href)=["'](?!data:)""", html)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    assert base64.b64encode(b"mp4!").decode() in html
    assert html.count("<img") == 2
    for text in (
        "26 of 30",
        "70 % – 95 %",
        "two cores",
        "OpenMoji",
        "pick it up",
        "A robot that follows instructions",
        "3 of 4",
        "A robot that thinks",
    ):
        assert text in html


def test_prompts_cannot_inject_markup(tmp_path: Path) -> None:
    html = write_report(_report("<script>alert(1)</script>"), tmp_path / "r.html").read_text(encoding="utf8")
    assert "<script>" not in html


def test_an_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OrnsteinError, match="cannot write the report"):
        write_report(_report(), tmp_path / "file" / "report.html")


def test_a_new_report_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    write_report(_report("first"), path)
    write_report(_report("second"), path)
    assert "second" in path.read_text(encoding="utf8")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
