"""The quality of drawn pictures as one report: every figure beside its floor, and the terms on which they may be compared.

A floor is the figure of a second set of real pictures against the first: what a perfect model would score at this n. Distances, balls and
counts all depend on n, so every set of a report has the same number of pictures, or the report is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ornstein.core.errors import DataError
from ornstein.evaluation.statistics import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ornstein.images import Alignment, Copies, Estimate, Features, ManifoldScores, Modes

REAL = "real"
FLOOR = "real again (floor)"


def alignment_rates(alignments: Sequence[Alignment]) -> dict[str, Rate]:
    """How often each part of the captions is right, among the captions that say it; "all_right" among all.

    Raises:
        DataError: there is no alignment.
    """
    if not alignments:
        raise DataError("there is no alignment to take rates of")
    rates = {}
    for part in (*(field.name for field in fields(alignments[0])), "all_right"):
        answers = [answer for one in alignments if (answer := getattr(one, part)) is not None]
        if answers:
            rates[part] = Rate(sum(answers), len(answers))
    return rates


@dataclass(frozen=True)
class SetQuality:
    """What one set of pictures is worth against the real one. None: not measured, or (Fréchet) not measurable at this n."""

    frechet: float | None
    kernel: Estimate | None
    manifold: ManifoldScores | None
    modes: Modes | None
    diversity: float
    vendi: float
    copies: Copies | None

    def to_json(self) -> dict[str, Any]:
        kernel, manifold, modes, copies = self.kernel, self.manifold, self.modes, self.copies
        return {
            "frechet": self.frechet,
            "kernel": kernel and {"value": kernel.value, "standard_error": kernel.error, "ci95": list(kernel.interval)},
            "manifold": manifold and {field.name: getattr(manifold, field.name) for field in fields(manifold)},
            "modes": modes and {field.name: getattr(modes, field.name) for field in fields(modes)},
            "diversity": self.diversity,
            "vendi": self.vendi,
            "copies": copies
            and {
                **Rate(copies.nearer, len(copies.distances)).to_json(),
                "threshold": copies.threshold,
                "expected_share": copies.expected_share,
                "p_value": copies.p_value,
                "closest": [{"drawn": a, "training": b, "distance": float(copies.distances[a])} for a, b in copies.closest(8)],
            },
        }


@dataclass(frozen=True)
class QualityReport:
    """Sets of n pictures each against one real set, on one extractor: the only figures that stand side by side."""

    n: int
    dimensions: int
    extractor: str
    resize: str
    range: str
    sets: Mapping[str, SetQuality]

    def to_json(self) -> dict[str, Any]:
        terms = {name: getattr(self, name) for name in ("n", "dimensions", "extractor", "resize", "range")}
        return terms | {"sets": {name: one.to_json() for name, one in self.sets.items()}}

    def table(self) -> str:
        """The terms, then a line a figure and a column a set."""
        rows = [["", *self.sets]]
        for title, cell in _ROWS.items():
            cells = [cell(one) for one in self.sets.values()]
            if any(cells):
                rows.append([title, *(text or "–" for text in cells)])
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.append(
            f"{self.n} pictures a set; {self.extractor}, {self.dimensions} numbers a picture; {self.resize}; range {self.range}"
        )
        if self.n <= self.dimensions:
            lines.append(f"no Fréchet distance: it needs more than {self.dimensions} pictures a set")
        modes = next(iter(self.sets.values())).modes
        if modes:
            lines.append(
                f"{modes.known} kinds; {self.n} draws of equally likely ones find {modes.expected:.1f} ± {modes.deviation:.1f}"
            )
        if FLOOR not in self.sets:
            lines.append("no floor: without a second set of real pictures nobody knows what a perfect score is")
        return "\n".join(lines)


def quality_report(
    real: Features,
    drawn: Mapping[str, Features],
    *,
    again: Features | None = None,
    training: Features | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    known: Sequence[str] = (),
    k: int = 5,
) -> QualityReport:
    """Measure each drawn set, and the second real set, against the real one.

    Args:
        real: pictures that training never saw. again: as many others, for the floor.
        drawn: by the name of their model.
        training: what the model was trained on, of any number: then copies are looked for.
        names: what a judge calls the pictures of each set, under `REAL`, `FLOOR` and the names of `drawn`. known: the kinds there are.
        k: of the neighbours for precision, recall, density and coverage.

    Raises:
        DataError: the sets differ in number, extractor, resizing or range, a name is taken, or there are too few pictures.
    """
    from ornstein.images import diversity, modes_found, vendi_score
    from ornstein.images.features import require_comparable

    if taken := {REAL, FLOOR} & set(drawn):
        raise DataError(f"{taken.pop()!r} names the real pictures: call a drawn set otherwise")
    sets = {REAL: real} | ({FLOOR: again} if again is not None else {}) | dict(drawn)
    require_comparable(*sets.values(), same_n=True)
    measured = {}
    for name, features in sets.items():
        against = None if name == REAL else features
        called = (names or {}).get(name)
        measured[name] = SetQuality(
            **_against(real, against, training, k),
            modes=modes_found(called, known) if called is not None and known else None,
            diversity=diversity(features),
            vendi=vendi_score(features),
        )
    return QualityReport(len(real), real.values.shape[1], real.extractor, real.resize, real.range, measured)


def _against(real: Features, drawn: Features | None, training: Features | None, k: int) -> dict[str, Any]:
    from ornstein.images import frechet_distance, kernel_distance, manifold_scores, nearest_neighbours

    if drawn is None:
        return {"frechet": None, "kernel": None, "manifold": None, "copies": None}
    n, d = real.values.shape
    return {
        "frechet": frechet_distance(real, drawn) if n > d else None,
        "kernel": kernel_distance(real, drawn),
        "manifold": manifold_scores(real, drawn, k),
        "copies": nearest_neighbours(training, real, drawn) if training is not None else None,
    }


def _of_manifold(part: str) -> Callable[[SetQuality], str]:
    return lambda one: f"{getattr(one.manifold, part):.3f}" if one.manifold else ""


def _kernel(one: SetQuality) -> str:
    return f"{one.kernel.value:.3f} ± {one.kernel.interval[1] - one.kernel.value:.3f}" if one.kernel else ""


def _copies(one: SetQuality) -> str:
    if one.copies is None:
        return ""
    rate, p = Rate(one.copies.nearer, len(one.copies.distances)), one.copies.p_value
    return f"{rate.rate:.1%} ({rate.interval[0]:.1%} to {rate.interval[1]:.1%}), p {f'= {p:.2g}' if p >= 1e-6 else '< 1e-6'}"


_ROWS: dict[str, Callable[[SetQuality], str]] = {
    "Fréchet distance": lambda one: "" if one.frechet is None else f"{one.frechet:.4g}",
    "kernel distance": _kernel,
    "precision": _of_manifold("precision"),
    "recall": _of_manifold("recall"),
    "density": _of_manifold("density"),
    "coverage": _of_manifold("coverage"),
    "kinds found": lambda one: str(one.modes.found) if one.modes else "",
    "mean distance of two": lambda one: f"{one.diversity:.4g}",
    "Vendi score": lambda one: f"{one.vendi:.4g}",
    "nearer to training than 1 % of real": _copies,
}
