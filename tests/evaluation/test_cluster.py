"""Evaluation on a Ray cluster of several nodes on this machine, one of which goes away in the middle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ornstein.core.workers import open_workers
from ornstein.evaluation import evaluate_suite, trials
from ornstein.evaluation.notebook import Notebook
from ornstein.hub import find_checkpoint


def test_a_node_that_dies_loses_no_trial_and_counts_none_twice(
    cluster: Any, losing_a_node: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = evaluate_suite("expert", "pick", episodes=16, out=tmp_path / "alone")
    monkeypatch.setattr(Notebook, "write", losing_a_node(Notebook.write, 4))
    spread = evaluate_suite("expert", "pick", episodes=16, out=tmp_path / "spread", ray=cluster.address)
    assert len(cluster.worker_nodes) == 1
    for key in ("per_episode", "by_task", "success_rate", "checkpoint", "median_steps"):
        assert spread.record[key] == alone.record[key]
    lines = (tmp_path / "spread" / "trials.jsonl").read_text().splitlines()[1:]
    seeds = [json.loads(line)["seed"] for line in lines]
    assert sorted(seeds) == sorted(set(seeds)) == [row["seed"] for row in alone.record["per_episode"]]


def test_a_policy_travels_with_its_files(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes need nothing of this machine's disk: the folder is gone before the first of them is asked for anything."""
    folder = tmp_path / "policy"
    shutil.copytree(find_checkpoint("modular-tabletop").path, folder)
    alone = evaluate_suite(str(folder), "open-drawer", episodes=2, out=tmp_path / "alone")

    def without_folder(*arguments: Any, **named: Any) -> Any:
        shutil.rmtree(folder)
        return open_workers(*arguments, **named)

    monkeypatch.setattr(trials, "open_workers", without_folder)
    spread = evaluate_suite(str(folder), "open-drawer", episodes=2, out=tmp_path / "spread", ray=cluster.address)
    for key in ("per_episode", "checkpoint", "contract"):
        assert spread.record[key] == alone.record[key]
