"""More inputs from few: tokenized texts cut to a length, splices of them, and copies with other words.

A hundred texts hardly show each of many labels once, and few of a task's words; but a fine-tune answers to
any text: so the first half of one and the second half of another are one more, and so is a text with words
that the fine-tune has learned in the place of some of its own. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch.core import Row

MAX_TOKENS = 24_576
"""Tokens of all texts fitted to: the layers' answers to them are held in memory."""

SPLICES = 2
"""Splices for each text, if `MAX_TOKENS` allows it."""

REWORDINGS = 8
"""Copies of each text with other words, likewise."""

_CHANGED = 0.4
"""Share of the words that are others in such a copy."""

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


def enriched(
    rows: Sequence[Row], words: NDArray[np.floating[Any]], special: Collection[int], *, seed: int
) -> list[Row]:
    """The rows, their splices, and their copies with other words, of at most `MAX_TOKENS` if the rows are.

    Args:
        rows: as `cut` gives them.
        words: (vocabulary,): how often each token shall come for another, up to a factor; not all 0.
        special: tokens that no text is made of: they neither come nor go.
        seed: of the choices.
    """
    splices = _spliced(rows, min(SPLICES, len(rows) - 1, MAX_TOKENS // _tokens(rows) - 1))
    found = [*rows, *splices]
    left = MAX_TOKENS - _tokens(found)
    return [*found, *_reworded(rows, min(REWORDINGS, left // _tokens(rows)), words, special, seed)]


def _tokens(rows: Sequence[Row]) -> int:
    return sum(row.length for row in rows)


def _spliced(rows: Sequence[Row], turns: int) -> list[Row]:
    """Of each row its first half before the second half of some others."""
    count = len(rows)
    found = []
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


def _reworded(
    rows: Sequence[Row],
    turns: int,
    words: NDArray[np.floating[Any]],
    special: Collection[int],
    seed: int,
) -> list[Row]:
    chance = np.random.default_rng(seed)
    stays = np.zeros(len(words), bool)
    stays[list(special)] = True
    shares = np.where(stays, 0, words).astype(np.float64)
    shares /= shares.sum()
    found = []
    for _ in range(turns):
        for row in rows:
            ids = np.array(row.fields["input_ids"])
            changed = (chance.random(len(ids)) < _CHANGED) & ~stays[ids]
            ids[changed] = chance.choice(len(shares), changed.sum(), p=shares)
            found.append(Row({**row.fields, "input_ids": ids.tolist()}, truncated=False))
    return found
