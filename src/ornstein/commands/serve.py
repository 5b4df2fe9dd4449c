"""`ornstein serve`: a policy behind openpi's websocket protocol."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ornstein.core.errors import DataError

if TYPE_CHECKING:
    import ssl

    from ornstein.core.types import Policy
    from ornstein.safety import ShieldLimits

_KEY_VARIABLE = "ORNSTEIN_API_KEY"


def serve(
    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")],
    /,
    host: str = "127.0.0.1",
    port: int = 8000,
    key_file: Path | None = None,
    anyone: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    shield: bool = True,
    rate: float = 1.0,
    jerk: float = 2.0,
    workspace: tuple[float, float, float, float, float, float] | None = None,
    device: str = "cpu",
    think: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    record: Path | None = None,
    clients: int = 64,
    idle_after: float = 60.0,
) -> int:
    """Serve a policy to robots in openpi's websocket protocol, behind a safety shield. Stops at Ctrl-C, after what is under way is answered.

    GET /healthz says OK, GET /metrics is for Prometheus. The robot's side: `ornstein.serving.client.PolicyClient`, or openpi's own client.

    Args:
        checkpoint: A shipped policy (modular-tabletop, rt1-tabletop), or a folder written by `ornstein train`.
        host: Which address to listen on; another than this machine's own needs a key, or --anyone.
        port: 0 takes a free one, which is printed.
        key_file: A file with the API key that clients must send. The environment variable ORNSTEIN_API_KEY does as well.
        anyone: Let a public address be served without a key.
        tls_certificate: PEM file; with --tls-key the server speaks wss.
        tls_key: PEM file of the certificate's private key.
        shield: Whether what goes out is held within limits: the contract's bounds and what follows. See docs/safety.md.
        rate: Largest change from one command to the next, as a share of each dimension's range.
        jerk: Largest change of that change, likewise.
        workspace: Box for the tool's target [m]: lowest x, y, z, then highest. The tabletop's own for policies of the tabletop.
        device: Where it computes.
        think: Let an RT-2 first say what an instruction means in plain words, and follow those.
        record: Also keep what robots see and do, as a LeRobotDataset in this folder, which appears when the server stops; each episode is safe on disk when it ends. After
            a kill the same command goes on with what is there.
        clients: The most that may be connected.
        idle_after: Close a connection that sends nothing for so long [s].
    """
    import asyncio
    import logging

    import ornstein
    from ornstein.serving.recorder import Recording
    from ornstein.serving.server import PolicyServer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    policy = ornstein.load(checkpoint, device=device)
    if not hasattr(policy, "act"):
        raise DataError(f"{checkpoint} is no policy: it holds a {type(policy).__name__}")
    if think:
        if not hasattr(policy, "thinks"):
            raise DataError(f"{checkpoint} does not say what an instruction means: an RT-2 does")
        policy.thinks = True
    about = {"policy": checkpoint, "checkpoint": getattr(policy, "fingerprint", ""), "ornstein": ornstein.__version__}
    key, tls = _key(key_file), _tls(tls_certificate, tls_key)
    limits = _limits(policy, rate, jerk, workspace) if shield else None
    with nullcontext() if record is None else Recording(record, policy.contract, job=about) as recording:
        server = PolicyServer(
            policy, limits=limits, key=key, tls=tls, most_clients=clients, idle_after=idle_after, recording=recording, about=about
        )
        asyncio.run(_until_stopped(server, host, port, anyone=anyone, secure=tls is not None))
        if recording is not None:
            kept = recording.finish(about)
            print("nothing was recorded" if kept is None else f"{kept}: {recording.episodes} episodes", flush=True)
    return 0


async def _until_stopped(server: object, host: str, port: int, *, anyone: bool, secure: bool) -> None:
    import asyncio
    import signal

    from ornstein.serving.server import PolicyServer, port_of

    assert isinstance(server, PolicyServer)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, over.set)
    async with server.listening(host, port, anyone=anyone) as running:
        print(f"{'wss' if secure else 'ws'}://{host}:{port_of(running)}", flush=True)
        await over.wait()


def _key(file: Path | None) -> str | None:
    import os

    if file is None:
        return os.environ.get(_KEY_VARIABLE)
    try:
        key = file.read_text(encoding="utf8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read a key from {file}: {error}") from error
    if not key:
        raise DataError(f"{file} holds no key")
    return key


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    import ssl

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise DataError("TLS needs both --tls-certificate and --tls-key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise DataError(f"{certificate} and {key} are no certificate with its key: {error}") from error
    return context


def _limits(policy: Policy, rate: float, jerk: float, workspace: tuple[float, ...] | None) -> ShieldLimits:
    from ornstein.safety import Box, ShieldLimits

    limits = ShieldLimits.of(policy.contract, rate=rate, jerk=jerk)
    if workspace is not None:
        return limits.within(Box(workspace[:3], workspace[3:]))  # type: ignore[arg-type]  # six numbers
    try:
        from ornstein.evaluation.trials import arm_of
        from ornstein.simulation.tabletop.environment import WORKSPACE_HIGH, WORKSPACE_LOW

        arm_of(policy.contract)
    except DataError:
        return limits
    return limits.within(Box(tuple(WORKSPACE_LOW.tolist()), tuple(WORKSPACE_HIGH.tolist())))
