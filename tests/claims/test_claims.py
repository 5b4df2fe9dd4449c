"""The ledger, its command, and the experiments' own yardsticks. The verdicts themselves are for `ornstein claims` to give."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from ornstein.claims import LEDGER, Measure, find_claims
from ornstein.claims.comparison import Comparison, unless_diverged
from ornstein.claims.forward_process import _slope, _worst_z
from ornstein.claims.objective import _mean_over_time
from ornstein.claims.outcome import mean_measure
from ornstein.claims.predictions import judge, sliced_wasserstein
from ornstein.claims.small_models import mixture
from ornstein.cli import main
from ornstein.core.errors import DataError, OrnsteinError, TrainingDivergedError, UnknownNameError

BUILT = [claim.id for claim in LEDGER if claim.experiment]


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["claims", *words])
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, said.err


def test_every_row_is_listed_and_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert [claim.id for claim in LEDGER] == [*(f"D{k}" for k in range(1, 10)), *(f"V{k}" for k in range(1, 10))]
    code, out, _ = _run(capsys)
    assert code == 0
    for claim in LEDGER:
        line = next(line for line in out.splitlines() if line.startswith(claim.id))
        assert claim.statement in line
        assert ("not yet" in line) == (not claim.experiment)
    code, out, _ = _run(capsys, "--json")
    assert [row["id"] for row in json.loads(out) if row["built"]] == BUILT


def test_claims_are_found_by_id_in_any_case_and_order() -> None:
    assert [claim.id for claim in find_claims(["d4", "D1", "D4", "d4"])] == ["D4", "D1"]
    with pytest.raises(UnknownNameError, match="D12"):
        find_claims(["D12"])
    with pytest.raises(OrnsteinError, match=f"built: {', '.join(BUILT)}"):
        find_claims(["V9"])[0].load()


@pytest.mark.parametrize("name", BUILT)
def test_every_built_claim_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quick: the path from experiment to page, without a verdict."""
    code, out, err = _run(capsys, name, "--quick", "--out", str(tmp_path))
    assert code == 0, err
    record = json.loads((tmp_path / name / "outcome.json").read_text())
    assert record["verdict"] == "not run here"
    assert record["seeds"]
    assert record["commit"]
    assert record["command"] == f"ornstein claims {name} --quick"
    assert any("control" in measure["name"] or "floor" in measure["name"] for measure in record["measures"])
    for measure in record["measures"]:
        assert math.isfinite(measure["value"])
        assert measure["interval"] is None or measure["interval"][0] <= measure["value"] <= measure["interval"][1]
        assert measure["name"] in out
    assert record["pictures"]
    for picture in record["pictures"]:
        assert min(Image.open(tmp_path / name / picture["file"]).size) > 16
    assert f"{name}: not run here" in (tmp_path / "report.html").read_text()


