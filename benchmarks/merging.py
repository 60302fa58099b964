"""The rivals' arithmetic: task vectors, each flat float32 (weights,), to one for all tasks, or to one each.

Written from the papers; knows nothing of models or of files. Trimming, election and rescaling go over all
weights of a model at once, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


def weight_average(vectors: Sequence[Vector]) -> Vector:
    """Weight averaging (Wortsman et al. 2022, *Model soups*): the mean of the fine-tunes less the base."""
    return total(vectors) / np.float32(len(vectors))


def total(vectors: Sequence[Vector]) -> Vector:
    """Task arithmetic (Ilharco et al. 2023), before it is scaled by λ: the sum."""
    found = np.zeros_like(vectors[0])
    for vector in vectors:
        found += vector
    return found


def trim(vector: Vector, keep: float) -> Vector:
    """The share ``keep`` of largest magnitude, ties with the smallest of them kept too; 0 elsewhere."""
    magnitude = np.abs(vector)
    place = len(vector) - int(len(vector) * keep)
    if place <= 0:
        return vector
    if place >= len(vector):
        return np.zeros_like(vector)
    return np.where(magnitude >= np.partition(magnitude, place)[place], vector, np.float32(0))


def ties(vectors: Sequence[Vector], keep: float = 0.2) -> Vector:
    """TIES (Yadav et al. 2023), before it is scaled by λ.

    Each vector is trimmed to its share ``keep``; a weight's sign is that of the sum; and its value the mean
    of those that have this sign and are not 0. Where the sum is 0 the authors' code takes the sign that
    most weights have.
    """
    trimmed = [trim(vector, keep) for vector in vectors]
    sign = np.sign(total(trimmed))
    sign[sign == 0] = np.sign(sign.sum())
    sums, counts = np.zeros_like(sign), np.zeros_like(sign)
    for vector in trimmed:
        agreeing = (vector * sign) > 0
        sums += np.where(agreeing, vector, np.float32(0))
        counts += agreeing
    return np.asarray(sums / np.maximum(counts, 1))


def elect(vectors: Sequence[Vector]) -> Vector:
    """EMR-merging (Huang et al. 2024), the vector that all tasks share; no hyperparameter.

    A weight's sign is that of the sum, its magnitude the largest that any task has with this sign.
    """
    sign = np.sign(total(vectors))
    elected = np.zeros_like(sign)
    for vector in vectors:
        np.maximum(elected, vector * sign, out=elected)
    return elected * sign


def rescaled(elected: Vector, vector: Vector) -> Vector:
    """EMR-merging, what stands for one task's vector: a mask and a rescaler on the elected one.

    The mask keeps the weights whose signs agree with the task's own; the rescaler gives what is kept the
    magnitude in sum that the task's own vector has.
    """
    kept = np.where(vector * elected > 0, elected, np.float32(0))
    norm = float(np.abs(kept).sum(dtype=np.float64))
    rescaler = float(np.abs(vector).sum(dtype=np.float64)) / norm if norm else 0.0
    return np.asarray(kept * np.float32(rescaler))
