from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ornstein.core import TrainingError, write_checkpoint
from ornstein.training.run import RunFolder, require_same_recipe


def _checkpoint(run: RunFolder, step: int) -> Path:
    folder = run.checkpoint_at(step)
    write_checkpoint(folder, kind="k", config={}, tensors={"w": np.full(3, step)}, provenance={}, card="")
    return folder


def _opened(out: Path, *, resume: bool = False, overwrite: bool = False) -> RunFolder:
    run = RunFolder(out)
    run.open(resume=resume, overwrite=overwrite)
    return run


def test_one_training_at_a_time(tmp_path: Path) -> None:
    first = _opened(tmp_path)
    with pytest.raises(TrainingError, match="another training is running in it"):
        _opened(tmp_path)
    first.close()
    _opened(tmp_path).close()


def test_a_run_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    run = _opened(tmp_path)
    _checkpoint(run, 5)
    run.log({"step": 5})
    (run.previews / "step-0000005.png").write_text("")
    (run.previews / "data.png").write_text("")  # drawn by a recipe before it trains
    (tmp_path / "cache").mkdir()  # of the recipe: no business of ours
    run.close()
    with pytest.raises(TrainingError, match="already holds a training run: go on with --resume"):
        _opened(tmp_path)
    _opened(tmp_path, resume=True).close()
    assert run.newest() == run.checkpoint_at(5)
    _opened(tmp_path, overwrite=True).close()
    assert run.newest() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "cache", "checkpoints", "previews"]
    assert list(run.previews.iterdir()) == [run.previews / "data.png"]


def test_a_finished_model_is_not_overwritten_either(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_checkpoint(run.model, kind="k", config={}, tensors={}, provenance={}, card="")
    with pytest.raises(TrainingError, match="already holds"):
        _opened(tmp_path)


def test_a_log_alone_neither_blocks_nor_survives(tmp_path: Path) -> None:
    run = _opened(tmp_path)
    run.log({"step": 1})
    run.close()
    _opened(tmp_path).close()
    assert not (tmp_path / "log.jsonl").exists()


def test_nothing_to_resume_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no checkpoint; start it without --resume"):
        _opened(tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("place", ["file/run", "file", "/proc/run"])
def test_an_unwritable_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot train into .*choose another output folder"):
        _opened(tmp_path / place)


def test_the_newest_whole_checkpoint_is_chosen_and_damage_is_loud(tmp_path: Path) -> None:
    run = _opened(tmp_path)
    for step in (9, 10, 100):
        _checkpoint(run, step)
    (run.checkpoint_at(100) / "model.safetensors").write_bytes(b"")
    warnings: list[str] = []
    assert run.newest_valid(warnings.append).path == run.checkpoint_at(10)
    assert len(warnings) == 1
    assert "step-0000100" in warnings[0]
    for step in (9, 10):
        (run.checkpoint_at(step) / "config.json").unlink()
    with pytest.raises(TrainingError, match="none of its checkpoints is whole"):
        run.newest_valid(warnings.append)
    assert len(warnings) == 4


def test_old_checkpoints_are_deleted_newest_last(tmp_path: Path) -> None:
    run = _opened(tmp_path)
    for step in (2, 10, 9, 100):
        _checkpoint(run, step)
    run.prune(2)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-0000010", "step-0000100"]
    run.prune(2)
    assert len(list(run.checkpoints.iterdir())) == 2


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    run = _opened(tmp_path)
    _checkpoint(run, 5)
    (run.checkpoints / ".step-0000010.tmp-123" / "training_state").mkdir(parents=True)
    (run.checkpoints / ".step-0000001.old-123").mkdir()
    run.close()
    _opened(tmp_path, resume=True).close()
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-0000005"]


def test_the_log_is_rewound_to_the_resumed_step(tmp_path: Path) -> None:
    run = _opened(tmp_path)
    for step in (2, 4, 6):
        run.log({"step": step, "loss": 1.0 if step != 4 else float("nan")})
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + '{"step": 8, "lo')  # killed while writing
    run.rewind_log(4)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 2, "loss": 1.0},
        {"step": 4, "loss": None},
    ]


def test_another_recipe_is_refused_field_by_field() -> None:
    then = {"width": 6, "optimization": {"learning_rate": 1e-3, "steps": 10, "log_every": 50}, "name": "x"}
    require_same_recipe(then, then, Path("run"))
    now = {"width": 8, "optimization": {"learning_rate": 1e-3, "steps": 20, "log_every": 1}, "depth": 2, "name": "x"}
    with pytest.raises(TrainingError) as caught:
        require_same_recipe(now, then, Path("run"))
    text = str(caught.value)
    assert "depth is 2, was 'absent'; optimization.steps is 20, was 10; width is 8, was 6" in text
    assert "learning_rate" not in text
    assert "log_every" not in text  # how often to look is free to change


def test_many_differences_are_counted() -> None:
    with pytest.raises(TrainingError, match="and 12 more"):
        require_same_recipe({f"k{i}": 0 for i in range(20)}, {f"k{i}": 1 for i in range(20)}, Path("run"))
