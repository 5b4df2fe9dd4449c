"""A served policy does what it does in process, each robot by itself, and whatever a client sends, the others go on."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ornstein.core import EmbodimentContract
from ornstein.core.errors import ContractError, DataError, OrnsteinError
from ornstein.safety import Box, ShieldLimits
from ornstein.serving.client import PolicyClient
from ornstein.serving.server import PolicyServer, port_of
from ornstein.serving.sessions import Shields
from ornstein.serving.wire import pack, unpack
from ornstein.simulation.tabletop import contract

BODY = contract({"front": 16})
FREE = ShieldLimits.of(BODY)


class Counting:
    """Says in its first number how many steps of this episode it saw, in hundredths, and in its last what it is told to."""

    def __init__(self, body: EmbodimentContract = BODY, wait: float = 0.0) -> None:
        self.contract, self.wait, self.steps = body, wait, 0

    def reset(self) -> None:
        self.steps = 0

    def act(self, observation: Any) -> np.ndarray:
        time.sleep(self.wait)
        if observation["instruction"] == "fail":
            raise ZeroDivisionError("secret")
        if observation["instruction"] == "nan":
            return np.full(7, np.nan, np.float32)
        self.steps += 1
        return np.array([self.steps / 100, 0, 0, 0, 0, 0, float(observation["instruction"] == "close")], np.float32)


def observation(instruction: str = "close", **changes: Any) -> Any:
    state = np.array([0.45, 0.0, 0.2, 0, 0, 0, 0], np.float32)
    return {"pixels": {"front": np.zeros((16, 16, 3), np.uint8)}, "agent_pos": state, "instruction": instruction, **changes}


@contextmanager
def served(policy: Any = None, limits: ShieldLimits | None = FREE, **settings: Any) -> Iterator[tuple[str, PolicyServer]]:
    """The server in a thread of its own, on a free port of this machine."""
    server = PolicyServer(Counting() if policy is None else policy, limits=limits, **settings)
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over, where = asyncio.Event(), list[int]()

    async def run() -> None:
        async with server.listening("127.0.0.1", 0) as running:
            where.append(port_of(running))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"ws://127.0.0.1:{where[0]}", server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        assert not thread.is_alive()
        loop.close()


def test_an_action_is_what_the_policy_says_in_process() -> None:
    with served() as (address, _), PolicyClient(address, BODY) as robot:
        alone = Counting()
        for _ in range(3):
            np.testing.assert_array_equal(robot.act(observation()), alone.act(observation()))
        assert robot.last["shield"] == []
        assert set(robot.last["server_timing"]) == {"infer_ms", "prev_total_ms"}
        robot.reset()
        alone.reset()
        np.testing.assert_array_equal(robot.act(observation()), alone.act(observation()))
        assert robot.metadata["protocol"] == "openpi"


def test_openpis_flat_keys_are_understood() -> None:
    with served() as (address, _), connect(address) as raw:
        unpack(raw.recv(5))  # type: ignore[arg-type]
        told = observation()
        flat = {"pixels/front": told["pixels"]["front"], "agent_pos": told["agent_pos"], "prompt": "close"}
        raw.send(pack(flat))
        assert unpack(raw.recv(5))["actions"].tolist() == [[pytest.approx(0.01), 0, 0, 0, 0, 0, 1]]  # type: ignore[arg-type]


def test_every_robot_has_an_episode_of_its_own() -> None:
    with served() as (address, _), PolicyClient(address, BODY) as one, PolicyClient(address, BODY) as other:
        found = [robot.act(observation())[0] for robot in (one, other, one, one, other)]
        assert found == [pytest.approx(number / 100) for number in (1, 1, 2, 3, 2)]
        one.reset()
        assert other.act(observation())[0] == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"pixels": {}}, "lacks pixels/front"),
        ({"pixels": {"front": np.zeros((16, 16, 3), np.float32)}}, "must be uint8"),
        ({"pixels": {"front": np.zeros((8, 16, 3), np.uint8)}}, r"\(16, 16, 3\)"),
        ({"pixels": {"front": np.zeros((16, 16, 3), np.uint8), "wrist": 1}}, "pixels/wrist that nobody reads"),
        ({"pixels": 3}, "a map from camera"),
        ({"agent_pos": np.zeros(6, np.float32)}, "7 finite numbers"),
        ({"agent_pos": np.full(7, np.nan)}, "7 finite numbers"),
        ({"agent_pos": None}, "lacks agent_pos"),
        ({"instruction": 5}, "must be a sentence"),
        ({"speed": 1}, "speed that nobody reads"),
    ],
)
def test_an_observation_that_does_not_fit_is_told_so_and_the_connection_lives_on(change: dict[str, Any], complaint: str) -> None:
    with served() as (address, _), PolicyClient(address, BODY) as robot:
        robot.act(observation())
        with pytest.raises(DataError, match=complaint):
            robot.act(observation(**change))
        assert robot.act(observation())[0] == pytest.approx(0.02)


def test_a_policy_that_fails_tells_no_secrets_and_the_next_step_is_served() -> None:
    with served(limits=ShieldLimits.of(BODY, rate=0.25)) as (address, server), PolicyClient(address, BODY) as robot:
        robot.act(observation())
        with pytest.raises(DataError, match="ZeroDivisionError") as failure:
            robot.act(observation("fail"))
        assert "secret" not in str(failure.value)
        assert "Traceback" not in str(failure.value)
        robot.act(observation())
        assert b'ornstein_refused_total{reason="policy"} 1.0' in server.metrics.page()


def test_the_shield_holds_and_says_why() -> None:
    with served(limits=FREE.within(Box((0.3, -0.1, 0.1), (0.455, 0.1, 0.3)))) as (address, server):
        with PolicyClient(address, BODY) as robot:
            assert robot.act(observation("nan")).tolist() == [0] * 7
            assert robot.last["shield"] == ["not a number"]
            assert robot.act(observation())[0] == pytest.approx(0.005, abs=1e-6)
            assert robot.last["shield"] == ["workspace"]
        assert b'ornstein_shielded_total{reason="workspace"} 1.0' in server.metrics.page()
    with served(limits=None) as (address, _), PolicyClient(address, BODY) as robot:
        assert np.isnan(robot.act(observation("nan"))).all()


@pytest.mark.parametrize("name", [None, "arm-1"])
def test_limits_between_commands_hold_over_reconnections(name: str | None) -> None:
    with served(limits=ShieldLimits.of(BODY, rate=0.1)) as (address, _):
        last = 0.0
        for step in range(1, 5):
            with PolicyClient(address, BODY, robot=name) as robot:
                now = float(robot.act(observation())[6])
                assert now - last <= 0.1
                assert now == pytest.approx(step / 10, abs=1e-5)
                last = now
            time.sleep(0.1)


def test_shields_are_kept_for_the_robot_that_had_them() -> None:
    now = [0.0]
    shields = Shields(FREE, kept_for=10, clock=lambda: now[0])
    one, two = shields.take("a"), shields.take("a")
    assert one is not two
    shields.give_back("a", one)
    assert shields.take("b") is not one
    assert shields.take("a") is one
    assert shields.take("a") is not one
    shields.give_back("a", one)
    now[0] = 11.0
    assert shields.take("a") is not one
    assert Shields(None).take("a") is None


def test_keys() -> None:
    with served(key="s3cret") as (address, server):
        for key in (None, "wrong", "s3cre"):
            with pytest.raises(OrnsteinError, match="401 a valid API key is needed"):
                PolicyClient(address, BODY, key=key)
        with PolicyClient(address, BODY, key="s3cret") as robot:
            robot.act(observation())
        assert b'ornstein_refused_total{reason="key"} 3.0' in server.metrics.page()
        assert _page(address, "/healthz") == "OK\n"
    with pytest.raises(DataError, match="empty"):
        PolicyServer(Counting(), limits=None, key=" ")


def _page(address: str, path: str) -> str:
    with urllib.request.urlopen(address.replace("ws", "http") + path, timeout=5) as page:
        return str(page.read().decode())


def test_health_and_metrics_are_pages() -> None:
    with served() as (address, _):
        assert _page(address, "/healthz") == "OK\n"
        with PolicyClient(address, BODY) as robot:
            robot.act(observation())
            page = _page(address, "/metrics")
        assert "ornstein_answers_total 1.0" in page
        assert "ornstein_clients 1.0" in page
        assert "ornstein_inference_seconds_count 1.0" in page


def test_another_body_is_refused_field_by_field() -> None:
    with served() as (address, _):
        other = replace(BODY, control_hz=20.0)
        with pytest.raises(ContractError, match=r"control_hz: 10.0 != 20.0"):
            PolicyClient(address, other)
        with PolicyClient(address, BODY) as robot:
            robot.act(observation())


def _junk(rng: np.random.Generator) -> bytes:
    good = pack(observation())
    match int(rng.integers(4)):
        case 0:
            return rng.bytes(int(rng.integers(0, 200)))
        case 1:
            return good[: int(rng.integers(len(good)))]
        case 2:
            spoiled = bytearray(good)
            for _ in range(int(rng.integers(1, 8))):
                spoiled[int(rng.integers(200))] = int(rng.integers(256))
            return bytes(spoiled)
        case _:
            return b"\x91" * int(rng.integers(1, 3000))


def test_junk_disturbs_nobody() -> None:
    rng = np.random.default_rng(0)
    with served() as (address, _), PolicyClient(address, BODY) as robot, connect(address, max_size=None) as stranger:
        stranger.recv(5)
        for step in range(400):
            stranger.send(_junk(rng))
            answer = stranger.recv(5)
            assert isinstance(answer, bytes) or ("\n" not in answer and "Traceback" not in answer)
            if step % 40 == 0:
                robot.act(observation())
        stranger.send("text")
        assert stranger.recv(5) == "an observation is a binary message, got text"
        stranger.send(bytes(1 << 20))  # larger than any observation
        with pytest.raises(ConnectionClosed):
            stranger.recv(5)
        robot.act(observation())


def test_slow_and_idle_clients_hold_nobody_up() -> None:
    with served(Counting(wait=0.05), idle_after=0.5) as (address, server), connect(address) as idle:
        idle.recv(5)
        half_open = socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])))
        half_open.send(b"GET / HTTP/1.1\r\n")
        with PolicyClient(address, BODY) as one, PolicyClient(address, BODY) as other:
            began = time.perf_counter()
            found = _together(lambda: one.act(observation()), lambda: other.act(observation()))
            assert [action[0] for action in found] == [pytest.approx(0.01)] * 2
            assert time.perf_counter() - began < 5
            with pytest.raises(ConnectionClosed):
                idle.recv(10)
        half_open.close()
        assert server.metrics.clients is not None


def _together(*calls: Callable[[], Any]) -> list[Any]:
    found: list[Any] = [None] * len(calls)
    threads = [threading.Thread(target=lambda k=k, call=call: found.__setitem__(k, call())) for k, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return found


def test_no_more_clients_than_there_is_room_for() -> None:
    with served(most_clients=1) as (address, _), PolicyClient(address, BODY) as first:
        with pytest.raises(OrnsteinError, match="503 1 clients are connected already"):
            PolicyClient(address, BODY)
        first.act(observation())


def test_where_it_may_not_listen() -> None:
    async def listen(server: PolicyServer, host: str, port: int) -> None:
        async with server.listening(host, port):
            pass

    with pytest.raises(DataError, match="there is no key"):
        asyncio.run(listen(PolicyServer(Counting(), limits=FREE), "0.0.0.0", 0))
    with served() as (address, _), pytest.raises(OrnsteinError, match="cannot listen on 127.0.0.1"):
        asyncio.run(listen(PolicyServer(Counting(), limits=FREE), "127.0.0.1", int(address.rsplit(":", 1)[1])))


def test_a_client_that_finds_nobody_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(OrnsteinError, match="cannot connect"):
        PolicyClient(f"ws://127.0.0.1:{port}", BODY, timeout=2)
    with (
        served(Counting(wait=1.0)) as (address, _),
        PolicyClient(address, BODY, timeout=0.2) as robot,
        pytest.raises(OrnsteinError, match="no answer within"),
    ):
        robot.act(observation())


def test_the_client_needs_no_torch() -> None:
    code = "import ornstein.serving.client, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
