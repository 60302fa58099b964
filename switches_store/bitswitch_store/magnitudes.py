"""The codes of a query set ⇄ bytes near their entropy, by the codec of activation bits.

Of every dimension the median over the vectors is written, then each vector's difference from it: hidden
states have dimensions that are far from zero in whatever text. What is written are the magnitudes, a plane of
bits for each number they reach, and the signs. For given codes exactly one encoding is valid.
`docs/format.md` has it in words. Knows nothing of steps, recipes or files.
"""

from __future__ import annotations

import math
from itertools import count

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import codec, planes
from bitswitch_store.codes import LARGEST
from bitswitch_store.switch import MAX_QUERIES, SwitchError
from bitswitch_store.varint import read_varint, varint

MAX_QUERY_DIM = 1 << 16  # features of a query vector

Data = bytes | memoryview
Codes = NDArray[np.int8]


def write(codes: Codes) -> bytes:
    """Codes as bytes; `read`'s inverse.

    Args:
        codes: int8 (vectors, dim), from -`LARGEST` to `LARGEST`; at least one.
    """
    vectors, dim = codes.shape
    matrix = np.vstack([median := _median(codes), codes - median]).T
    out = bytearray(varint(dim) + varint(vectors))
    left, shape = np.abs(matrix).reshape(-1), matrix.shape
    for least in range(1, int(left.max()) + 1):
        reached = left >= least
        left = left[reached]
        code, stream = codec.encode(np.packbits(reached, bitorder="little"), shape, left.size)
        out += varint(left.size) + bytes([code]) + varint(len(stream)) + stream
        shape = left.shape
    return bytes(out + varint(0) + np.packbits(matrix[matrix != 0] < 0, bitorder="little").tobytes())


def counts(data: Data) -> tuple[int, int, int]:
    """How many vectors, of how many features, and where the first plane begins; nothing else is read.

    Raises:
        SwitchError: there are none of them, or more than are allowed.
    """
    dim, at = read_varint(data, 0)
    vectors, at = read_varint(data, at)
    if not (0 < vectors <= MAX_QUERIES and 0 < dim <= MAX_QUERY_DIM):
        raise SwitchError(
            f"the query set is ({vectors}, {dim}); (1, 1) to ({MAX_QUERIES}, {MAX_QUERY_DIM}) is read"
        )
    return vectors, dim, at


def read(data: Data) -> Codes:
    """The codes, int8 (vectors, dim); what else they have to be is for `QuerySet` to see.

    Raises:
        SwitchError: these bytes are not what `write` makes of any codes.
    """
    vectors, dim, at = counts(data)
    shape: tuple[int, ...] = (dim, vectors + 1)
    signed = left = np.zeros(0, np.int64)  # places in the matrix; of those, the ones in the latest plane
    sizes = np.zeros(0, np.int8)
    for level in count(1):
        active, at = read_varint(data, at)
        if active == 0:
            break
        if level > 2 * LARGEST:
            raise SwitchError(f"the query set has more than {2 * LARGEST} planes")
        # Memory goes with these, and each has its sign: a few bytes cannot claim many.
        if active > 8 * (len(data) - at):
            raise SwitchError(f"the query set has {len(data)} bytes, too few for {active} signs")
        places, at = _plane(data, at, shape, active)
        if level == 1:
            signed, left, sizes = places, np.arange(active), np.ones(active, np.int8)
        else:
            left = left[places]
            sizes[left] += 1
        shape = (active,)
    down = _signs(data[at:], signed.size)
    values = np.zeros(dim * (vectors + 1), np.int8)
    values[signed] = np.where(down, -sizes, sizes)
    matrix = values.reshape(dim, vectors + 1).T
    if _median(matrix[1:]).any():
        raise SwitchError("the query set has a dimension whose median is not the one that is written")
    return np.ascontiguousarray(matrix[1:] + matrix[0])


def _median(codes: Codes) -> Codes:
    """Of each dimension over the vectors, int8 (dim,); of an even number the lower one of the two."""
    middle = (len(codes) - 1) // 2
    median: Codes = np.partition(codes, middle, axis=0)[middle]
    return median


def _plane(data: Data, at: int, shape: tuple[int, ...], active: int) -> tuple[NDArray[np.int64], int]:
    """Where the plane at ``at``, behind its count, has its bits, ascending; and where it ends."""
    size, begin = read_varint(data, at + 1)
    if begin + size > len(data):
        raise SwitchError("the query set has a plane that runs past the end")
    try:
        plane = codec.decode(data[at], data[begin : begin + size], shape, active)
    except SwitchError as error:
        raise SwitchError(f"the query set: {error}") from None
    return planes.touched_rows(plane, math.prod(shape), 1, active), begin + size


def _signs(data: Data, entries: int) -> NDArray[np.bool_]:
    """Which of so many entries are negative."""
    if len(data) != (entries + 7) // 8:
        raise SwitchError(f"the query set has {len(data)} bytes of signs; {entries} entries have one each")
    if entries % 8 and data[-1] >> (entries % 8):
        raise SwitchError("the query set has padding bits set after its last sign")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=entries, bitorder="little").view(np.bool_)
