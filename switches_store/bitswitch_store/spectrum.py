"""What every threshold would cost and gain on one matrix, without keeping the matrix.

Knows nothing of budgets or codes. A float32 magnitude is ordered as its bit pattern is, so patterns, as
integers, are what is counted and compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bitswitch_store.knobs import BITS

# Eight bits of exponent and nine of mantissa: a bin is about 0.2 % wide.
_SHIFT = 14
_BINS = 1 << (31 - _SHIFT)
_INFINITY = 0x7F800000 >> _SHIFT
_CHUNK = 1 << 20
# What the codes take above the entropy bound, and what a tensor's place in the index takes.
_CODE = 1.006
_INDEX_BITS = 8 * 40


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The thresholds that make a difference on one matrix, ascending; the last one keeps nothing.

    Attributes:
        thresholds: float32 (n,); a weight is active if its magnitude reaches the threshold.
        sizes: float64 (n,); about the bytes that the matrix then takes in a file.
        gains: float64 (n,); the inner product of τ with what is kept of it, reckoned with one knob for the
            whole matrix and τ's own norm: ``‖τ‖ · Σ|kept| / √active``. At that norm the squared error is
            ``2‖τ‖²`` less twice this.
    """

    thresholds: NDArray[np.float32]
    sizes: NDArray[np.float64]
    gains: NDArray[np.float64]

    @classmethod
    def of(cls, tau: NDArray[np.float32]) -> Self:
        """Count a matrix: float32 (rows, …), finite."""
        magnitudes = np.abs(tau).reshape(-1)
        patterns = magnitudes.view(np.uint32)
        count, total = np.zeros(_BINS, np.int64), np.zeros(_BINS)
        for start in range(0, patterns.size, _CHUNK):
            bins = (patterns[start : start + _CHUNK] >> _SHIFT).astype(np.intp)
            count += np.bincount(bins, minlength=_BINS)
            total += np.bincount(bins, magnitudes[start : start + _CHUNK], _BINS)
        count[0] -= patterns.size - np.count_nonzero(patterns)
        used = np.flatnonzero(count)
        # Weights at or above each bin's lower edge; a zero at the end, where nothing is kept.
        active = np.append(count[used][::-1].cumsum()[::-1], 0)
        reached = np.append(total[used][::-1].cumsum()[::-1], 0.0)
        # The lowest bin begins at the smallest magnitude that is not zero.
        edges = np.maximum(np.append(used, _INFINITY).astype(np.uint32) << np.uint32(_SHIFT), np.uint32(1))
        rows, width = tau.shape[0], tau.size // tau.shape[0]
        peaks = np.sort(patterns.reshape(rows, width).max(axis=1))
        touched = rows - np.searchsorted(peaks, edges)
        sizes = _sizes(active, touched, rows, width)
        norm = math.sqrt(float(np.square(magnitudes, dtype=np.float64).sum()))
        gains = norm * reached / np.sqrt(np.maximum(active, 1))
        return cls(edges.view(np.float32), sizes, gains)

    def best(self, price: float) -> int:
        """Which threshold gains the most after ``price`` is paid for every byte."""
        return int(np.argmax(self.gains - price * self.sizes))

    def within(self, size: float) -> int:
        """Which threshold gains the most in at most ``size`` bytes, 0 or more."""
        return int(np.argmax(np.where(self.sizes <= size, self.gains, -1.0)))


def _sizes(
    active: NDArray[np.int64], touched: NDArray[np.int64], rows: int, width: int
) -> NDArray[np.float64]:
    """Bytes of bits, knobs and index; rows without an active weight are left out where that is shorter."""
    everywhere = _entropy(active, np.full(active.shape, rows * width))
    listed = _entropy(active, touched * width) + _entropy(touched, np.full(touched.shape, rows))
    bits = _CODE * np.minimum(everywhere, listed) + active + BITS * touched + _INDEX_BITS
    sizes: NDArray[np.float64] = np.where(active > 0, bits / 8, 0.0)
    return sizes


def _entropy(count: NDArray[np.int64], numel: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bits that say which ``count`` of ``numel`` places are set."""
    d = count.astype(np.float64) / np.maximum(numel, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = -(d * np.log2(d) + (1 - d) * np.log2(1 - d))
    return np.nan_to_num(bits) * numel.astype(np.float64)
