"""Whole numbers around zero ⇄ bytes near their entropy, by the codec of activation bits.

What is written are the magnitudes, a plane of bits for each one that is reached, and the signs. For given
numbers exactly one encoding is valid. `docs/format.md` has it in words. Knows nothing of what is numbered.
"""

from __future__ import annotations

import math
from itertools import count
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import codec
from bitswitch_store.switch import SwitchError
from bitswitch_store.varint import read_varint, varint

Data = bytes | memoryview
_Number = TypeVar("_Number", bound=np.integer[Any])


def write(numbers: NDArray[np.signedinteger[Any]]) -> bytes:
    """Numbers as bytes, those of any shape; `read`'s inverse."""
    out = bytearray()
    left, shape = np.abs(numbers).reshape(-1), numbers.shape
    for least in range(1, int(left.max(initial=0)) + 1):
        reached = left >= least
        left = left[reached]
        code, stream = codec.encode(np.packbits(reached, bitorder="little"), shape, left.size)
        out += varint(left.size) + bytes([code]) + varint(len(stream)) + stream
        shape = left.shape
    return bytes(out + varint(0) + np.packbits(numbers[numbers != 0] < 0, bitorder="little").tobytes())


def read(
    data: Data, at: int, shape: tuple[int, ...], most: int, *, vouched: bool = False
) -> tuple[NDArray[np.int16], int]:
    """Numbers of a shape, int16, and where the next byte is.

    Args:
        data: bytes, in which an encoding begins at ``at``.
        shape: of the numbers; memory goes with it, so that the caller has to bound it.
        most: the largest magnitude that there can be.
        vouched: see `codec.decode`.

    Raises:
        SwitchError: these bytes are not what `write` makes of such numbers.
    """
    numel = math.prod(shape)
    signed = left = np.zeros(0, np.int64)  # places among all; of those, the ones in the latest plane
    sizes = np.zeros(0, np.int16)
    for level in count(1):
        active, at = read_varint(data, at)
        if active == 0:
            break
        if level > most:
            raise SwitchError(f"there are more than {most} planes of magnitudes")
        # Each has its sign: a few bytes cannot claim many.
        if active > 8 * (len(data) - at):
            raise SwitchError(f"{len(data) - at} bytes are left, too few for {active} signs")
        places, at = _plane(data, at, shape, active, vouched)
        if level == 1:
            signed, left, sizes = places, np.arange(active), np.ones(active, np.int16)
        else:
            left = left[places]
            sizes[left] += 1
        shape = (active,)
    end = at + (signed.size + 7) // 8
    numbers = np.zeros(numel, np.int16)
    numbers[signed] = np.where(_signs(data[at:end], signed.size), -sizes, sizes)
    return numbers, end


def median(values: NDArray[_Number]) -> NDArray[_Number]:
    """Along the first axis, what numbers are differences from: of an even number the lower one of the two.

    So it is one of them, and the differences' own median is 0.
    """
    middle = (len(values) - 1) // 2
    return np.asarray(np.partition(values, middle, axis=0)[middle])


def _plane(
    data: Data, at: int, shape: tuple[int, ...], active: int, vouched: bool
) -> tuple[NDArray[np.int64], int]:
    """Where the plane at ``at``, behind its count, has its bits, ascending; and where it ends."""
    size, begin = read_varint(data, at + 1)
    if begin + size > len(data):
        raise SwitchError("a plane of magnitudes runs past the end")
    plane = codec.decode(data[at], data[begin : begin + size], shape, active, vouched=vouched)
    bits = np.unpackbits(plane.view(np.uint8), count=math.prod(shape), bitorder="little")
    return np.flatnonzero(bits), begin + size


def _signs(data: Data, numbers: int) -> NDArray[np.bool_]:
    """Which of so many numbers are negative."""
    if len(data) < (numbers + 7) // 8:
        raise SwitchError(f"there are {len(data)} bytes of signs for {numbers} numbers")
    if numbers % 8 and data[-1] >> (numbers % 8):
        raise SwitchError("padding bits are set after the last sign")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=numbers, bitorder="little").view(np.bool_)