def test_mistakes_are_one_line_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for words, message in (
        (("D1", "V9"), "no experiment yet"),
        (("D1", "X1"), "unknown claim"),
        (("D1", "--out", str(file)), "is a file"),
    ):
        code, out, err = _run(capsys, *words)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def test_a_mean_has_students_interval() -> None:
    values = [1.0, 2.0, 4.0]
    found = mean_measure("x", values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert found.interval is not None
    np.testing.assert_allclose(found.interval, (low, high))
    assert str(Measure("x", 1.25, (1, 2), 3, "dB")) == "1.25 (1 to 2) dB, n = 3"
    for wrong in ([1.0], [1.0, math.nan]):
        with pytest.raises(DataError, match="two finite values"):
            mean_measure("x", wrong)


def _comparison(**scores: list[float]) -> Comparison:
    """Of three runs each, with the data's own floor."""
    return Comparison("here", "distance", Measure("floor", 0.0), 3, scores)


def test_a_method_beats_another_beyond_chance_and_only_with_all_its_runs() -> None:
    low, high = [1.0, 1.1, 0.9], [2.0, 2.2, 1.9]
    pair = _comparison(a=low, b=high)
    assert pair.beats("a", "b", 0.05)
    assert not pair.beats("b", "a", 0.05)
    assert not _comparison(a=low, b=[1.05, 0.95, 1.2]).beats("a", "b", 0.05)
    # A method with a run that diverged beats none, and is beaten by what the rest of its runs say; none at all is beaten outright.
    assert not _comparison(a=low[:2], b=high).beats("a", "b", 0.05)
    assert _comparison(a=low, b=high[:2]).beats("a", "b", 0.05)
    assert _comparison(a=low, b=[]).beats("a", "b", 0.05)
    assert not _comparison(a=low, b=high[:1]).beats("a", "b", 0.05)
    assert not _comparison(a=[], b=[]).beats("a", "b", 0.05)
    assert _comparison(a=[1.0] * 3, b=[2.0] * 3).beats("a", "b", 0.05)
    assert not _comparison(a=[1.0] * 3, b=[1.0] * 3).beats("a", "b", 0.05)


def test_a_run_that_diverges_is_counted_and_ends_nothing() -> None:
    comparison = _comparison()

    def fail() -> float:
        raise TrainingDivergedError("the loss is NaN at step 3")

    for method, runs in (("a", [lambda: 1.0, lambda: 3.0, lambda: 2.0]), ("b", [fail, lambda: 5.0, fail]), ("c", [fail] * 3)):
        for run in runs:
            comparison.add(method, unless_diverged(run))
    assert comparison.scores == {"a": [1.0, 3.0, 2.0], "b": [5.0], "c": []}
    mean, one, floor, diverged = comparison.measures()
    assert (mean.value, mean.n, one.value, one.interval, one.n) == (2.0, 3, 5.0, None, 1)
    assert floor.name == "floor"
    assert (diverged.value, diverged.n) == (5.0, 9)
    with pytest.raises(DataError):  # any other mistake is not a result
        unless_diverged(lambda: mean_measure("x", []).value)


def test_the_verdict_on_predictions_follows_from_the_scores() -> None:
    good, bad, mixed = [1.0, 1.01, 0.99], [2.0, 2.01, 1.99], [0.5, 1.6, 1.0]
    best = _comparison(epsilon=good, sample=bad, v_prediction=bad, score=bad)
    assert judge([best, best])[0] == "supported"
    verdict, because = judge([best, _comparison(epsilon=good, sample=bad, v_prediction=mixed, score=[])])
    assert verdict == "cannot tell"
    assert "here ε beats sample, score and is not told from v_prediction" in because
    verdict, because = judge([best, _comparison(epsilon=bad, sample=good, v_prediction=mixed, score=bad)])
    assert verdict == "refuted"
    assert "is beaten by sample" in because


def test_the_slope_of_noised_pictures_is_their_signal_and_its_interval_covers() -> None:
    rng = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(200):
        x_0 = torch.rand(60, 3, 4, 4, generator=rng) * 2 - 1
        found = _slope("s", 0.3 * x_0 + 0.9 * torch.randn(x_0.shape, generator=rng), x_0)
        assert found.interval is not None
        hits += found.interval[0] <= 0.3 <= found.interval[1]
    assert 180 <= hits <= 199


def test_deviations_are_in_standard_errors() -> None:
    rng = torch.Generator().manual_seed(0)
    x = 2 + 3 * torch.randn(4000, 1, generator=rng, dtype=torch.float64)
    assert _worst_z(x, torch.tensor([2.0]), 3.0) < 3.5
    assert _worst_z(x, torch.tensor([2.0 + 10 * 3 / 4000**0.5]), 3.0) > 6
    assert _worst_z(x, torch.tensor([2.0]), 3.3) > 6


def test_the_distance_by_hand() -> None:
    """A shift by c along one axis of the plane: W2² is c² cos² over directions, c²/2 on average."""
    x = mixture().sample(2000, torch.Generator().manual_seed(0))
    shifted = x + torch.tensor([0.4, 0.0])
    assert sliced_wasserstein(x, x.flip(0)) < 1e-12
    assert abs(sliced_wasserstein(x, shifted) - 0.4 / math.sqrt(2)) < 0.03


def test_weights_over_time_are_a_mean() -> None:
    times = np.array([1, 4, 10])
    weights = _mean_over_time(times, 10)
    np.testing.assert_allclose(weights, [0.2, 0.5, 0.3])  # 1–2, 3–7 (7 is as near to 4 as to 10), 8–10
    assert math.isclose(weights.sum(), 1.0)


def test_the_mixture_has_about_unit_variance() -> None:
    x = mixture().sample(20_000, torch.Generator().manual_seed(0))
    assert 0.7 < float(x.var(0).mean()) < 1.3
