"""Arrays of −1, 0, +1 ⇄ packed bits, and packed bits ⇄ the 64-bit words the codec works on.

Knows nothing of codes or files. Bits are packed as in `TensorSwitch`: row-major, least significant
bit of the first byte first. A machine whose words are not little-endian is not supported.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import kernels
from bitswitch_store.switch import TensorSwitch
from bitswitch_store.words import Words

if sys.byteorder != "little":
    raise ImportError("bitswitch_store packs bits in little-endian words; this machine is big-endian")

Bits = NDArray[np.uint8]


def pack(ternary: NDArray[np.int8]) -> tuple[Bits, Bits]:
    """What a ternary array touches, and which way.

    Args:
        ternary: int8 of any shape; −1, 0 or +1.

    Returns:
        activation uint8 (ceil(numel / 8),) and polarity uint8 (ceil(active / 8),), as in `TensorSwitch`.
    """
    flat = ternary.reshape(-1)
    active = flat != 0
    return np.packbits(active, bitorder="little"), np.packbits(flat[active] > 0, bitorder="little")


def unpack(tensor: TensorSwitch) -> NDArray[np.int8]:
    """The inverse of `pack`: int8 of the tensor's shape, −1, 0 or +1, knobs left out."""
    active = np.unpackbits(tensor.activation, count=tensor.numel, bitorder="little").view(np.bool_)
    up = np.unpackbits(tensor.polarity, count=tensor.active, bitorder="little").view(np.int8)
    ternary = np.zeros(tensor.numel, np.int8)
    ternary[active] = 2 * up - 1
    return ternary.reshape(tensor.shape)


def moved(tensor: TensorSwitch) -> NDArray[np.float32]:
    """How far the tensor's weights are moved: float32 of its shape, `unpack` times the knobs."""
    return unpack(tensor) * tensor.knobs.reshape(-1, *[1] * (len(tensor.shape) - 1))


def zeros(bits: int) -> Words:
    """Words for ``bits`` bits, all zero, with the spare words the kernels may look at."""
    return np.zeros(bits // 64 + 2, np.uint64)


def words(packed: Bits) -> Words:
    """A copy of packed bits as words."""
    copy = zeros(8 * packed.size)
    copy.view(np.uint8)[: packed.size] = packed
    return copy


def packed(plane: Words, bits: int) -> Bits:
    """The first ``bits`` bits of words as packed bits; shares their memory."""
    return plane.view(np.uint8)[: (bits + 7) // 8]


def inverted(plane: Words, bits: int) -> Words:
    """Words with the first ``bits`` bits turned over and zeros after them."""
    turned = zeros(bits)
    whole, left = divmod(bits, 64)
    np.invert(plane[:whole], out=turned[:whole])
    if left:
        turned[whole] = ~plane[whole] & np.uint64((1 << left) - 1)
    return turned


def count(plane: Words) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(plane).sum(dtype=np.int64))


def touched_rows(plane: Words, rows: int, width: int, active: int) -> NDArray[np.int64]:
    """The rows of ``width`` bits that have one of the ``active`` set bits, ascending.

    Memory goes with ``active``, not with ``rows``: a file of few bytes may claim many rows.
    """
    found = np.empty(min(rows, active), np.int64)
    return found[: kernels.touched(plane, rows, width, found)]


def of_places(places: NDArray[np.int64], bits: int) -> Words:
    """Words for ``bits`` bits, those at ``places`` set."""
    plane = zeros(bits)
    kernels.set_bits(plane, places)
    return plane
