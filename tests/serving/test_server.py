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


def test_shields_are_a_robots_for_as_long_as_the_server_runs() -> None:
    shields = Shields(FREE)
    arm = shields.take("arm", "10.0.0.1")
    assert shields.take("arm", "10.0.0.2") is arm  # from wherever, and while the old connection lives on
    assert shields.take("leg", "10.0.0.1") is not arm
    one = shields.take(None, "10.0.0.3")
    shields.leave(None, "10.0.0.3")
    assert shields.take(None, "10.0.0.3") is one
    other = shields.take(None, "10.0.0.3")  # two at once: from now on nobody knows who is who
    assert other is not one
    for _ in range(2):
        shields.leave(None, "10.0.0.3")
    assert shields.take(None, "10.0.0.3") not in (one, other)
    assert Shields(None).take("a", "b") is None
    for number in range(3000):
        shields.take(f"robot {number}", "10.0.0.4")
    assert len(shields._kept) <= 1024


def test_a_robot_that_comes_again_while_it_is_waited_for_goes_on_from_there() -> None:
    """Its first connection hangs in a slow inference; the second takes over, and the first is closed."""
    with served(Counting(wait=0.3), ShieldLimits.of(BODY, rate=0.1)) as (address, _):
        first = PolicyClient(address, BODY, robot="arm", timeout=5)
        sent = [first.act(observation())[6]]
        with PolicyClient(address, BODY, robot="arm", timeout=0.1) as impatient:
            with pytest.raises(OrnsteinError, match="no answer within"):
                impatient.act(observation())
            with pytest.raises(OrnsteinError, match="the server is gone"):
                impatient.act(observation())
        with pytest.raises(OrnsteinError, match="the server is gone"):
            first.act(observation())
        with PolicyClient(address, BODY, robot="arm") as again:
            sent += [again.act(observation())[6] for _ in range(2)]
    assert np.diff(sent).max() <= 0.2 + 1e-6  # what the impatient one was owed went by unseen, and nothing jumps back
    assert (np.diff(sent) > 0).all()


def test_a_gripper_begins_where_it_is() -> None:
    with served(limits=ShieldLimits.of(BODY, rate=0.1)) as (address, _), PolicyClient(address, BODY) as robot:
        closed = np.array([0.45, 0, 0.2, 0, 0, 0, 1.0], np.float32)
        assert robot.act(observation("nan", agent_pos=closed))[6] == pytest.approx(1.0)
        assert robot.act(observation("open", agent_pos=closed))[6] == pytest.approx(0.9, abs=1e-5)


class Ending(Counting):
    """Its episode is a generator that came to an end."""

    def act(self, observation: Any) -> np.ndarray:
        return next(iter([]))


def test_a_policy_that_comes_to_an_end_holds_nobody_up() -> None:
    with served(Ending()) as (address, _), PolicyClient(address, BODY, timeout=5) as robot:
        for _ in range(2):
            with pytest.raises(DataError, match="the policy failed: RuntimeError"):
                robot.act(observation())


def test_inference_leaves_the_door_open() -> None:
    """While a policy thinks, pages are answered."""
    with served(Counting(wait=1.5)) as (address, _), PolicyClient(address, BODY) as robot:
        thinking = threading.Thread(target=lambda: robot.act(observation()))
        thinking.start()
        time.sleep(0.2)
        began = time.perf_counter()
        assert _page(address, "/healthz") == "OK\n"
        assert time.perf_counter() - began < 1.0
        thinking.join()


def test_a_policy_quicker_than_handing_it_over_is_not_handed_over() -> None:
    """And one that was slow once of late is: the loop must not wait for it."""

    class Where(Counting):
        def act(self, observation: Any) -> np.ndarray:
            if observation["instruction"] == "slow":
                time.sleep(0.05)
            beside.append(threading.current_thread().name.startswith("policy"))
            return np.zeros(7, np.float32)

    beside: list[bool] = []
    with served(Where(), limits=None) as (address, server), PolicyClient(address, BODY) as robot:
        robot.act(observation())
        assert beside == [True]
        server._slowest = 1e-4
        robot.act(observation("slow"))
        robot.act(observation())
        assert beside == [True, False, True]


