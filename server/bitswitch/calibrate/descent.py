"""The signs of one matrix by coordinate descent. Knows numbers alone: no model, no tensor name, no file."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def descend(
    signs: NDArray[np.int8],
    knobs: NDArray[np.float32],
    wanted: NDArray[np.float32],
    rest: NDArray[np.float32],
    covariance: NDArray[np.float32],
    prices: NDArray[np.float64],
    row_prices: NDArray[np.float64],
) -> int:
    """One sweep: each weight takes the sign, or none, that is best while all others stay as they are.

    A row ``s`` with knob ``k`` costs ``k²·s·H·s − 2k·s·c + price·active``, and ``row_price`` unless it is
    empty. A row that is worth less than it takes is emptied.

    Args:
        signs: s, (rows, columns), −1, 0 or +1; changed in place.
        knobs: k, (rows,), positive.
        wanted: c, (rows, columns): what ``k·s·H`` would be if nothing were lost.
        rest: ``c − k·s·H``, (rows, columns); kept so in place.
        covariance: H, (columns, columns), symmetric.
        prices: (rows,), of an active weight.
        row_prices: (rows,), of a row with any.

    Returns:
        how many weights changed.
    """
    rows, columns = signs.shape
    changes = 0
    for row in range(rows):
        knob, price = knobs[row], prices[row]
        for column in range(columns):
            old = signs[row, column]
            curve = knob * knob * covariance[column, column]
            slope = 2.0 * knob * rest[row, column]
            best, move = 0.0, 0
            for step in range(-1 - old, 2 - old):
                cost = curve * step * step - slope * step + price * (abs(old + step) - abs(old))
                if cost < best:
                    best, move = cost, step
            if move != 0:
                signs[row, column] = old + move
                rest[row] -= np.float32(knob * move) * covariance[column]
                changes += 1
        active, worth = 0, 0.0
        for column in range(columns):
            if signs[row, column] != 0:
                active += 1
                # 2k·s·c − k²·s·H·s, since k·s·H is what is wanted less the rest.
                worth += knob * signs[row, column] * (wanted[row, column] + rest[row, column])
        if active > 0 and worth < price * active + row_prices[row]:
            signs[row] = 0
            rest[row] = wanted[row]
            changes += active
    return changes
