"""Messages are openpi's, byte for byte, and come back as they were; what is no message is told so."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ornstein.core.errors import DataError
from ornstein.serving.wire import pack, unpack


def as_openpi_packs(message: Any) -> bytes:
    """By the format that openpi-client 0.1.2 documents, written down again."""

    def default(one: Any) -> Any:
        if isinstance(one, np.ndarray):
            return {b"__ndarray__": True, b"data": one.tobytes(), b"dtype": one.dtype.str, b"shape": one.shape}
        return {b"__npgeneric__": True, b"data": one.item(), b"dtype": one.dtype.str}

    return msgpack.packb(message, default=default)


def test_an_observation_is_packed_as_openpi_packs_it() -> None:
    rng = np.random.default_rng(0)
    message = {
        "pixels": {"front": rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)},
        "agent_pos": rng.normal(size=7).astype(np.float32),
        "n": np.float32(0.5),
        "prompt": "pick up the lion",
        "nothing": None,
        "list": [1, 2.5, True, b"raw"],
    }
    data = pack(message)
    assert data == as_openpi_packs(message)
    found = unpack(data)
    np.testing.assert_array_equal(found["pixels"]["front"], message["pixels"]["front"])  # type: ignore[index,call-overload]
    assert found["agent_pos"].dtype == np.float32
    assert (found["n"], type(found["n"])) == (0.5, np.float32)
    assert (found["prompt"], found["nothing"], found["list"]) == ("pick up the lion", None, [1, 2.5, True, b"raw"])


@given(
    hnp.arrays(
        st.sampled_from(["u1", "i2", "<i8", "f2", "<f4", ">f8", "?", "U3", "S4"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
@settings(deadline=None, max_examples=150)
def test_any_array_comes_back_as_it_was(array: np.ndarray) -> None:
    found = unpack(pack({"a": array}))["a"]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def forged(**changes: Any) -> bytes:
    plain: dict[bytes, Any] = {b"__ndarray__": True, b"data": bytes(12), b"dtype": "<f4", b"shape": (3,)}
    return msgpack.packb({"a": plain | {key.encode(): value for key, value in changes.items()}})


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "can be read"),
        (pack({"a": 1})[:-1], "can be read"),
        (pack({"a": 1}) + b"x", "can be read"),
        (b"\xc1", "can be read"),
        (b"\xdf\xff\xff\xff\xff", "can be read"),
        (b"\x91" * 100_000, "can be read"),
        (msgpack.packb(msgpack.ExtType(5, b"x")), "no extension types"),
        (forged(shape=(4,)), "is 16 bytes, got 12"),
        (forged(shape=(2**40, 2**40)), "bytes, got 12"),
        (forged(shape=(-3,)), "whole numbers"),
        (forged(shape=(1.5,)), "whole numbers"),
        (forged(shape=(1,) * 9 + (3,)), "few axes"),
        (forged(shape=3), "few axes"),
        (forged(data="text"), "few axes"),
        (forged(dtype="O"), "numbers or text"),
        (forged(dtype="|O"), "numbers or text"),
        (forged(dtype="c8"), "numbers or text"),
        (forged(dtype="V4"), "numbers or text"),
        (forged(dtype="nonsense"), "can be read"),
        (forged(dtype=5), "short text"),
        (forged(dtype="f4," * 40), "short text"),
        (msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}), "a number is a number"),
        (msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}), "can be read"),
    ],
)
def test_what_is_no_message_is_told_so(data: bytes, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        unpack(data)


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_message_or_one_clear_error(data: bytes) -> None:
    problem = ""
    try:
        unpack(data)
    except DataError as error:
        problem = str(error)
    assert "\n" not in problem


def test_what_cannot_be_sent_is_not() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for message in (object(), {"a": np.array([None])}, np.zeros(2, complex), 2**70, endless):
        with pytest.raises(DataError, match="cannot be sent"):
            pack(message)
