"""What the shipped vision-language model answers rightly, kind by kind, beside the same model shown a grey picture.

.venv/bin/python benchmarks/questions.py [CHECKPOINT]      # writes benchmarks/results/questions.json
"""

from __future__ import annotations

import sys

from record import RESULTS, write

import ornstein
from ornstein.data.questions import Lessons
from ornstein.evaluation.answers import examine
from ornstein.hub import fingerprint_of

#: Lessons of a seed that neither training nor tuning saw; fixed before looking.
SEED = 1_000_000
LESSONS = 2000


def main(checkpoint: str) -> None:
    """Rates of the validation stream and of the held-out one, where facts and sums are asked that training never asks."""
    model = ornstein.load(checkpoint, expect="vision-language")
    found = {}
    for split in ("validation", "held-out"):
        lessons = Lessons(seed=SEED, split=split)  # type: ignore[arg-type]
        for control, blind in ((split, False), (f"{split}, blind", True)):
            rates = examine(model, lessons, range(LESSONS), blind=blind)
            found[control] = {kind: rate.to_json() for kind, rate in rates.items()}
    record = {
        "checkpoint": checkpoint,
        "fingerprint": fingerprint_of(checkpoint),
        "seed": SEED,
        "lessons": LESSONS,
        "rates": found,
    }
    write(RESULTS / "questions.json", record)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "vlm-emoji")
