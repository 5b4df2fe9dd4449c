"""Messages between robots and policies: msgpack with numpy arrays, as openpi's client packs them, byte for byte.

An array is the map {b"__ndarray__": True, b"data": …, b"dtype": "<f4", b"shape": (…)}; a numpy number {b"__npgeneric__": True, b"data": …, b"dtype": …}
(openpi-client 0.1.2, msgpack_numpy.py, itself after msgpack-numpy). Nothing that is read here can run, or become larger than what was sent.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

from ornstein.core.errors import DataError

#: Of numpy's kinds, those that are plain numbers or text.
_KINDS = "biufUS"
_MOST_AXES = 8
_MOST_ITEMS = 4096


def pack(message: Any) -> bytes:
    """
    Raises:
        DataError: something in it that msgpack does not know, an object array, complex numbers, or no end to its depth.
    """
    try:
        packed: bytes = msgpack.packb(message, default=_packed)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"this message cannot be sent: {error}") from error
    return packed


def unpack(data: bytes) -> Any:
    """The message; its arrays are read-only views of `data`.

    Raises:
        DataError: it is no whole message of this kind; says what is wrong with it.
    """
    try:
        return msgpack.unpackb(
            data,
            object_hook=_unpacked,
            strict_map_key=False,
            max_array_len=_MOST_ITEMS,
            max_map_len=_MOST_ITEMS,
            ext_hook=_refused,
        )
    except DataError:
        raise
    except Exception as error:  # msgpack has a family of its own, and raises what hooks and keys raise
        raise DataError(f"not a message that can be read: {type(error).__name__}: {str(error)[:200]}") from error


def _packed(one: Any) -> Any:
    if isinstance(one, np.ndarray | np.generic) and one.dtype.kind not in _KINDS:
        raise TypeError(f"arrays hold numbers or text, got {one.dtype}")
    if isinstance(one, np.ndarray):
        return {b"__ndarray__": True, b"data": one.tobytes(), b"dtype": one.dtype.str, b"shape": one.shape}
    if isinstance(one, np.generic):
        return {b"__npgeneric__": True, b"data": one.item(), b"dtype": one.dtype.str}
    raise TypeError(f"a message holds plain data and arrays, got {type(one).__name__}")


def _unpacked(one: dict[Any, Any]) -> Any:
    if b"__ndarray__" in one:
        return _array(one.get(b"data"), _dtype(one), one.get(b"shape"))
    if b"__npgeneric__" in one:
        dtype, value = _dtype(one), one.get(b"data")
        if not isinstance(value, bool | int | float | str | bytes):
            raise DataError(f"a number is a number, got {type(value).__name__}")
        return dtype.type(value)
    return one


def _dtype(one: dict[Any, Any]) -> np.dtype[Any]:
    name = one.get(b"dtype")
    if not isinstance(name, str) or len(name) > 16:
        raise DataError(f"an array's dtype is a short text like '<f4', got {name!r:.40}")
    dtype = np.dtype(name)
    if dtype.kind not in _KINDS:
        raise DataError(f"arrays hold numbers or text, got {dtype}")
    return dtype


def _array(data: Any, dtype: np.dtype[Any], shape: Any) -> np.ndarray[Any, Any]:
    if not isinstance(data, bytes) or not isinstance(shape, list | tuple) or len(shape) > _MOST_AXES:
        raise DataError("an array has bytes and a shape of a few axes")
    if not all(isinstance(length, int) and not isinstance(length, bool) and length >= 0 for length in shape):
        raise DataError(f"an array's shape is whole numbers, got {shape!r:.80}")
    size = math.prod(shape) * dtype.itemsize
    if size != len(data):
        raise DataError(f"an array of {dtype} {tuple(shape)} is {size} bytes, got {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape)


def _refused(code: int, data: bytes) -> Any:
    raise DataError(f"messages hold no extension types, got one of code {code}")
