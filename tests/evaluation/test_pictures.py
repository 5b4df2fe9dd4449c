"""The report on drawn pictures: its terms, its floor, its refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ornstein.core import DataError
from ornstein.evaluation import Rate, alignment_rates, quality_report, wilson_interval
from ornstein.evaluation.pictures import FLOOR, REAL
from ornstein.images import Alignment, Features, diversity, frechet_distance, kernel_distance, manifold_scores, nearest_neighbours


def _points(n: int, seed: int, shift: float = 0.0, **other: str) -> Features:
    values = np.random.default_rng(seed).normal(shift, 1, (n, 4))
    return Features(values, **{"extractor": "points@1", "resize": "16 px, as they are", "range": "0 to 1", **other})


def test_every_set_stands_beside_the_floor() -> None:
    real, again, good, bad, training = (_points(120, seed, shift) for seed, shift in ((0, 0), (1, 0), (2, 0), (3, 1.5), (4, 0)))
    names = {REAL: ["a", "b"] * 60, FLOOR: ["a", "c"] * 60, "good": ["a"] * 120, "bad": ["c"] * 120}
    report = quality_report(
        real, {"good": good, "bad": bad}, again=again, training=training, names=names, known=["a", "b", "c"]
    )  # fmt: skip
    assert list(report.sets) == [REAL, FLOOR, "good", "bad"]
    floor, best, worst = (report.sets[name] for name in (FLOOR, "good", "bad"))
    assert floor.frechet == frechet_distance(real, again)
    assert worst.kernel == kernel_distance(real, bad)
    assert worst.manifold == manifold_scores(real, bad, 5)
    assert worst.diversity == diversity(bad)
    assert best.copies is not None
    assert best.copies.nearer == nearest_neighbours(training, real, good).nearer
    assert worst.frechet is not None
    assert best.frechet is not None
    assert worst.frechet > 10 * best.frechet
    assert [one.modes.found for one in report.sets.values() if one.modes] == [2, 2, 1, 1]
    assert report.sets[REAL].kernel is None


def test_the_table_states_its_terms() -> None:
    text = quality_report(_points(120, 0), {"mine": _points(120, 1)}, again=_points(120, 2)).table()
    assert "120 pictures a set; points@1, 4 numbers a picture; 16 px, as they are; range 0 to 1" in text
    head, *lines = text.splitlines()
    assert head.split("  ")[-1] == "mine"
    assert [line.split("  ")[0] for line in lines[:3]] == ["Fréchet distance", "kernel distance", "precision"]
    assert "kinds" not in text
    assert "training" not in text
    assert "no floor" in quality_report(_points(9, 0), {"mine": _points(9, 1)}).table()


def test_json_round_trips_and_holds_the_figures() -> None:
    real, mine, training = _points(120, 0), _points(120, 1), _points(50, 2)
    report = quality_report(real, {"mine": mine}, training=training, names={"mine": ["a"] * 120}, known=["a", "b"])
    read = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (read["n"], read["dimensions"], read["extractor"]) == (120, 4, "points@1")
    figures = read["sets"]["mine"]
    assert figures["frechet"] == report.sets["mine"].frechet
    assert figures["kernel"]["ci95"][0] < figures["kernel"]["value"] < figures["kernel"]["ci95"][1]
    assert figures["modes"]["missing"] == ["b"]
    assert figures["copies"]["wilson95"] == list(wilson_interval(figures["copies"]["successes"], 120))
    closest = figures["copies"]["closest"][0]
    gaps = np.linalg.norm(mine.values[:, None] - training.values, axis=-1)
    assert closest["distance"] == pytest.approx(gaps.min())
    assert gaps[closest["drawn"], closest["training"]] == gaps.min()


def test_where_pictures_are_few_the_frechet_distance_is_missing_and_said_so() -> None:
    report = quality_report(_points(7, 0), {"mine": _points(7, 1)})
    assert report.sets["mine"].frechet is not None
    values = np.random.default_rng(0).normal(size=(2, 7, 30))
    real, mine = (Features(one, "wide@1", "none", "any") for one in values)
    report = quality_report(real, {"mine": mine})
    assert report.sets["mine"].frechet is None
    assert "it needs more than 30 pictures a set" in report.table()
    assert "Fréchet distance  " not in report.table()


def test_other_terms_are_refused() -> None:
    real = _points(20, 0)
    with pytest.raises(DataError, match="of 20 and of 19 pictures are not compared.*take 19 of each"):
        quality_report(real, {"mine": _points(19, 1)})
    with pytest.raises(DataError, match="of 20 and of 30 pictures"):
        quality_report(real, {"mine": _points(20, 1)}, again=_points(30, 2))
    with pytest.raises(DataError, match="another resize"):
        quality_report(real, {"mine": _points(20, 1, resize="8 px, each pixel repeated 2 times")})
    with pytest.raises(DataError, match="another extractor"):
        quality_report(_points(120, 0), {"mine": _points(120, 1)}, training=_points(120, 2, extractor="points@2"))
    with pytest.raises(DataError, match="'real' names the real pictures"):
        quality_report(real, {"real": _points(20, 1)})


def test_rates_are_among_the_captions_that_say_it() -> None:
    alignments = [
        Alignment(objects=True, colors=None, count=True, background=True, place=None, size=None),
        Alignment(objects=True, colors=None, count=False, background=None, place=False, size=None),
        Alignment(objects=True, colors=None, count=True, background=False, place=None, size=None),
    ]
    rates = alignment_rates(alignments)
    assert rates == {
        "objects": Rate(3, 3),
        "count": Rate(2, 3),
        "background": Rate(1, 2),
        "place": Rate(0, 1),
        "all_right": Rate(1, 3),
    }
    assert rates["count"].interval == wilson_interval(2, 3)
    assert str(Rate(1, 2)).startswith("1/2 = 50.0% (")
    with pytest.raises(DataError, match="no alignment"):
        alignment_rates([])
