"""Tasks on several processes of this machine, or on all of a Ray cluster: the same calls, the same results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import uuid
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ornstein.core.errors import DataError, MissingDependencyError, OrnsteinError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
# How often Ray begins a task again whose process or machine died.
_RETRIES = 3


class WorkerDiedError(OrnsteinError):
    """A process died before its task ended: out of memory, a machine that went away, a crash below Python."""


class Workers(Protocol):
    """Processes that were prepared alike. Used as a context manager; leaving it gives up what is still under way."""

    size: int

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Begin a task; `outcome` waits for its end."""
        ...

    def __enter__(self) -> Workers: ...
    def __exit__(self, *error: object) -> None: ...


def open_workers(count: int, begin: Callable[..., None], *arguments: Any, ray: str | None = None) -> Workers:
    """Processes that each call `begin(*arguments)` before their first task.

    Functions and arguments must be picklable. Scripts that call this need the usual `if __name__ == "__main__":`.

    Args:
        count: processes on this machine; a cluster has as many as it has CPUs, whatever the count.
        ray: address of a Ray cluster: "HOST:PORT", "auto" for the one that this machine belongs to, "local" for one of its own.

    Raises:
        DataError: count below 1. MissingDependencyError: Ray is not installed.
        OrnsteinError: there is no cluster at that address.
    """
    if ray is not None:
        return RayWorkers(ray, begin, *arguments)
    if count < 1:
        raise DataError(f"workers must be at least 1, got {count}")
    return ProcessWorkers(count, begin, *arguments)


def outcome(future: Future[_T]) -> _T:
    """What a task returned.

    Raises:
        WorkerDiedError: its process died (on a cluster: again and again). Whatever the task raised.
    """
    try:
        ended = future.result()
    except BrokenProcessPool as error:
        raise WorkerDiedError("a worker process died (out of memory?)") from error
    except Exception as error:
        if _is_rays_own(error):
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise WorkerDiedError(f"a worker on the Ray cluster died {_RETRIES + 1} times at the same task ({first})") from error
        raise
    if isinstance(ended, _Told):
        raise ended.error
    return ended


class ProcessWorkers:
    """Processes of this machine. Spawned: neither GL nor torch's threads survive a fork."""

    def __init__(self, count: int, begin: Callable[..., None], *arguments: Any) -> None:
        self.size = count
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, _begin_process, (begin, arguments))

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Begin a task."""
        return self._pool.submit(function, *arguments)

    def __enter__(self) -> ProcessWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin_process(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Ctrl-C is the parent's business, and without the parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    begin(*arguments)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class RayWorkers:
    """A cluster's processes, one a CPU. A task whose process or machine dies is begun again elsewhere; its result counts once.

    `begin` and its arguments travel once to each process. All machines need the same ornstein.
    """

    def __init__(self, address: str, begin: Callable[..., None], *arguments: Any) -> None:
        ray = _ray(address)
        self._ray, self._ours = ray, not ray.is_initialized()
        if self._ours:
            local = {"include_dashboard": False} if address == "local" else {}
            try:
                ray.init(address=address, log_to_driver=False, logging_level="warning", **local)
            except (ConnectionError, ValueError, RuntimeError) as error:
                first = (str(error).splitlines() or [type(error).__name__])[0]
                raise OrnsteinError(
                    f"there is no Ray cluster at {address} ({first}): begin one with `ray start --head`, or use --ray local"
                ) from error
        self.size = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._token = uuid.uuid4().hex
        # In a list, so that Ray hands on the reference: a process fetches what it refers to once, not for each task.
        self._prepared = [ray.put((_version(), begin, arguments))]
        self._task = ray.remote(max_retries=_RETRIES, num_cpus=1)(_call)
        self._under_way: dict[Any, Any] = {}

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Begin a task."""
        reference = self._task.remote(self._token, self._prepared, function, arguments)
        future: Future[_T] = reference.future()
        self._under_way[future] = reference
        future.add_done_callback(lambda ended: self._under_way.pop(ended, None))
        return future

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._ray.is_initialized():
            return  # the whole process is ending
        for reference in list(self._under_way.values()):
            self._ray.cancel(reference, force=True)
        if self._ours:
            self._ray.shutdown()


class _Told:
    """An error that a task raised on purpose, carried as a value: Ray would wrap it in its own, traceback and all."""

    def __init__(self, error: OrnsteinError) -> None:
        self.error = error


def _is_rays_own(error: Exception) -> bool:
    """About processes and machines, not about what a task did."""
    exceptions = sys.modules.get("ray.exceptions")
    return exceptions is not None and isinstance(error, exceptions.RayError) and not isinstance(error, exceptions.RayTaskError)


_begun = ""


def _call(token: str, prepared: list[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """In a process of the cluster."""
    global _begun  # noqa: PLW0603  a process is prepared once
    import ray

    try:
        if _begun != token:
            version, begin, given = ray.get(prepared[0])
            if version != _version():
                raise OrnsteinError(f"a machine of the cluster has ornstein {_version()}, this one {version}: install the same")
            begin(*given)
            _begun = token
        return function(*arguments)
    except OrnsteinError as error:
        return _Told(error)


def _version() -> str:
    return metadata.version("ornstein")


def _ray(address: str) -> Any:
    if address == "local":  # a cluster of one machine has nothing to say to others; this is how Ray is told on any system
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # leaves a task's CUDA_VISIBLE_DEVICES alone, and says nothing
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("a cluster needs Ray: pip install 'ornstein[ray]'") from None
    return ray
