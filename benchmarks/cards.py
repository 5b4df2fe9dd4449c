"""Writes the measured figures into the shipped models' cards, from benchmarks/results.

    .venv/bin/python benchmarks/cards.py

Data and licence come from the recipe, all else from the checkpoint's own provenance: a card holds nothing typed by hand.
"""

from __future__ import annotations

import json
from typing import Any

from record import RESULTS

from ornstein.core import read_checkpoint
from ornstein.hub import BUNDLED, SHIPPED
from ornstein.recipes import autoencoder, emoji_classifier, modular_tabletop, text_to_image, vlm_emoji
from ornstein.training.export import describe

CARDS = {
    "autoencoder": autoencoder.CARD,
    "emoji-classifier": emoji_classifier.CARD,
    "text-to-image": text_to_image.CARD,
    "modular-tabletop": modular_tabletop.CARD,
    "vlm-emoji": vlm_emoji.CARD,
}
_MEASURED = "\n## Measured\n"


def figures(name: str) -> list[tuple[str, Any]]:
    """What the benchmarks say about one model."""
    pictures = json.loads((RESULTS / "pictures.json").read_text())
    match name:
        case "autoencoder":
            return [
                ("PSNR on fresh scenes", pictures["autoencoder"]),
                ("judge on reconstructions", pictures["judge_on_reconstructions"]),
            ]
        case "emoji-classifier":
            return [("accuracy on fresh clean scenes", pictures["judge_on_clean_scenes"])]
        case "text-to-image":
            seen = [(key, value) for key, value in pictures["alignment"].items() if key != "missed"]
            unseen = ("object named first, held-out backgrounds", pictures["alignment_held_out"]["object_named_first"])
            kinds = {kind: value for kind, value in pictures["compositions_held_out"].items() if kind != "missed"}
            parts = [
                (f"held-out {kind}: {part.replace('_', ' ')} ({whose})", rate)
                for kind, both in kinds.items()
                for whose, rates in both.items()
                for part, rate in rates.items()
            ]
            return [*seen, unseen, *parts, ("seconds a picture", pictures["seconds_a_picture_50_steps_guided"])]
        case "modular-tabletop":
            seen, solved = (json.loads((RESULTS / f"tabletop-{part}.json").read_text()) for part in ("legibility", "pipeline"))
            eyes = [(key, seen[key]) for key in ("found", "blocks_named_right_of_48", "mats_named_right_of_14")]
            return [*eyes, ("clean scenes solved, all skills", solved["all"]), *sorted(solved["rates"].items())]
        case "rt1-tabletop":
            measured = json.loads((RESULTS / "tabletop-rt1.json").read_text())
            usual = sorted(measured["suites"]["all"]["by_task"].items())
            return [
                *measured["suites"].items(),
                *usual,
                *((f"control: {what} sentence", r) for what, r in measured["controls"].items()),
            ]
        case "vlm-emoji":
            rates = json.loads((RESULTS / "questions.json").read_text())["rates"]
            return [(f"{split}: {kind}", rate) for split, kinds in rates.items() for kind, rate in kinds.items()]
        case _:
            raise ValueError(f"no benchmark measures {name}")


def card(name: str) -> str:
    """The card in markdown."""
    checkpoint = read_checkpoint(BUNDLED / name)
    said = CARDS.get(name)
    # A recipe that records its data describes them when it trains.
    trained = (BUNDLED / name / "card.md").read_text(encoding="utf8").split(_MEASURED)[0]
    text = trained if said is None else describe(checkpoint.provenance, checkpoint.kind, said)
    rows = [f"| {what.replace('_', ' ')} | {_words(entry)} |" for what, entry in figures(name)]
    return "\n".join(
        [
            text.rstrip(),
            _MEASURED,
            "| | |",
            "|---|---|",
            *rows,
            "",
            "From `benchmarks/results/`, where seeds and commands stand too.",
            "",
        ]
    )


def _words(entry: dict[str, Any]) -> str:
    kept = {
        key: value
        for key, value in entry.items()
        if not isinstance(value, dict) and (not isinstance(value, list) or len(value) == 2)
    }
    return ", ".join(f"{key} {_number(value)}" for key, value in kept.items())


def _number(value: Any) -> str:
    if isinstance(value, list):
        return " – ".join(map(_number, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    for shipped in SHIPPED:
        (BUNDLED / shipped / "card.md").write_text(card(shipped), encoding="utf8")
        print(BUNDLED / shipped / "card.md")
