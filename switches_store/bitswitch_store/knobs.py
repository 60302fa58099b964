"""Knobs as a file holds them: in 8 bits, 16 or 32, as few as hold them all exactly.

The 8 bits are 5 of exponent and 3 of mantissa, ``(1 + m / 8) · 2 ** (e - 21)``: from 4.8e-7 to 1,920, all of
which fp16 holds as well. A knob is positive and so needs no sign, and any in that range is within a sixteenth
of one of these. That is far below what leaving out most of a row's weights costs. Knows nothing of tensors or
files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch_store.switch import SwitchError

# No fine-tuning moves a weight this far; and below it, base + knob stays finite in fp16 (65504).
MAX_KNOB = 1e4

BITS = 8
"""Of a knob that `rounded` gives, in a file."""

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


def stored(knobs: NDArray[np.float32]) -> NDArray[Any]:
    """Knobs as a file holds them: uint8, float16 or float32, the first of these that holds each exactly.

    Raises:
        SwitchError: one is not finite, or above `MAX_KNOB`.
    """
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


def read(found: NDArray[Any]) -> NDArray[np.float32]:
    """Knobs, float32, from what a file holds.

    Raises:
        SwitchError: they are not as `stored` gives them.
    """
    knobs = _decoded(found) if found.dtype == np.uint8 else found.astype(np.float32)
    fewest = stored(knobs).dtype
    if fewest != found.dtype:
        raise SwitchError(f"the knobs are {found.dtype}, but {fewest} holds each of them exactly")
    return knobs


def _decoded(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    return ((codes.astype(np.uint32) + np.uint32(_FIRST)) << np.uint32(_DROPPED)).view(np.float32)
