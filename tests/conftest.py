"""What every folder of the suite shares: threads, and a disk that is full."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

# Processes of the suite and OpenMP threads must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's clusters of the tests stay on the loopback address; the variable's name speaks of where that is the default.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file stay in one process, and so do all that share a cluster: a machine has one that is found by itself."""
    for item in items:
        shares_cluster = "cluster" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("cluster" if shares_cluster else str(item.path)))


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """Within it, writing a file beyond so many bytes fails as on a full disk: the system itself refuses.

    The limit holds for the whole process, the runner's own report among it, so keep the block short.
    """

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture(scope="session")
def _head() -> Iterator[Any]:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    made = cluster_utils.Cluster(head_node_args={"num_cpus": 0, "node_ip_address": "127.0.0.1"}, initialize_head=True)
    yield made
    made.shutdown()


@pytest.fixture
def cluster(_head: Any) -> Any:
    """A Ray cluster of a head without processors and two nodes with one each, which tests may take away."""
    while len(_head.worker_nodes) < 2:
        _head.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    _head.wait_for_nodes()
    return _head


@pytest.fixture
def losing_a_node(cluster: Any) -> Callable[[Callable[..., Any], int], Callable[..., Any]]:
    """A function, and at its nth call a node is gone without a word."""

    def losing(call: Callable[..., Any], nth: int) -> Callable[..., Any]:
        count = 0

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == nth:
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            return call(*arguments, **named)

        return counted

    return losing


@pytest.fixture
def shaken() -> Callable[[Callable[[], Any]], Any]:
    """A network out of its initialisation, so that every input matters; the same one each time, fixed."""

    def build(make: Callable[[], Any]) -> Any:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = make().eval()
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=0.3)
        return network.requires_grad_(requires_grad=False)

    return build
