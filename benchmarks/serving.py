"""What a server adds to inference, and how many requests it answers, beside openpi's own server with the same policy that does nothing.

Theirs is asked for by its published source, put on the path together with their client (see `beside_openpi.py`):

    src/openpi/serving/websocket_policy_server.py of Physical-Intelligence/openpi, saved as openpi-client/websocket_policy_server.py
    PYTHONPATH=openpi-client .venv/bin/python benchmarks/serving.py      # writes benchmarks/results/serving.json

Without theirs only ours is measured. Both are asked by openpi's client, in turns.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import threading
import time
from typing import Any

import numpy as np
from record import RESULTS, write

from ornstein.evaluation.trials import limits_of
from ornstein.serving.server import PolicyServer, port_of
from ornstein.simulation.tabletop import TabletopEnv, contract

SIDE = 224
ROUNDS, REQUESTS = 10, 200
CLIENTS, PROCESSES, SECONDS = 32, 4, 5.0
BODY = contract({"front": SIDE})


class Idle:
    """Does nothing, in both servers' words."""

    contract = BODY

    def reset(self) -> None:
        """It remembers nothing."""

    def act(self, observation: Any) -> np.ndarray:
        return np.zeros(7, np.float32)

    def infer(self, observation: Any) -> dict[str, Any]:
        return {"actions": np.zeros((1, 7), np.float32)}


def ours(port: Any) -> None:
    """In a process of its own; says where."""

    async def run() -> None:
        env = TabletopEnv(cameras={})
        server = PolicyServer(Idle(), limits=limits_of(env))
        env.close()
        async with server.listening("127.0.0.1", 0) as running:
            port.send(port_of(running))
            await asyncio.Event().wait()

    asyncio.run(run())


def theirs(port: Any) -> None:
    """openpi's, likewise."""
    import socket

    from websocket_policy_server import WebsocketPolicyServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    threading.Timer(1.0, lambda: port.send(number)).start()
    WebsocketPolicyServer(Idle(), host="127.0.0.1", port=number).serve_forever()


def observation() -> dict[str, Any]:
    """As a robot with one camera sends it."""
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    state = np.array([0.45, 0.0, 0.2, 0, 0, 0, 0], np.float32)
    return {"pixels/front": picture, "agent_pos": state, "prompt": "pick up the lion"}


def connected(port: int) -> Any:
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    return WebsocketClientPolicy("127.0.0.1", port)


def many(port: int, seconds: float, found: Any) -> None:
    """As many clients as one process has its share of, each asking as fast as it is answered; how many answers each had."""
    counts = [0] * (CLIENTS // PROCESSES)
    over = time.perf_counter() + seconds

    def ask(k: int) -> None:
        client, told = connected(port), observation()
        while time.perf_counter() < over:
            client.infer(told)
            counts[k] += 1

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.send(counts)


def answers(context: Any, port: int) -> list[int]:
    """Of all clients together."""
    pipes, processes = [], []
    for _ in range(PROCESSES):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=many, args=(port, SECONDS, there))
        process.start()
        pipes.append(here)
        processes.append(process)
    counts = [count for pipe in pipes for count in pipe.recv()]
    for process in processes:
        process.join()
    return counts


def main() -> None:
    """Rounds in turns, one client; then all clients at once."""
    context = multiprocessing.get_context("spawn")
    try:
        import websocket_policy_server  # noqa: F401

        kinds = {"ours": ours, "openpi": theirs}
    except ImportError:
        print("openpi's server is not on the path: only ours is measured", file=sys.stderr)
        kinds = {"ours": ours}
    ports, servers = {}, []
    for name, kind in kinds.items():
        here, there = context.Pipe(duplex=False)
        server = context.Process(target=kind, args=(there,), daemon=True)
        server.start()
        servers.append(server)
        ports[name] = here.recv()
    times: dict[str, list[float]] = {name: [] for name in ports}
    clients, told = {name: connected(port) for name, port in ports.items()}, observation()
    for turn in range(ROUNDS + 1):
        for name, client in clients.items():
            for _ in range(REQUESTS):
                began = time.perf_counter()
                client.infer(told)
                if turn:  # the first round warms up
                    times[name].append(1000 * (time.perf_counter() - began))
    counts: dict[str, list[list[int]]] = {name: [] for name in ports}
    for _ in range(3):
        for name, port in ports.items():
            counts[name].append(answers(context, port))
    for server in servers:
        server.terminate()
    record: dict[str, Any] = {
        "side": SIDE,
        "clients": CLIENTS,
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "requests_a_round": REQUESTS,
    }
    for name in ports:
        record[name] = {
            "round_trip_ms": {"median": float(np.median(times[name])), "p99": float(np.percentile(times[name], 99))},
            "requests_a_second": [sum(one) / SECONDS for one in counts[name]],
            "least_and_most_of_a_client": [[min(one), max(one)] for one in counts[name]],
        }
    write(RESULTS / "serving.json", record)


if __name__ == "__main__":
    main()
