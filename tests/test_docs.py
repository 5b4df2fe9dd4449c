"""The guide runs, and what it points at is there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_listed() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf8")
    for page in PAGES:
        assert page.name == "index.md" or f"({page.name})" in index


def test_the_first_example_of_the_guide_samples_what_it_says() -> None:
    code = re.findall(r"```python\n(.*?)```", (DOCS / "diffusion.md").read_text(encoding="utf8"), re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(code, names)
    x = names["x"]
    assert x.shape == (1000, 2)  # type: ignore[attr-defined]
    assert abs(float(x[:, 0].mean()) - (0.3 - 0.7)) < 0.15  # type: ignore[index]


def test_the_commands_for_pictures_are_read_as_they_stand() -> None:
    from ornstein.commands.sample_options import read_options

    text = (DOCS / "pictures.md").read_text(encoding="utf8")
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("ornstein sample ")]
    fresh = [words[2:] for words in lines if not {"--like", "--help"} & set(words)]
    assert len(fresh) >= 6
    for words in fresh:
        options, stored = read_options(words)
        assert options.prompt == words[0]
        assert stored is None


def test_figures_of_the_vision_language_data_are_its_own() -> None:
    from ornstein.assets.knowledge import concepts
    from ornstein.data.questions import PLACES, QUESTION_KINDS
    from ornstein.networks.vision_language import VisionLanguageConfig, VisionLanguageNetwork

    page = (DOCS / "questions.md").read_text(encoding="utf8")
    assert f"{len(concepts())} concepts" in page
    network = VisionLanguageNetwork(VisionLanguageConfig())
    assert f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.1f} million numbers" in page
    assert f"{network.vision.grid} × {network.vision.grid} places" in page
    assert f"{PLACES} columns and {PLACES} rows" in page
    rows = re.findall(r"^\| ([a-z ]+) \| .+\? |^\| ([a-z ]+) \| (?:find|point|describe)", page, re.MULTILINE)
    assert {a or b for a, b in rows} == set(QUESTION_KINDS)


def test_figures_of_the_full_size_rt1_are_the_measured_ones() -> None:
    """Counts are the network's, rates the committed benchmark's."""
    import torch

    from ornstein.policies import PaperRT1

    page = (DOCS / "rt1.md").read_text(encoding="utf8")
    with torch.device("meta"):
        network = PaperRT1()
    for part in (network.vision, network.token_learner, network.transformer, network):
        assert f"{sum(parameter.numel() for parameter in part.parameters()):,}" in page
    ways = json.loads((DOCS.parent / "benchmarks" / "results" / "rt1_speed.json").read_text(encoding="utf8"))["ways"]
    for way in ways.values():
        assert f"{way['hertz']:.1f}" in page
    beside = json.loads((DOCS.parent / "benchmarks" / "results" / "beside_rt1.json").read_text(encoding="utf8"))
    ratio, ours = beside["times_faster"]["ours, float32"], beside["seconds_a_frame"]["ours, float32"]["median"]
    assert f"{ours:.2f} s a frame" in page
    assert f"{ratio['median']:.1f} times as long" in page
    assert f"{min(ratio['all']):.1f} to {max(ratio['all']):.1f} times" in page
    assert f"{beside['million_parameters']['theirs']:.0f} million" in page


def test_figures_of_doubt_and_refusal_are_the_measured_ones() -> None:
    page = " ".join((DOCS / "rt1.md").read_text(encoding="utf8").split())
    found = json.loads((DOCS.parent / "benchmarks" / "results" / "doubt.json").read_text(encoding="utf8"))
    early = found["doubt"]["of the first 15 steps"]
    least, most = early["reliability"][0], early["reliability"][-1]
    assert f"calibration error of {100 * early['expected_calibration_error']:.1f} %" in page
    assert f"trusts least ({100 * least['predicted']:.0f} %) is solved in {100 * least['rate']:.0f} %" in page
    assert f"trusts most ({100 * most['predicted']:.0f} %) in {100 * most['rate']:.0f} %" in page
    assert f"curve is {early['auroc_of_failure']:.2f}" in page
    assert f"for {found['presence']['pairs']} scenes" in page
    assert f"area under the curve {found['presence']['auroc']:.3f}" in page
    for threshold in ("0.5", "0.75", "0.9"):
        row = found["presence"]["thresholds"][threshold]
        alarms, caught = (100 * row[name]["rate"] for name in ("false_alarms", "caught"))
        assert f"| {threshold} | {alarms:.1f} % | {caught:.1f} % |" in page
    languages = json.loads((DOCS.parent / "benchmarks" / "results" / "languages.json").read_text(encoding="utf8"))["languages"]
    for language, row in languages.items():
        pick, bowl = (f"{row[skill]['successes']} of {row[skill]['n']}" for skill in ("pick", "place_in_bowl"))
        assert f"| {language} | {pick} | {bowl} |" in page
