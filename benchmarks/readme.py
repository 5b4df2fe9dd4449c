"""Writes the README's table of figures from benchmarks/results, so that none is typed by hand.

.venv/bin/python benchmarks/readme.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures: written by benchmarks/readme.py -->", "<!-- end of figures -->"


_KINDS = {
    "single": "object, colour or background",
    "count": "two to four of a kind",
    "pair": "two objects in a relation",
    "group": "three or four different objects",
}


def table(results: Path = RESULTS) -> str:
    """The table in markdown."""
    pictures, startup = (json.loads((results / f"{name}.json").read_text()) for name in ("pictures", "startup"))
    experts, pipeline, eyes, policy = (
        json.loads((results / f"tabletop-{name}.json").read_text()) for name in ("experts", "pipeline", "legibility", "rt1")
    )
    asked = json.loads((results / "questions.json").read_text())["rates"]
    drawn = pictures["alignment"]
    settings = drawn["settings"]
    psnr = pictures["autoencoder"]
    seconds = pictures["seconds_a_picture_50_steps_guided"]
    low, high = psnr["ci95"]
    rows = [
        (f"a frozen judge names the prompt's object first, among {pictures['vocabulary']}", _share(drawn["object_named_first"])),
        (
            "the same, on a background that training never showed it on",
            _share(pictures["alignment_held_out"]["object_named_first"]),
        ),
        *(
            (f"unseen {what}: everything as said", _share(pictures["compositions_held_out"][kind]["drawn"]["all_right"]))
            for kind, what in _KINDS.items()
        ),
        ("control: prompts shuffled", f"{drawn['control_shuffled_captions']['mean_rate_of_shuffles']:.1%}, mean of 100 shuffles"),
        ("background as asked", _share(drawn["background_right"])),
        ("the judge itself on fresh clean scenes", _share(pictures["judge_on_clean_scenes"])),
        ("the judge on the autoencoder's reconstructions of them", _share(pictures["judge_on_reconstructions"])),
        ("autoencoder on fresh scenes", f"{psnr['psnr_db_mean']:.1f} dB ({low:.1f} – {high:.1f}), n = {psnr['n']}"),
        (
            f"a picture, {settings['steps']} guided steps, {seconds['threads']} thread{'s' * (seconds['threads'] > 1)}",
            f"{seconds['median']:.2f} s ({seconds['min']:.2f} – {seconds['max']:.2f} over {seconds['repeats']})",
        ),
        ("a small vision-language model, questions about fresh pictures", _share(asked["validation"]["all"])),
        ("the same, shown a grey picture instead", _share(asked["validation, blind"]["all"])),
        ("the same, “where is it?”, within a sixty-fourth of the picture", _share(asked["validation"]["where"])),
        ("robot, eight skills: the classical pipeline, usual scenes", _share(pipeline["all"])),
        (
            "a small RT-1, learned in under two hours on two cores, usual scenes",
            _share(policy["suites"]["all"]),
        ),
        ("the same, told in wordings that it never read", _share(policy["suites"]["unseen-phrasing"])),
        ("the same, on other tables", _share(policy["suites"]["backgrounds"])),
        ("control: the sentence is about other things", _share(policy["controls"]["shuffled"])),
        ("the scripted experts, the worst of both arms' skills", f"{experts['least']:.1%}, n = 300 each"),
        ("the pipeline's eyes name a block's face, 20 pixels wide, among 48", _share(eyes["blocks_named_right_of_48"])),
        ("`ornstein --help`", f"{startup['help']['median']:.2f} s"),
    ]
    lines = ["| what | measured (95 % interval) |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in rows)]
    where = ", ".join(
        f"{what} on {record['hardware']['cores']} cores of {record['hardware']['machine'].split(',')[0]}"
        for what, record in (("pictures", pictures), ("the small RT-1", policy))
    )
    lines += [
        "",
        f"Measured: {where}; seeds, commands, hardware and all else of every figure in `benchmarks/results/`; `make bench` measures again.",
    ]
    return "\n".join(lines)


def with_figures(readme: str, figures: str) -> str:
    """The README with the figures between their marks."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def _share(entry: dict[str, Any]) -> str:
    low, high = entry["wilson95"]
    return f"{entry['rate']:.1%} ({low:.1%} – {high:.1%}), n = {entry['n']}"


if __name__ == "__main__":
    README.write_text(with_figures(README.read_text(encoding="utf8"), table()), encoding="utf8")
    print(README)
