"""How an input is written, beside what it says: which kinds of characters follow each other, in one text
or in two.

Knows no model. A tokenizer that lowercases, as most small encoders' do, has thrown case away before the
base sees a text, and with it much of what tells one application's traffic from another's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_CHARS = 2000
"""Characters of a text that are looked at: its style does not change after that."""
_REMEMBERED = 4096
_KINDS = ("lower", "lower, not ASCII", "upper", "digit", "space", "stop", "quote", "question", "other", "end")
_END = len(_KINDS) - 1

PAIR = 0.5
"""The last value of a pair's style: a task of pairs is no single text's, whatever it says."""

DIM = len(_KINDS) ** 2 + 1
"""Values of a style vector: one per two kinds that follow each other, and `PAIR`."""


def _kind(character: str) -> int:
    if character.islower():
        return 0 if character.isascii() else 1
    if character.isupper():
        return 2
    if character.isdigit():
        return 3
    if character.isspace():
        return 4
    return next((kind for kind, some in ((5, ".,"), (6, "'\"`"), (7, "?!")) if character in some), 8)


class _Kinds(dict[int, str]):
    """For `str.translate`: a character's kind as a character; the first `_REMEMBERED` are not found again."""

    def __missing__(self, code: int) -> str:
        found = chr(_kind(chr(code)))
        if len(self) < _REMEMBERED:  # there are a million, and callers choose which are sent
            self[code] = found
        return found


_TABLE = _Kinds()


def style(texts: Sequence[str]) -> NDArray[np.float32]:
    """The square roots of the shares of the kinds of two neighbouring characters, ends included.

    Roots give rare ones some weight, and make the length 1 (the Hellinger kernel's map). Behind them `PAIR`
    for two texts, 0 for one.

    Args:
        texts: of one input: a text, or the two of a pair.

    Returns:
        float32 (`DIM`,), of length 1 but for the last.
    """
    counts = np.zeros(DIM - 1)
    for text in texts:
        kinds = np.frombuffer(text[:_MOST_CHARS].translate(_TABLE).encode("latin-1"), np.uint8)
        framed = np.concatenate([[_END], kinds, [_END]])
        counts += np.bincount(framed[:-1] * len(_KINDS) + framed[1:], minlength=len(counts))
    return np.append(np.sqrt(counts / counts.sum()), PAIR * (len(texts) > 1)).astype(np.float32)
