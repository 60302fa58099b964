"""The forward passes of a group: rows of like length together, each request's own answer from its rows.

Knows nothing of weights being changed or of who waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


@dataclass(frozen=True)
class _Place:
    """Where a row's answer belongs."""

    request: int
    row: int


class Batch:
    """Requests to be computed at the weights as they are.

    Args:
        base: the resident model.
        requests: of one mix.
        heads: by digest, those of the switches that the requests name as theirs; None where one has none.
    """

    def __init__(
        self, base: Base, requests: Sequence[Request], heads: Mapping[str, ClassificationHead | None]
    ) -> None:
        self._base = base
        self._requests = requests
        self._heads = heads

    def run(self, *, tokens: int, rows: int) -> list[NDArray[np.float32]]:
        """The answers, one float32 array (rows of the request, …) per request.

        Args:
            tokens: padded tokens of one forward pass, at most; a longer row goes alone.
            rows: rows of one forward pass, at most.
        """
        answers: list[list[NDArray[np.float32] | None]] = [[None] * len(r.rows) for r in self._requests]
        for places in self._passes(tokens, rows):
            hidden = self._base.forward([self._row(place) for place in places])
            stop = 0
            for number, share in groupby(places, key=lambda place: place.request):
                own = list(share)
                start, stop = stop, stop + len(own)
                values = self._answer(self._requests[number], hidden.rows(start, stop))
                for place, value in zip(own, values.float().numpy(), strict=True):
                    answers[number][place.row] = value
        return [np.stack([value for value in answer if value is not None]) for answer in answers]

    def _row(self, place: _Place) -> Row:
        return self._requests[place.request].rows[place.row]

    def _passes(self, tokens: int, rows: int) -> Iterator[list[_Place]]:
        """Cut all rows, by length, into passes; within one, rows of a request stand together."""
        places = [_Place(i, j) for i, request in enumerate(self._requests) for j in range(len(request.rows))]
        places.sort(key=lambda place: self._row(place).length)
        current: list[_Place] = []
        for place in places:
            padded = self._row(place).length * (len(current) + 1)
            if current and (len(current) == rows or padded > tokens):
                yield sorted(current, key=lambda p: p.request)
                current = []
            current.append(place)
        if current:
            yield sorted(current, key=lambda p: p.request)

    def _answer(self, request: Request, hidden: Hidden) -> torch.Tensor:
        match request.want:
            case Want.CLASSIFY:
                head = None if request.head is None else self._heads[request.head]
                if head is None:
                    raise NotAClassifierError("The switch has no classification head.", param="model")
                return head(hidden)
            case Want.EMBED:
                return self._base.embed(hidden)
            case Want.FEATURES:
                return features(self._base, hidden)
