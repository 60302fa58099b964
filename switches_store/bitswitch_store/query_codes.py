"""The codes of a query set ⇄ bytes.

Of every dimension the median over the vectors is written, then each vector's difference from it: hidden
states have dimensions that are far from zero in whatever text. For given codes exactly one encoding is
valid. `docs/format.md` has it in words. Knows nothing of steps, recipes or files.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import magnitudes
from bitswitch_store.codes import LARGEST
from bitswitch_store.magnitudes import Data
from bitswitch_store.switch import MAX_QUERIES, SwitchError
from bitswitch_store.varint import read_varint, varint

MAX_QUERY_DIM = 1 << 16  # features of a query vector
MAX_CODES = 1 << 23  # of a query set: those of nothing but zeros take no bytes of a file, but memory

Codes = NDArray[np.int8]


def write(codes: Codes) -> bytes:
    """Codes as bytes; `read`'s inverse.

    Args:
        codes: int8 (vectors, dim), from -`LARGEST` to `LARGEST`; at least one.
    """
    vectors, dim = codes.shape
    median = magnitudes.median(codes)
    entries = np.vstack([median, codes - median]).T
    return varint(dim) + varint(vectors) + magnitudes.write(entries)


def counts(data: Data) -> tuple[int, int, int]:
    """How many vectors, of how many features, and where the entries begin; nothing else is read.

    Raises:
        SwitchError: there are none of them, or more than are allowed.
    """
    dim, at = read_varint(data, 0)
    vectors, at = read_varint(data, at)
    if not (0 < vectors <= MAX_QUERIES and 0 < dim <= MAX_QUERY_DIM):
        raise SwitchError(
            f"the query set is ({vectors}, {dim}); (1, 1) to ({MAX_QUERIES}, {MAX_QUERY_DIM}) is read"
        )
    if vectors * dim > MAX_CODES:
        raise SwitchError(f"the query set is ({vectors}, {dim}); at most {MAX_CODES} values are read")
    return vectors, dim, at


def read(data: Data, *, vouched: bool = False) -> Codes:
    """The codes, int8 (vectors, dim); what else they have to be is for `QuerySet` to see.

    Args:
        data: what `write` gave.
        vouched: see `codec.decode`.

    Raises:
        SwitchError: these bytes are not what `write` makes of any codes.
    """
    vectors, dim, at = counts(data)
    try:
        entries, end = magnitudes.read(data, at, (dim, vectors + 1), 2 * LARGEST, vouched=vouched)
    except SwitchError as error:
        raise SwitchError(f"the query set: {error}") from None
    if end != len(data):
        raise SwitchError(f"the query set has {len(data)} bytes, but ends in byte {end}")
    matrix = entries.reshape(dim, vectors + 1).T
    if not vouched and magnitudes.median(matrix[1:]).any():
        raise SwitchError("the query set has a dimension whose median is not the one that is written")
    codes = matrix[1:] + matrix[0]
    if np.abs(codes).max() > LARGEST:
        raise SwitchError(f"the query set has a code beyond {LARGEST}")
    return np.ascontiguousarray(codes, np.int8)
