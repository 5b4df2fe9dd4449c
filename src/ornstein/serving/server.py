"""`PolicyServer`: a policy behind openpi's websocket protocol.

    robot  ── connect, "Authorization: Api-Key …" ──▶  server
           ◀── metadata: whom it serves, the embodiment contract ──
           ── observation ──▶ … ◀── {"actions", "server_timing"} ──     bytes; a text instead is an error, and the connection lives on

As openpi's own client 0.1.2 speaks it. `GET /healthz` says OK, `GET /metrics` what was counted. Inference runs beside the event loop, one observation after the other
and each connection in its turn: a connection has one observation under way at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import ipaddress
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    from ornstein.core.types import Policy
    from ornstein.safety import ShieldLimits
    from ornstein.serving.recorder import Recording

_T = TypeVar("_T")
_LOG = logging.getLogger("ornstein.serving")
PROTOCOL = "openpi"
#: What a message may be larger than its pictures, in bytes.
_SLACK = 1 << 18
_KEY = "Api-Key "
_ROBOT = "Robot"


class PolicyServer:
    """Serves one policy to many robots.

    Each connection has an episode of its own; `{"__ctrl__": "episode_start"}` begins a new one, `{"__ctrl__": "episode_end", "__success__": True}` ends it,
    and the answer to either comes when what was recorded is on disk. A robot that gives its name in the header `Robot` keeps its
    shield over reconnections; others keep it by the address that they come from.
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
        if key is not None and not key.strip():
            raise DataError("the API key is empty: give one, or none")
        if most_clients < 1 or not idle_after > 0:
            raise DataError(f"at least one client and some time are needed, got {most_clients} and {idle_after}")
        self._policy, self._key, self._tls = policy, key, tls
        self._most, self._idle_after = most_clients, idle_after
        self._shields, self._recording = Shields(limits), recording
        self._brain = ThreadPoolExecutor(1, thread_name_prefix="policy")
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
        """The running server, for as long as the block lasts; then what is under way is answered and connections are closed.

        Args:
            port: 0 for a free one, which `sockets` of what is given tells. anyone: let a public address be bound without a key.

        Raises:
            DataError: a public address without a key. OrnsteinError: the port is taken, or cannot be bound.
        """
        if not _is_loopback(host) and self._key is None and not anyone:
            raise DataError(
                f"{host} can be reached from elsewhere, and there is no key: whoever connects would move the robot. Give a key, or say --anyone"
            )
        try:
            async with serve(
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
                close_timeout=5,
                server_header=None,
            ) as server:
                _LOG.info("listening on %s:%d", host, port_of(server))
                yield server
        except OSError as error:
            raise OrnsteinError(f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}") from error

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if request.path == "/metrics":
            return connection.respond(http.HTTPStatus.OK, self.metrics.page().decode())
        if not self._knows(request.headers.get("Authorization", "")):
            self.metrics.refused.labels("key").inc()
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a valid API key is needed\n")
        if self._open >= self._most:
            self.metrics.refused.labels("full").inc()
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self._most} clients are connected already\n")
        return None

    def _knows(self, given: str) -> bool:
        """Whether that is the key, in a time that does not tell how much of it is right."""
        return self._key is None or hmac.compare_digest(given.encode("utf8", "replace"), f"{_KEY}{self._key}".encode())

    async def _serve_one(self, connection: ServerConnection) -> None:
        address = connection.remote_address
        named = connection.request.headers.get(_ROBOT) if connection.request is not None else None
        robot = named or (str(address[0]) if address else "unknown")
        shield = self._shields.take(robot)
        self._open += 1
        self.metrics.clients.inc()
        _LOG.info("robot %s connected", robot)
        try:
            session = Session(self._policy, shield, None if self._recording is None else self._recording.episode())
            try:
                await connection.send(self._metadata)
                await self._converse(connection, session, robot)
            finally:
                await self._beside(session.end)
        except (ConnectionClosed, TimeoutError):
            pass
        except DataError as error:
            _LOG.error("robot %s: its last episode is lost: %s", robot, error)
        finally:
            self._open -= 1
            self.metrics.clients.dec()
            self._shields.give_back(robot, shield)
            _LOG.info("robot %s left", robot)

    async def _converse(self, connection: ServerConnection, session: Session, robot: str) -> None:
        before: float | None = None
        while True:
            async with asyncio.timeout(self._idle_after):
                received = await connection.recv()
            began = time.perf_counter()
            try:
                reply = await self._reply(received, session, before)
            except DataError as error:
                self.metrics.refused.labels("message").inc()
                _LOG.warning("robot %s: %s", robot, error)
                await connection.send(str(error))
                continue
            except Exception as error:  # the policy's own; a client gets no traceback
                self.metrics.refused.labels("policy").inc()
                _LOG.exception("robot %s: the policy failed", robot)
                await connection.send(f"the policy failed: {type(error).__name__}; the server's log says more")
                continue
            await connection.send(reply)
            before = time.perf_counter() - began

    async def _reply(self, received: str | bytes, session: Session, before: float | None) -> bytes:
        if isinstance(received, str):
            raise DataError("an observation is a binary message, got text")
        message = unpack(received)
        if isinstance(message, dict) and "__ctrl__" in message:
            return await self._control(message, session)
        observation = observation_of(message, self._policy.contract)
        began = time.perf_counter()
        answer = await self._beside(session.infer, observation)
        seconds = time.perf_counter() - began
        self.metrics.seconds.observe(seconds)
        self.metrics.answers.inc()
        for reason in answer.get("shield", ()):
            self.metrics.shielded.labels(reason).inc()
        timing = {"infer_ms": 1000 * seconds, **({} if before is None else {"prev_total_ms": 1000 * before})}
        return pack({**answer, "server_timing": timing})

    async def _control(self, message: Any, session: Session) -> bytes:
        word = message["__ctrl__"]
        if word == "episode_start":
            await self._beside(session.reset)
        elif word == "episode_end":
            await self._beside(partial(session.end, success=message.get("__success__") is True))
        return pack({"__ack__": word if word in ("episode_start", "episode_end") else "ignored"})

    async def _beside(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """Where policies run: one after the other, and not in the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._brain, call, *arguments)


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
