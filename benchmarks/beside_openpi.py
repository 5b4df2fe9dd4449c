"""openpi's own client, unmodified, drives the tabletop through our server: are the actions those of the policy in process, bit for bit?

openpi-client wants numpy 1, so it lives in an environment of its own, which also needs what the simulation needs; or its source is put on the path, as here, for
the part that talks uses nothing that numpy 2 lacks:

    pip download --no-deps openpi-client==0.1.2 && unzip openpi_client-0.1.2-py3-none-any.whl -d openpi-client
    PYTHONPATH=openpi-client .venv/bin/python benchmarks/beside_openpi.py      # writes benchmarks/results/beside-openpi.json
"""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from record import RESULTS, write

import ornstein
from ornstein.evaluation.trials import limits_of
from ornstein.networks.threads import one_thread
from ornstein.safety import ShieldedPolicy
from ornstein.simulation.tabletop import TabletopEnv

POLICIES = ("rt1-tabletop", "modular-tabletop")
SCENES = range(2_500_000, 2_500_020)


def main() -> None:
    """Each policy in the same scenes, every observation asked in both ways."""
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    found = {}
    for name in POLICIES:
        with subprocess.Popen(
            [sys.executable, "-m", "ornstein", "serve", name, "--port", "0"], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            client = WebsocketClientPolicy(server.stdout.readline().strip())
            found[name] = _compared(client, name)
            server.terminate()
    try:
        client_version = version("openpi-client")
    except PackageNotFoundError:
        client_version = "0.1.2, from its wheel"
    write(RESULTS / "beside-openpi.json", {"client": client_version, "first_scene": SCENES.start, "policies": found})


def _compared(client: object, name: str) -> dict[str, float]:
    env = TabletopEnv(cameras={"front": 128})
    alone = ShieldedPolicy(ornstein.load(name), limits_of(env))
    same = steps = solved = 0
    waited: list[float] = []
    with one_thread():
        for seed in SCENES:
            observation, _ = env.reset(seed=seed)
            alone.reset()
            client._ws.send(_START)  # type: ignore[attr-defined]  # openpi's client has no word for a new episode
            client._ws.recv()  # type: ignore[attr-defined]
            over, info = False, {}
            while not over:
                mine = alone.act(observation)
                began = time.perf_counter()
                answer = client.infer(dict(observation))  # type: ignore[attr-defined]
                waited.append(1000 * (time.perf_counter() - began))
                same += np.array_equal(answer["actions"][0], mine)
                observation, _, done, late, info = env.step(answer["actions"][0])
                steps, over = steps + 1, done or late
            solved += bool(info["is_success"])
    env.close()
    return {"scenes": len(SCENES), "solved": solved, "actions": steps, "same": int(same), "median_ms": float(np.median(waited))}


def _start() -> bytes:
    from ornstein.serving.wire import pack

    return pack({"__ctrl__": "episode_start"})


_START = _start()

if __name__ == "__main__":
    main()
