"""The forward passes of a step: rows of like length together, each request's own answer from its rows.

Knows nothing of weights being changed or of who waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from bitswitch.base.features import features
from bitswitch.base.heads import ClassificationHead
from bitswitch.base.model import Base, Hidden
from bitswitch.core import Request, Row, Want
from bitswitch.errors import NotAClassifierError

Forward = Callable[[Sequence[Row], Sequence[int]], Hidden]
"""Runs the model over rows, given which of the requests each belongs to."""

Answer = NDArray[np.float32] | Exception
"""One request's answer, float32 (rows of the request, …), or why there is none."""


@dataclass(frozen=True)
class _Place:
    """Where a row's answer belongs."""

    request: int
    row: int


class Batch:
    """Requests to be computed together.

    Args:
        base: the resident model.
        requests: with rows each.
        heads: of each request, the head that answers if it is a classification's; None where there is none.
        forward: runs the model.
    """

    def __init__(
        self,
        base: Base,
        requests: Sequence[Request],
        heads: Sequence[ClassificationHead | None],
        forward: Forward,
    ) -> None:
        self._base = base
        self._requests = requests
        self._heads = heads
        self._forward = forward

    def run(self, *, tokens: float, rows: int, waste: float) -> Iterator[tuple[int, Answer]]:
        """The answers, each with its request's number, as soon as the last of its rows is computed.

        Args:
            tokens: padded tokens of one forward pass, at most; a longer row goes alone.
            rows: rows of one forward pass, at most.
            waste: padding, in tokens, for which another pass is the lesser evil.
        """
        answers: list[list[NDArray[np.float32] | None]] = [[None] * len(r.rows) for r in self._requests]
        left = [len(request.rows) for request in self._requests]
        failed: dict[int, Exception] = {}
        for places in self._passes(tokens, rows, waste):
            hidden = self._forward([self._row(p) for p in places], [p.request for p in places])
            stop = 0
            for _, group in groupby(places, key=self._reader):
                share = list(group)
                start, stop = stop, stop + len(share)
                values: list[NDArray[np.float32] | None]
                try:
                    values = list(self._read(share, hidden.rows(start, stop)).float().cpu().numpy())
                except Exception as error:  # noqa: BLE001 - a head that fails is its own requests' misfortune
                    failed |= dict.fromkeys((place.request for place in share), error)
                    values = [None] * len(share)
                for place, value in zip(share, values, strict=True):
                    answers[place.request][place.row] = value
            for number, count in Counter(place.request for place in places).items():
                left[number] -= count
                if not left[number]:
                    whole = [value for value in answers[number] if value is not None]
                    yield number, failed.get(number) or np.stack(whole)

    def _row(self, place: _Place) -> Row:
        return self._requests[place.request].rows[place.row]

    def _passes(self, tokens: float, rows: int, waste: float) -> Iterator[list[_Place]]:
        """Cut all rows, by length, into passes; within one, rows that are read alike stand together.

        Features are read halfway up: their rows are passes of their own.
        """
        places = [_Place(i, j) for i, request in enumerate(self._requests) for j in range(len(request.rows))]
        places.sort(key=lambda place: (self._halfway(place), self._row(place).length))
        current: list[_Place] = []
        filled = 0
        for place in places:
            length = self._row(place).length
            padded = length * (len(current) + 1)
            padding = padded - filled - length
            if current and (
                len(current) == rows
                or padded > tokens
                or padding > (waste if self._base.ragged else 0)
                or self._halfway(place) != self._halfway(current[0])
            ):
                yield sorted(current, key=self._reader)
                current, filled = [], 0
            current.append(place)
            filled += length
        if current:
            yield sorted(current, key=self._reader)

    def _halfway(self, place: _Place) -> bool:
        return self._requests[place.request].want is Want.FEATURES

    def _reader(self, place: _Place) -> tuple[Want, int]:
        """What reads a row's answer off the hidden states: equal for rows that can be read at once."""
        want = self._requests[place.request].want
        return want, id(self._heads[place.request]) if want is Want.CLASSIFY else 0

    def _read(self, places: Sequence[_Place], hidden: Hidden) -> torch.Tensor:
        number = places[0].request
        match self._requests[number].want:
            case Want.CLASSIFY:
                head = self._heads[number]
                if head is None:
                    raise NotAClassifierError("The switch has no classification head.", param="model")
                return head(hidden)
            case Want.EMBED:
                return self._base.embed(hidden)
            case Want.FEATURES:
                return features(self._base, hidden, [self._row(place) for place in places])