def test_who_does_not_read_is_let_go_and_the_server_stops_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ornstein.serving.server._PATIENCE", 0.5)
    with served(most_clients=1, idle_after=60) as (address, server):
        deaf = socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), timeout=5)
        deaf.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n")
        deaf.send(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        wrong = pack({"nobody": 1})
        frames = (bytes([0x82, 0x80 | len(wrong)]) + bytes(4) + wrong) * 1000  # masked by zeros
        with pytest.raises(OSError):
            for _ in range(2000):
                deaf.sendall(frames)
        deadline = time.perf_counter() + 15
        while server._open and time.perf_counter() < deadline:
            time.sleep(0.05)
        assert server._open == 0
        with PolicyClient(address, BODY) as robot:
            robot.act(observation())


def test_answers_about_strange_names_are_one_short_line() -> None:
    with served() as (address, _), PolicyClient(address, BODY) as robot:
        for name in ("x\n2026-01-01 ERROR forged", "y" * 100_000):
            with pytest.raises(DataError) as complaint:
                robot.act(observation(**{name: 1}))
            assert "\n" not in str(complaint.value)
            assert len(str(complaint.value)) < 500


def test_small_messages_stay_small() -> None:
    """Text where numbers belong would make an array as wide as its longest entry times their count."""
    with served() as (address, _), PolicyClient(address, BODY) as robot:
        for wrong in (
            ["x" * 40_000] + [""] * 4000,
            [[0.0] * 7],
            ["1"] * 7,
            [True] * 7,
            [1e300] * 7,
            np.full(7, 1e300),
        ):
            with pytest.raises(DataError, match="7 finite numbers"):
                robot.act(observation(agent_pos=wrong))
        with pytest.raises(DataError, match="must be an array, got list"):
            robot.act(observation(pixels={"front": [["x" * 40_000] + [""] * 4000]}))
        assert robot.act(observation(agent_pos=[0.45, 0, 0.2, 0, 0, 0, 0]))[0] == pytest.approx(0.01)
        for word in (5, ["episode_start"], np.zeros(3)):
            with pytest.raises(DataError, match="a control word is text"):
                robot._asked({"__ctrl__": word})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", "Api-Key s3cret"), ("Authorization", "Api-Key s3cret")], 401),
        ([("Authorization", "Api-Key s3cret"), ("Robot", "a"), ("Robot", "b")], 400),
        ([("Authorization", "Api-Key s3cret"), ("Robot", "a" * 100)], 400),
        ([("Authorization", "Api-Key s3cretX")], 401),
    ],
)
def test_headers_that_are_refused(headers: list[tuple[str, str]], status: int) -> None:
    from websockets.datastructures import Headers
    from websockets.exceptions import InvalidStatus

    with served(key="s3cret") as (address, _):
        with pytest.raises(InvalidStatus) as refused:
            connect(address, additional_headers=Headers(headers))
        assert refused.value.response.status_code == status


def test_keys() -> None:
    with served(key="s3cret") as (address, server):
        for key in (None, "wrong", "s3cre"):
            with pytest.raises(OrnsteinError, match="401 a valid API key is needed"):
                PolicyClient(address, BODY, key=key)
        with PolicyClient(address, BODY, key="s3cret") as robot:
            robot.act(observation())
        assert b'ornstein_refused_total{reason="key"} 3.0' in server.metrics.page()
        assert _page(address, "/healthz") == "OK\n"
    for key in (" ", "schlüssel", "a\nb"):
        with pytest.raises(DataError, match="API key"):
            PolicyServer(Counting(), limits=None, key=key)


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
            assert server._open == 2
        half_open.close()


def _together(*calls: Callable[[], Any]) -> list[Any]:
    found: list[Any] = [None] * len(calls)
    threads = [threading.Thread(target=lambda k=k, call=call: found.__setitem__(k, call())) for k, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return found


def test_no_more_clients_than_there_is_room_for() -> None:
    with served(most_clients=1) as (address, server):
        with PolicyClient(address, BODY) as first:
            with pytest.raises(OrnsteinError, match="503 1 clients are connected already"):
                PolicyClient(address, BODY)
            first.act(observation())
        deadline = time.perf_counter() + 5
        while server._open and time.perf_counter() < deadline:
            time.sleep(0.02)
        with PolicyClient(address, BODY) as next_one:
            next_one.act(observation())


def test_where_it_may_not_listen() -> None:
    async def listen(server: PolicyServer, host: str, port: int) -> None:
        async with server.listening(host, port):
            pass

    with pytest.raises(DataError, match="there is no key"):
        asyncio.run(listen(PolicyServer(Counting(), limits=FREE), "0.0.0.0", 0))
    with pytest.raises(DataError, match="ports run"):
        asyncio.run(listen(PolicyServer(Counting(), limits=FREE), "127.0.0.1", 70_000))
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
