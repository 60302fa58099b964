"""Texts to ask with: made of a fixed list of words, the same ones on every machine. Knows no tokenizer."""

from __future__ import annotations

import random

_WORDS = """
the of and to in is was for on that with as are be this have from by not or at but what all were when we
there can an your which their said if do will each about how up out them then she many some so these would
other into has more her two like him see time could no make than first been its who now people my made over
did down only way find use may water long little very after words called just where most know get through
back much before go good new write our used me man too any day same right look think also around another
came come work three word must because does part even place well such here take why things help put years
different away again off went old number great tell men say small every found still between name should
home big give air line set own under read last never us left end along while might next sound below saw
something thought both few those always looked show large often together asked house world going want
school important until form food keep children feet land side without boy once animals life enough took
four head above kind began almost live page got earth need far hand high year mother light country father
let night picture being study second book carry money question card account order flight ticket price doctor
"""


def texts(count: int, words: int | tuple[int, int], *, seed: int) -> list[str]:
    """Sentences of this many words, or of a uniform random number between two; a word is mostly one token."""
    chance = random.Random(seed)
    shortest, longest = (words, words) if isinstance(words, int) else words
    return [
        " ".join(chance.choices(_WORDS.split(), k=chance.randint(shortest, longest))) for _ in range(count)
    ]
