"""A policy that is served elsewhere. Imports no torch: it runs on the robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect

from ornstein.core.contract import EmbodimentContract
from ornstein.core.errors import ContractError, DataError, OrnsteinError
from ornstein.serving.wire import pack, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ornstein.core.types import Observation


class PolicyClient:
    """Acts by asking a server. `metadata` is what the server said of itself, `last` its last answer."""

    def __init__(
        self,
        address: str,
        contract: EmbodimentContract,
        *,
        key: str | None = None,
        robot: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        """
        Args:
            address: "ws://127.0.0.1:8000". contract: of the robot here. key: that the server asks for. robot: a name under which the server knows it again.
            timeout: for the connection, and for each answer [s].

        Raises:
            ContractError: the policy was made for another body; names the fields. OrnsteinError: nobody listens there, the key is wrong, or it is no such server.
        """
        headers = {**({"Authorization": f"Api-Key {key}"} if key else {}), **({"Robot": robot} if robot else {})}
        self._timeout, self.contract = timeout, contract
        try:
            self._connection = connect(
                address, compression=None, max_size=1 << 24, additional_headers=headers, open_timeout=timeout
            )
        except InvalidStatus as error:
            said = error.response.body.decode("utf8", "replace").strip() if error.response.body else ""
            raise OrnsteinError(f"{address} refuses: {error.response.status_code} {said}".rstrip()) from error
        except (OSError, WebSocketException, ValueError) as error:
            raise OrnsteinError(f"cannot connect to {address}: {str(error).lower() or type(error).__name__}") from error
        self.last: dict[str, Any] = {}
        try:
            self.metadata = self._received()
            told = self.metadata.get("contract") if isinstance(self.metadata, dict) else None
            if told is None:
                raise ContractError(f"{address} does not say for which body it was made: its metadata has no contract")
            EmbodimentContract.from_json(told).require_match(contract, "the served policy", "this robot")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def reset(self) -> None:
        """Begin an episode. Errors as for `act`."""
        self._asked({"__ctrl__": "episode_start"})

    def end(self, *, success: bool) -> None:
        """The episode is over; a server that records has it on disk when this returns. Errors as for `act`."""
        self._asked({"__ctrl__": "episode_end", "__success__": success})

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """The next action.

        Raises:
            DataError: what the server says is wrong with the observation. OrnsteinError: the connection is lost, or there is no answer in time.
        """
        self.last = self._asked(dict(observation))
        actions = np.asarray(self.last.get("actions"))
        if actions.dtype.kind != "f" or actions.shape[1:] != (len(self.contract.action),) or not len(actions):
            raise OrnsteinError(
                f"the server answered no actions of {len(self.contract.action)} numbers, but {actions.dtype} {actions.shape}"
            )
        return actions[0].astype(np.float32)

    def _asked(self, message: Any) -> dict[str, Any]:
        try:
            self._connection.send(pack(message))
        except ConnectionClosed as error:
            raise OrnsteinError(f"the server is gone: {error}") from error
        found = self._received()
        if not isinstance(found, dict):
            raise OrnsteinError(f"the server answered {type(found).__name__}, which is no answer")
        return found

    def _received(self) -> Any:
        try:
            received = self._connection.recv(self._timeout)
        except TimeoutError as error:
            raise OrnsteinError(f"no answer within {self._timeout:g} s") from error
        except ConnectionClosed as error:
            raise OrnsteinError(f"the server is gone: {error}") from error
        if isinstance(received, str):
            raise DataError(f"the server says: {received}")
        return unpack(received)
