"""Pieces of a request: what is handed to the engine at a time, and what time they took together.

The engine cannot be called away from a request's rows; between two pieces others get their turn. What belongs
together it puts into one step all the same. Knows nothing of weights or of who asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bitswitch.core import Result, Row, Timing

TOKENS = 1024
"""Of a piece, at most: larger passes are hardly faster per token, and others would wait for all of them."""

MOST = 64
"""But no more pieces than about so many of one request: each takes a place in the queue."""


def cut(indices: Sequence[int], rows: Sequence[Row], *, most_rows: int) -> Iterator[list[int]]:
    """Cut some of a request's inputs into pieces.

    Args:
        indices: of the inputs; at least one.
        rows: all of the request's.
        most_rows: of a piece.
    """
    most_tokens = max(TOKENS, sum(row.length for row in rows) // MOST)
    piece: list[int] = []
    tokens = 0
    for index in indices:
        length = rows[index].length
        if piece and (len(piece) == most_rows or tokens + length > most_tokens):
            yield piece
            piece, tokens = [], 0
        piece.append(index)
        tokens += length
    yield piece


def together(results: Sequence[Result]) -> Timing:
    """The times of pieces that waited side by side, were computed in some steps, and waited in between."""
    steps: dict[int, Timing] = {}
    for result in results:
        last = steps.setdefault(result.step, result.timing)
        if result.timing.forward > last.forward:
            steps[result.step] = result.timing
    swap = sum(time.swap for time in steps.values())
    forward = sum(time.forward for time in steps.values())
    total = max(result.timing.total for result in results)
    return Timing(queue=max(total - swap - forward, 0.0), swap=swap, forward=forward)
