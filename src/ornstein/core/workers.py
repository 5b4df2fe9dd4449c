"""Tasks on several processes of this machine, or on all of a Ray cluster: the same calls, the same results."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import uuid
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ornstein.core.errors import DataError, MissingDependencyError, OrnsteinError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
# How often Ray begins a task again whose process or machine died.
_RETRIES = 3
_ANSWER_SECONDS = 10
_DIED = "a worker process died (out of memory?)"


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
        OrnsteinError: no cluster answers at that address, it cannot be joined, or this process belongs to another.
    """
    if ray is not None:
        return RayWorkers(ray, begin, *arguments)
    if count < 1:
        raise DataError(f"workers must be at least 1, got {count}")
    return ProcessWorkers(count, begin, *arguments)


def outcome(future: Future[_T]) -> _T:
    """What a task returned.

    Raises:
        WorkerDiedError: its process died (on a cluster: again and again). Whatever the task raised, or `begin` before it.
    """
    try:
        ended = future.result()
    except BrokenProcessPool as error:
        raise WorkerDiedError(_DIED) from error
    except Exception as error:
        exceptions = sys.modules.get("ray.exceptions")
        if exceptions is None or not isinstance(error, exceptions.RayError):
            raise
        raise _of_ray(error, exceptions) from error
    if isinstance(ended, _Told):
        raise ended.error
    return ended


class _Told:
    """An error that was raised on purpose, carried as a value: pools would lose it in `begin`, and Ray wraps it in its own, traceback and all."""

    def __init__(self, error: OrnsteinError) -> None:
        self.error = error


class ProcessWorkers:
    """Processes of this machine. Spawned: neither GL nor torch's threads survive a fork."""

    def __init__(self, count: int, begin: Callable[..., None], *arguments: Any) -> None:
        self.size = count
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, _begin_process, (begin, arguments))

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Begin a task.

        Raises:
            WorkerDiedError: a process died since the last one.
        """
        try:
            return self._pool.submit(_run, function, arguments)
        except BrokenProcessPool as error:
            raise WorkerDiedError(_DIED) from error

    def __enter__(self) -> ProcessWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


_refused: OrnsteinError | None = None


def _begin_process(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Ctrl-C is the parent's business, and without the parent there is nothing to do."""
    global _refused  # noqa: PLW0603  a process is prepared once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        begin(*arguments)
    except OrnsteinError as error:  # the tasks tell: here, a pool would only say that the process died
        _refused = error


def _run(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments) if _refused is None else _Told(_refused)


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
        self._ray = _ray(address)
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _join(self._ray, address)
        try:
            self._require(address)
            cpus = int(self._ray.cluster_resources().get("CPU", 0))
            if cpus < 1:
                print(f"the Ray cluster at {address} has no processor yet: waiting for one", file=sys.stderr)
            self.size = max(1, cpus)
            self._token = uuid.uuid4().hex
            # In a list, so that Ray hands on the reference: a process fetches what it refers to once, not for each task.
            self._prepared = [self._ray.put((begin, arguments))]
        except BaseException:
            self._leave()
            raise
        self._task = self._ray.remote(max_retries=_RETRIES, num_cpus=1)(_call)
        self._under_way: dict[Any, Any] = {}

    def submit(self, function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Begin a task."""
        reference = self._task.remote(_version(), self._token, self._prepared, function, arguments)
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
        self._leave()

    def _leave(self) -> None:
        if self._ours:
            self._ray.shutdown()

    def _require(self, address: str) -> None:
        """A process belongs to one cluster at a time: is it this one?"""
        mine = self._ray.get_runtime_context().gcs_address
        if _host_and_port(address) and _host_and_port(address) != _host_and_port(mine):
            raise OrnsteinError(f"this process belongs to the Ray cluster at {mine} already, and {address} is asked for")


def _join(ray: Any, address: str) -> None:
    place = _host_and_port(address)
    if place:  # Ray itself would wait for many minutes
        try:
            socket.create_connection(place, timeout=_ANSWER_SECONDS).close()
        except OSError as error:
            raise OrnsteinError(
                f'nothing answers at {address} ({error.strerror or error}): begin a cluster with `ray start --head`, or try "local"'
            ) from error
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="warning", **local)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise OrnsteinError(f"cannot join the Ray cluster at {address}: {_one_line(error)}") from error


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Of "HOST:PORT", the host as a number where it is known; None of "auto", "local" and "ray://…"."""
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit():
        return None
    try:
        return socket.gethostbyname(host.strip("[]")), int(port)
    except OSError:
        return host, int(port)


def _of_ray(error: Any, exceptions: Any) -> Exception:
    """What a task raised, or what happened to its process, in our words."""
    if isinstance(error, exceptions.RayTaskError):
        cause = error.cause
        if isinstance(cause, ImportError) or "failed to import" in str(error):
            return OrnsteinError(
                f"a machine of the cluster cannot load ornstein: install the same there ({_one_line(cause or error)})"
            )
        return cause if isinstance(cause, Exception) else error
    died = (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError, exceptions.ObjectLostError)
    if isinstance(error, died):
        return WorkerDiedError(f"a worker on the Ray cluster died {_RETRIES + 1} times at the same task ({_one_line(error)})")
    return WorkerDiedError(f"the Ray cluster gave a task up ({type(error).__name__}: {_one_line(error)})")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} …"


_begun = ""


def _call(version: str, token: str, prepared: list[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """In a process of the cluster."""
    global _begun  # noqa: PLW0603  a process is prepared once
    import ray

    try:
        if version != _version():  # before anything is unpacked that another version might not understand
            raise OrnsteinError(f"a machine of the cluster has ornstein {_version()}, this one {version}: install the same")
        if _begun != token:
            begin, given = ray.get(prepared[0])
            begin(*given)
            _begun = token
        return function(*arguments)
    except OrnsteinError as error:
        return _Told(error)


@functools.cache
def _version() -> str:
    """The package's number and a digest of its sources: between releases the number alone says little."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return f"{metadata.version('ornstein')} ({digest.hexdigest()[:8]})"


def _ray(address: str) -> Any:
    if address == "local":  # a cluster of one machine has nothing to say to others; this is how Ray is told on any system
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Leaves a task's CUDA_VISIBLE_DEVICES alone, and says nothing.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("a cluster needs Ray: pip install 'ornstein[ray]'") from None
    return ray
