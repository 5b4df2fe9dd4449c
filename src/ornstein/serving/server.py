"""`PolicyServer`: a policy behind openpi's websocket protocol.

    robot  ── connect, "Authorization: Api-Key …" ──▶  server
           ◀── metadata: whom it serves, the embodiment contract ──
           ── observation ──▶ … ◀── {"actions", "server_timing"} ──     bytes; a text instead is an error, and the connection lives on

As openpi's own client 0.1.2 speaks it. `GET /healthz` says OK, `GET /metrics` what was counted. Inference runs beside the event loop, one observation after the other
and each connection in its turn: a connection has one observation under way at most. Only a policy that takes less time than that costs runs within.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import ipaddress
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from ornstein.core.errors import DataError, OrnsteinError
from ornstein.serving.metrics import Metrics
from ornstein.serving.observations import observation_of
from ornstein.serving.sessions import Session, Shields
from ornstein.serving.wire import pack, unpack

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from websockets.http11 import Request, Response

    from ornstein.core.contract import EmbodimentContract
    from ornstein.core.types import Observation, Policy
    from ornstein.data.lerobot_episode import RobotEpisode
    from ornstein.safety import ShieldLimits
    from ornstein.serving.recorder import Recording

_T = TypeVar("_T")
_LOG = logging.getLogger("ornstein.serving")
PROTOCOL = "openpi"
#: What a message may be larger than its pictures, in bytes.
_SLACK = 1 << 18
_KEY = "Api-Key "
_ROBOT = "Robot"
_LAST_PORT = 65535
#: How long a client may take to read what it is sent, and to go [s].
_PATIENCE = 5.0
_LONGEST_NAME, _LONGEST_ERROR = 64, 400
#: What has been quicker than this of late [s] is done at once: handing it to another thread and back would take a tenth of that, and the event loop can spare it.
_AT_ONCE, _FORGETTING = 1e-3, 0.99


class PolicyServer:
    """Serves one policy to many robots.

    Each connection has an episode of its own; `{"__ctrl__": "episode_start"}` begins a new one, `{"__ctrl__": "episode_end", "__success__": True}` ends it,
    and the answer to either comes when what was recorded is on disk. Of shields see `Shields`: a robot should give its name in the header `Robot`.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        limits: ShieldLimits | None,
        key: str | None = None,
        tls: ssl.SSLContext | None = None,
        most_clients: int = 64,
        idle_after: float = 60.0,
        recording: Recording | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            limits: of each robot's shield; None for no shield. key: who connects must know; None lets everybody in. idle_after: a connection that sends nothing
                for so long is closed [s]. recording: where what robots see and do is kept; whoever opened it finishes it. about: more for the metadata, plain data.

        Raises:
            DataError: an empty key, or numbers out of range.
        """
        if key is not None and not (key.strip() and key.isascii() and key.isprintable()):
            raise DataError("the API key is empty, or has letters that a header cannot carry: give one of plain letters, or none")
        if most_clients < 1 or not idle_after > 0:
            raise DataError(f"at least one client and some time are needed, got {most_clients} and {idle_after}")
        self._policy, self._key, self._tls = policy, key, tls
        self._most, self._idle_after = most_clients, idle_after
        self._shields, self._recording = Shields(limits), recording
        self._brain = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._pen = ThreadPoolExecutor(1, thread_name_prefix="recording")
        self._named: dict[str, ServerConnection] = {}
        self._writing: set[asyncio.Future[None]] = set()
        # How many observations are being thought about beside the event loop, and how long the slowest of late took [s].
        self._thinking, self._slowest = 0, math.inf
        self.metrics = Metrics()
        self._open = 0
        self._metadata = pack(
            {
                "protocol": PROTOCOL,
                "contract": policy.contract.to_json(),
                "fingerprint": policy.contract.fingerprint,
                "shield": limits is not None,
                **(about or {}),
            }
        )

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int, *, anyone: bool = False) -> Any:
        """The running server, for as long as the block lasts; then what is under way is answered and connections are closed, those that do not go within
        seconds by force.

        Args:
            port: 0 for a free one, see `port_of`. anyone: let a public address be bound without a key.

        Raises:
            DataError: a public address without a key, or no port. OrnsteinError: the port is taken, or cannot be bound.
        """
        if not _is_loopback(host) and self._key is None and not anyone:
            raise DataError(
                f"{host} can be reached from elsewhere, and there is no key: whoever connects would move the robot. Give a key, or say --anyone"
            )
        if not 0 <= port <= _LAST_PORT:
            raise DataError(f"ports run 0 … {_LAST_PORT}, got {port}")
        try:
            server = await serve(
                self._serve_one,
                host,
                port,
                ssl=self._tls,
                compression=None,
                max_size=_largest(self._policy.contract),
                max_queue=2,
                process_request=self._answer_http,
                ping_interval=20,
                ping_timeout=20,
                open_timeout=10,
                close_timeout=_PATIENCE,
                server_header=None,
            )
        except OSError as error:
            raise OrnsteinError(f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}") from error
        _LOG.info("listening on %s:%d", host, port_of(server))
        try:
            yield server
        finally:
            server.close()
            try:
                async with asyncio.timeout(2 * _PATIENCE):
                    await server.wait_closed()
            except TimeoutError:
                for connection in [*server.connections]:
                    connection.transport.abort()
                await server.wait_closed()
            await asyncio.gather(*self._writing)

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if request.path == "/metrics":
            return connection.respond(http.HTTPStatus.OK, self.metrics.page().decode())
        if not self._knows(request.headers.get_all("Authorization")):
            self.metrics.refused.labels("key").inc()
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a valid API key is needed\n")
        names = request.headers.get_all(_ROBOT)
        if len(names) > 1 or any(not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() for name in names):
            self.metrics.refused.labels("name").inc()
            return connection.respond(http.HTTPStatus.BAD_REQUEST, f"a robot has one name of 1 to {_LONGEST_NAME} letters\n")
        if self._open >= self._most:
            self.metrics.refused.labels("full").inc()
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self._most} clients are connected already\n")
        return None

    def _knows(self, given: list[str]) -> bool:
        """Whether that is the key, in a time that does not tell how much of it is right."""
        if self._key is None:
            return True
        return len(given) == 1 and hmac.compare_digest(given[0].encode("utf8", "replace"), f"{_KEY}{self._key}".encode())

    async def _serve_one(self, connection: ServerConnection) -> None:
        address = str(connection.remote_address[0]) if connection.remote_address else "unknown"
        name = None if connection.request is None else connection.request.headers.get(_ROBOT)
        robot = name or address
        before = self._named.get(name) if name else None
        if before is not None:  # it lost that connection and came again: one robot has one
            before.transport.abort()
        if name:
            self._named[name] = connection
        shield = self._shields.take(name, address)
        self._open += 1
        self.metrics.clients.inc()
        _LOG.info("robot %s connected", robot)
        session = Session(self._policy, shield, None if self._recording is None else self._recording.episode())
        try:
            await self._send(connection, self._metadata)
            await self._converse(connection, session, robot)
        except (ConnectionClosed, TimeoutError):
            pass
        finally:
            self._open -= 1
            self.metrics.clients.dec()
            self._shields.leave(name, address)
            if name and self._named.get(name) is connection:
                del self._named[name]
            await self._keep(session.ended(), robot)
            _LOG.info("robot %s left", robot)

    async def _converse(self, connection: ServerConnection, session: Session, robot: str) -> None:
        before: float | None = None
        while True:
            async with asyncio.timeout(self._idle_after):
                received = await connection.recv()
            began = time.perf_counter()
            try:
                reply = await self._reply(received, session, robot, before)
            except DataError as error:
                self.metrics.refused.labels("message").inc()
                said = str(error)[:_LONGEST_ERROR]
                _LOG.warning("robot %s: %s", robot, said)
                await self._send(connection, said)
                continue
            except Exception as error:  # the policy's own; a client gets no traceback
                self.metrics.refused.labels("policy").inc()
                _LOG.exception("robot %s: the policy failed", robot)
                await self._send(connection, f"the policy failed: {type(error).__name__}; the server's log says more")
                continue
            await self._send(connection, reply)
            before = time.perf_counter() - began

    async def _send(self, connection: ServerConnection, message: str | bytes) -> None:
        """To who reads it; who does not is let go."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await connection.send(message)
        except TimeoutError:
            connection.transport.abort()
            raise

    async def _reply(self, received: str | bytes, session: Session, robot: str, before: float | None) -> bytes:
        if isinstance(received, str):
            raise DataError("an observation is a binary message, got text")
        message = unpack(received)
        if isinstance(message, dict) and "__ctrl__" in message:
            return await self._control(message, session, robot)
        observation = observation_of(message, self._policy.contract)
        answer, seconds = await self._thought(session, observation)
        self.metrics.seconds.observe(seconds)
        self.metrics.answers.inc()
        for reason in answer.get("shield", ()):
            self.metrics.shielded.labels(reason).inc()
        over = session.taken()
        if over:  # written while robots go on
            task = asyncio.ensure_future(self._keep(over, robot))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
        timing = {"infer_ms": 1000 * seconds, **({} if before is None else {"prev_total_ms": 1000 * before})}
        return pack({**answer, "server_timing": timing})

    async def _thought(self, session: Session, observation: Observation) -> tuple[dict[str, Any], float]:
        """The answer, and how long it took [s]. A policy that is quicker than handing it over runs at once; never two at a time."""
        if self._thinking == 0 and self._slowest < _AT_ONCE:
            answer, seconds = _timed(session, observation)
        else:
            self._thinking += 1
            try:
                answer, seconds = await _beside(self._brain, _timed, session, observation)
            finally:
                self._thinking -= 1
        self._slowest = max(seconds, _FORGETTING * min(self._slowest, 1.0))
        return answer, seconds

    async def _control(self, message: Any, session: Session, robot: str) -> bytes:
        word = message["__ctrl__"]
        if not isinstance(word, str):
            raise DataError(f"a control word is text, got {type(word).__name__}")
        if word == "episode_start":
            await _beside(self._brain, session.reset)
        if word in ("episode_start", "episode_end"):
            await self._keep(session.ended(success=message.get("__success__") is True), robot)
        return pack({"__ack__": word if word in ("episode_start", "episode_end") else "ignored"})

    async def _keep(self, episodes: list[RobotEpisode], robot: str) -> None:
        """On disk when this returns. What cannot be kept is told in the log: a robot's next action does not depend on it."""
        for episode in episodes:
            assert self._recording is not None
            try:
                await _beside(self._pen, self._recording.add, episode)
            except DataError as error:
                self.metrics.refused.labels("episode").inc()
                _LOG.error("robot %s: an episode of %d steps is lost: %s", robot, len(episode), error)


def _timed(session: Session, observation: Observation) -> tuple[dict[str, Any], float]:
    began = time.perf_counter()
    answer = session.infer(observation)
    return answer, time.perf_counter() - began


async def _beside(thread: ThreadPoolExecutor, call: Callable[..., _T], *arguments: Any) -> _T:
    """One after the other, and not in the event loop."""
    return await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)


def port_of(server: Server) -> int:
    """Where it listens."""
    (socket, *_) = server.sockets
    return int(socket.getsockname()[1])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _largest(contract: EmbodimentContract) -> int:
    """Bytes that an observation may have: its pictures, twice over for clients that send more than is read, and a little."""
    return _SLACK + 2 * sum(3 * camera.height * camera.width for camera in contract.cameras)
