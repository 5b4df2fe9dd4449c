"""Tasks on processes and on a Ray cluster of this machine. What they must share: preparation once, results, errors as they were."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ornstein.core import workers as module
from ornstein.core.errors import DataError, OrnsteinError
from ornstein.core.workers import RayWorkers, WorkerDiedError, Workers, open_workers, outcome

_number = 0
_times = 0


def _begin(number: int) -> None:
    global _number, _times
    _number, _times = number, _times + 1


def _multiply(by: int) -> tuple[int, int, int]:
    return _number * by, _times, os.getpid()


def _refuse(what: str) -> None:
    raise DataError(f"no {what} here")


def _stumble() -> None:
    raise ZeroDivisionError("by mistake")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        _die()
    return "done"


def test_where_nothing_answers_nobody_waits() -> None:
    ray = pytest.importorskip("ray")
    assert not ray.is_initialized()
    with pytest.raises(OrnsteinError, match=r"nothing answers at 127\.0\.0\.1:1 .*ray start --head"):
        open_workers(1, _begin, 1, ray="127.0.0.1:1")
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def on_ray() -> Iterator[Callable[..., Workers]]:
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield lambda begin, *arguments: open_workers(1, begin, *arguments, ray="auto")
    ray.shutdown()


@pytest.fixture(scope="module", params=["processes", "ray"])
def opened(request: pytest.FixtureRequest) -> Callable[..., Workers]:
    if request.param == "ray":
        return request.getfixturevalue("on_ray")  # type: ignore[no-any-return]
    return lambda begin, *arguments: open_workers(2, begin, *arguments)


def test_every_process_is_prepared_once(opened: Callable[..., Workers]) -> None:
    with opened(_begin, 7) as pool:
        assert pool.size == 2
        found = [outcome(future) for future in [pool.submit(_multiply, k) for k in range(20)]]
    assert [product for product, _, _ in found] == [7 * k for k in range(20)]
    times = {process: count for _, count, process in found}
    assert all(count == times[process] for _, count, process in found)  # no process is prepared again between two tasks
    assert os.getpid() not in times
    with opened(_begin, 8) as pool:  # on a cluster, processes outlive a pool
        assert outcome(pool.submit(_multiply, 3))[0] == 24


def test_errors_come_back_as_they_were(opened: Callable[..., Workers]) -> None:
    with opened(_begin, 1) as pool:
        with pytest.raises(DataError, match=r"^no bowl here$"):
            outcome(pool.submit(_refuse, "bowl"))
        with pytest.raises(ZeroDivisionError, match=r"^by mistake$") as stumbled:
            outcome(pool.submit(_stumble))
        assert type(stumbled.value) is ZeroDivisionError
        assert outcome(pool.submit(_multiply, 2))[0] == 2


def test_what_preparation_refuses_is_told_by_every_task(opened: Callable[..., Workers]) -> None:
    with opened(_refuse, "table") as pool:
        for _ in range(2):
            with pytest.raises(DataError, match=r"^no table here$"):
                outcome(pool.submit(_multiply, 1))


def test_a_process_that_dies_is_named(opened: Callable[..., Workers]) -> None:
    with opened(_begin, 1) as pool:
        with pytest.raises(WorkerDiedError, match="died"):
            outcome(pool.submit(_die))
        if not isinstance(pool, RayWorkers):  # the next task cannot even begin
            with pytest.raises(WorkerDiedError, match="died"):
                outcome(pool.submit(_multiply, 1))


def test_a_cluster_begins_a_task_again(on_ray: Callable[..., Workers], tmp_path: Path) -> None:
    with on_ray(_begin, 1) as pool:
        assert outcome(pool.submit(_die_once, tmp_path / "mark")) == "done"


def test_leaving_gives_up_what_is_under_way(on_ray: Callable[..., Workers]) -> None:
    with on_ray(_begin, 1) as pool:
        waiting = [pool.submit(time.sleep, 3600) for _ in range(4)]
    assert all(future.exception(timeout=60) for future in waiting)


def test_another_version_on_the_cluster_is_refused(on_ray: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_version", lambda: "9.9.9")
    with on_ray(_begin, 1) as pool, pytest.raises(OrnsteinError, match=r"this one 9\.9\.9: install the same"):
        outcome(pool.submit(_multiply, 1))


def test_a_process_belongs_to_one_cluster(on_ray: Callable[..., Workers]) -> None:
    belongs = r"belongs to the Ray cluster at .* already, and 127\.0\.0\.1:1 is asked for"
    with on_ray(_begin, 1), pytest.raises(OrnsteinError, match=belongs):
        open_workers(1, _begin, 1, ray="127.0.0.1:1")


def test_the_version_tells_sources_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "workers.py").write_text("one")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "core" / "workers.py"))
    first = module._version.__wrapped__()
    (tmp_path / "core" / "workers.py").write_text("two")
    assert module._version.__wrapped__() != first


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="workers must be at least 1"):
        open_workers(0, _begin, 1)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(OrnsteinError, match=r"pip install 'ornstein\[ray\]'"):
        module.open_workers(1, _begin, 1, ray="auto")
