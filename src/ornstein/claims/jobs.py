"""The many runs of an experiment: several at a time, and none of them twice."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import as_completed
from typing import TYPE_CHECKING, Any

from ornstein.core.memory import keep_freed_memory
from ornstein.core.progress import track
from ornstein.core.workers import open_workers, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path


def run_each(
    function: Callable[..., dict[str, Any]], jobs: Sequence[dict[str, Any]], folder: Path, title: str, workers: int = 1
) -> list[dict[str, Any]]:
    """What `function(**job)` returned for each job, in their order.

    Each result is a file in `folder` at once, named after the function and its job: an interrupted experiment goes on where it stood.
    Whoever changes what a function does deletes the folder.

    Args:
        jobs, and what the function returns: plain data, as JSON has it. workers: processes, of one thread each; 1 is this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{_stamp(function, job)}.json" for job in jobs]
    missing = [k for k, path in enumerate(paths) if not path.exists()]
    for k, result in track(_running(function, [(k, jobs[k]) for k in missing], workers), len(missing), title):
        partial = paths[k].with_name(f".{paths[k].name}.tmp-{os.getpid()}")
        partial.write_text(json.dumps(result), encoding="utf-8")
        partial.replace(paths[k])
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _running(
    function: Callable[..., dict[str, Any]], jobs: Sequence[tuple[int, dict[str, Any]]], workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    if workers == 1 or len(jobs) < 2:
        for k, job in jobs:
            yield k, function(**job)
        return
    with open_workers(workers, _one_thread) as pool:
        running: dict[Future[dict[str, Any]], int] = {pool.submit(_call, function, job): k for k, job in jobs}
        for future in as_completed(running):
            yield running[future], outcome(future)


def _call(function: Callable[..., dict[str, Any]], job: dict[str, Any]) -> dict[str, Any]:
    return function(**job)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()


def _stamp(function: Callable[..., Any], job: dict[str, Any]) -> str:
    settings = json.dumps(job, sort_keys=True)
    return f"{function.__name__.strip('_')}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
