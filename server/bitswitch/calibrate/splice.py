"""More inputs from few: tokenized texts cut to a length, and joined by splices of each other.

A hundred texts hardly show each of many labels once, but a fine-tune answers to any text: so the first half
of one and the second half of another are one more. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitswitch.core import Row

MAX_TOKENS = 8_192
"""Tokens of all texts fitted to: the layers' answers to them are held in memory."""

SPLICES = 4
"""Splices for each text, if `MAX_TOKENS` allows it."""

_USUAL = 0.95
"""Share of the texts that are read to their end, if `MAX_TOKENS` allows it."""


def cut(rows: Sequence[Row]) -> list[Row]:
    """Rows short enough for `MAX_TOKENS` and not much longer than most: all are padded to the longest.

    A long one loses tokens before its last one, which closes it.
    """
    usual = sorted(row.length for row in rows)[int(_USUAL * (len(rows) - 1))]
    longest = max(8, min(usual, MAX_TOKENS // len(rows)))
    return [
        row
        if row.length <= longest
        else Row({name: [*ids[: longest - 1], ids[-1]] for name, ids in row.fields.items()}, truncated=True)
        for row in rows
    ]


def spliced(rows: Sequence[Row]) -> list[Row]:
    """Rows, and after them their splices: each one's first half before the second half of some others."""
    count = len(rows)
    turns = min(SPLICES, count - 1, MAX_TOKENS // sum(row.length for row in rows) - 1)
    found = list(rows)
    for turn in range(1, turns + 1):
        # Far apart, and another partner each turn: a file's neighbours may be alike.
        step = max(1, turn * count // (turns + 1))
        for place, row in enumerate(rows):
            other = rows[(place + step) % count]
            fields = {
                name: [*ids[: row.length // 2], *other.fields[name][other.length // 2 :]]
                for name, ids in row.fields.items()
            }
            found.append(Row(fields, truncated=False))
    return found
