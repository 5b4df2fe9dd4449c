"""The demo on the shipped models, with fewer steps: what its page holds, and that it can be run again."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ornstein.core.errors import DataError
from ornstein.recipes import demo


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STEPS", 10)


class _References(HTMLParser):
    """Every src and href of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("src", "href"):
                self.sources.setdefault(tag, []).append(value or "")


def test_the_report_shows_both_halves_and_needs_no_network(tmp_path: Path) -> None:
    # What an interrupted run left is no obstacle.
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "results.json").write_text("{")
    (tmp_path / ".report.html.tmp-1").write_text("half")
    path = demo.run_demo(tmp_path, episodes=4)
    html = path.read_text(encoding="utf8")
    page = _References()
    page.feed(html)
    assert len(page.sources["img"]) == len(demo.GRID) + 10 + len(demo.GUIDANCE_SCALES)
    assert len(page.sources.get("video", []) + page.sources.get("source", [])) == 4
    assert all(source.startswith("data:") for tag in ("img", "video", "source") for source in page.sources.get(tag, []))
    assert not re.search(r"url\((?!['\"]?data:)|@import|<script[^>]+src|<link", html)
    for prompt, _ in demo.GRID:
        assert prompt in html
    record = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert record["episodes"] == 4
    assert f"{record['successes']} of 4 fresh scenes solved" in html
    # Once more into the same folder.
    again = demo.run_demo(tmp_path, episodes=4)
    assert again == path


def test_fewer_episodes_than_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 4 episodes"):
        demo.run_demo(tmp_path / "never", episodes=3)
    assert not (tmp_path / "never").exists()
