"""Knobs as a file holds them: 8 bits each, coded, or 16 or 32, the first of these that hold all exactly.

The 8 bits are 5 of exponent and 3 of mantissa, ``(1 + m / 8) · 2 ** (e - 21)``: from 4.8e-7 to 1,920, all of
which fp16 holds as well. A knob is positive and so needs no sign, and any in that range is within a sixteenth
of one of these. That is far below what leaving out most of a row's weights costs.

The knobs of a matrix's rows lie close together: two bits tell one from their median. A vector has a knob for
each weight, and they lie as far apart as those; their lowest two bits are as good as random and stand as they
are. So what is written of 8 bits are each tensor's median, the vectors' lowest bits, the differences of their
other bits from the medians, then those of all other knobs. For given knobs exactly one encoding is valid.

Knows nothing of activation bits, names or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import magnitudes
from bitswitch_store.switch import SwitchError

# No fine-tuning moves a weight this far; and below it, base + knob stays finite in fp16 (65504).
MAX_KNOB = 1e4

BITS = 2
"""What a knob of a matrix takes in a file, roughly, if `rounded` gave it."""

_LOW = 2  # bits of a vector's knobs that are not coded

_DROPPED = 20  # of float32's 23 bits of mantissa
_FIRST = (127 - 21) << 3  # the upper bits of a float32 that code 0 stands for


def rounded(knobs: NDArray[np.floating[Any]] | np.floating[Any]) -> NDArray[np.float32]:
    """The nearest knobs with 3 bits of mantissa, float32; 0 for those below what 8 bits hold.

    Args:
        knobs: any shape; finite, 0 or more.
    """
    bits = np.asarray(knobs, np.float32).view(np.uint32)
    upper = (bits + np.uint32(1 << (_DROPPED - 1))) >> _DROPPED
    return (np.where(upper >= _FIRST, upper, np.uint32(0)) << _DROPPED).view(np.float32)


def write(groups: Sequence[NDArray[np.float32]], dimensions: Sequence[int]) -> NDArray[Any]:
    """Knobs as a file holds them: uint8 (bytes,), or float16 or float32 (knobs,).

    Args:
        groups: the knobs of each tensor, at least one and only those of rows that have one.
        dimensions: of each tensor.

    Raises:
        SwitchError: one is not finite, or above `MAX_KNOB`.
    """
    held = _held(np.concatenate([np.zeros(0, np.float32), *groups]))
    if held.dtype != np.uint8:
        return held
    counts = [group.size for group in groups]
    vectors = _of_vectors(counts, dimensions)
    low = np.packbits(held[vectors, None] >> np.arange(_LOW, dtype=np.uint8) & 1, bitorder="little")
    upper = held >> (_LOW * vectors).astype(np.uint8)
    medians = np.array([magnitudes.median(codes) for codes in _split(upper, counts)], np.uint8)
    left = upper.astype(np.int16) - np.repeat(medians, counts)
    coded = magnitudes.write(left[vectors]) + magnitudes.write(left[~vectors])
    return np.frombuffer(medians.tobytes() + low.tobytes() + coded, np.uint8)


def read(
    found: NDArray[Any], counts: Sequence[int], dimensions: Sequence[int], *, vouched: bool = False
) -> NDArray[np.float32]:
    """All tensors' knobs, float32 (knobs,), from what a file holds.

    Args:
        found: what `write` gave.
        counts: how many knobs each tensor has; at least one.
        dimensions: of each tensor.
        vouched: see `codec.decode`.

    Raises:
        SwitchError: they are not as `write` gives them.
    """
    if found.dtype == np.uint8:
        return _decoded(_codes(found, counts, dimensions, vouched))
    if found.size != sum(counts):
        raise SwitchError(f"the file has {found.size} knobs, but its tensors use {sum(counts)}")
    knobs = found.astype(np.float32)
    fewest = _held(knobs).dtype
    if fewest != found.dtype:
        raise SwitchError(f"the knobs are {found.dtype}, but {fewest} holds each of them exactly")
    return knobs


def _codes(
    found: NDArray[np.uint8], counts: Sequence[int], dimensions: Sequence[int], vouched: bool
) -> NDArray[np.uint8]:
    """The 8 bits of each knob."""
    vectors = _of_vectors(counts, dimensions)
    dense = int(vectors.sum())
    medians, low, coded = np.split(found, np.cumsum([len(counts), (_LOW * dense + 7) // 8]))
    if low.size < (_LOW * dense + 7) // 8:
        raise SwitchError(f"the knobs have {found.size} bytes, too few for {dense} weights of vectors")
    left = np.empty(vectors.size, np.int16)
    try:
        left[vectors], at = magnitudes.read(coded.data, 0, (dense,), 255 >> _LOW, vouched=vouched)
        left[~vectors], at = magnitudes.read(coded.data, at, (vectors.size - dense,), 255, vouched=vouched)
    except SwitchError as error:
        raise SwitchError(f"the knobs: {error}") from None
    if at != coded.size:
        raise SwitchError(
            f"the knobs have {found.size} bytes, but end in byte {found.size - coded.size + at}"
        )
    if not vouched and any(magnitudes.median(part) for part in _split(left, counts)):
        raise SwitchError("the knobs of a tensor have another median than the one that is written")
    upper = left + np.repeat(medians, counts)
    if ((upper < 0) | (upper > np.where(vectors, 255 >> _LOW, 255))).any():
        raise SwitchError("a knob is beyond what 8 bits hold")
    bits = np.unpackbits(low, bitorder="little")
    if bits[_LOW * dense :].any():
        raise SwitchError("padding bits are set after the lowest bits of the knobs")
    codes = upper.astype(np.uint8)
    pairs = np.packbits(bits[: _LOW * dense].reshape(dense, _LOW), axis=1, bitorder="little")
    codes[vectors] = codes[vectors] << _LOW | pairs[:, 0]
    return codes


def _of_vectors(counts: Sequence[int], dimensions: Sequence[int]) -> NDArray[np.bool_]:
    """Which knobs are those of tensors of one dimension."""
    return np.repeat(np.array(dimensions, np.int64) == 1, counts)


def _split(codes: NDArray[Any], counts: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Those of each tensor."""
    return (codes[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True))


def _held(knobs: NDArray[np.float32]) -> NDArray[Any]:
    """As uint8, float16 or float32, the first of these that holds each exactly."""
    if not np.isfinite(knobs).all():
        raise SwitchError("a knob is not finite")
    if (knobs > MAX_KNOB).any():
        raise SwitchError(f"a knob is {knobs.max()}; above {MAX_KNOB:g} it is no fine-tuning")
    codes = (knobs.view(np.uint32) >> _DROPPED).astype(np.int64) - _FIRST
    narrow = np.clip(codes, 0, 255).astype(np.uint8)
    if (_decoded(narrow) == knobs).all():
        return narrow
    return narrowest(knobs)


def narrowest(knobs: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.float16]:
    """The same values in fp16 if that holds each exactly, else as they are."""
    with np.errstate(over="ignore"):
        halves = knobs.astype(np.float16)
    return halves if (halves == knobs).all() else knobs


def _decoded(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    return ((codes.astype(np.uint32) + np.uint32(_FIRST)) << np.uint32(_DROPPED)).view(np.float32)
