"""The grammar of a request's ``model``. Knows no store: what it reads may name nothing at all.

::

    model = "base" | "auto" | term *( "+" term )
    term  = [ tenant "/" ] name [ "@" selector ] [ "*" weight ]

``selector`` is a version number or an alias. A term without a weight weighs 1. Weights are decimal
numbers of magnitude 10 at most, negative ones included (a switch can be subtracted). Blanks around
``+`` and ``*`` do not matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bitswitch.errors import InvalidModelError

BASE = "base"
AUTO = "auto"
MAX_TERMS = 32
MAX_WEIGHT = 10.0

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_WEIGHT = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e-[0-9]+)?")
_NAME_RULE = "is 1 to 64 of a-z, 0-9, '.', '_' and '-', and begins with a letter or a digit"


@dataclass(frozen=True)
class Term:
    """One switch of a mix, as written: ``tenant`` None is the caller's own."""

    name: str
    tenant: str | None = None
    selector: str | None = None
    weight: float = 1.0

    def __str__(self) -> str:
        owner = f"{self.tenant}/" if self.tenant else ""
        which = f"@{self.selector}" if self.selector else ""
        weight = f"*{self.weight!r}" if self.weight != 1.0 else ""
        return f"{owner}{self.name}{which}{weight}"


@dataclass(frozen=True)
class ModelRef:
    """A parsed ``model``: ``auto``, or a mix of ``terms``; no term is the bare base."""

    terms: tuple[Term, ...] = ()
    auto: bool = False

    def __str__(self) -> str:
        return AUTO if self.auto else "+".join(map(str, self.terms)) or BASE


def parse(text: str) -> ModelRef:
    """Read ``text``.

    Raises:
        InvalidModelError: it is not of the grammar; the message names the term and the fault.
    """
    stripped = text.strip()
    if not stripped:
        raise _fault("The model is empty; name a switch, a mix such as 'a*0.6+b*0.4', 'base' or 'auto'.")
    if stripped == BASE:
        return ModelRef()
    if stripped == AUTO:
        return ModelRef(auto=True)
    parts = stripped.split("+")
    if len(parts) > MAX_TERMS:
        raise _fault(f"The model mixes {len(parts)} switches; a mix has at most {MAX_TERMS}.")
    return ModelRef(tuple(_term(part.strip(), text) for part in parts))


def _term(part: str, text: str) -> Term:
    if not part:
        raise _fault(f"The model {_shown(text)} has nothing on one side of a '+'; write 'a*0.6+b*0.4'.")
    which, star, weight = part.partition("*")
    path, at, selector = which.strip().partition("@")
    tenant, slash, name = path.rpartition("/")
    if slash:
        _check_name("tenant", tenant, part)
    _check_name("name", name, part)
    if at:
        _check_name("version or alias", selector, part)
    if not slash and name in (BASE, AUTO):
        raise _fault(
            f"{name!r} in the model {_shown(text)} stands alone: it has no version, no weight and no mix"
            + (" (every mix is added to the base)." if name == BASE else ".")
        )
    return Term(name, tenant or None, selector or None, _weight(weight.strip(), part) if star else 1.0)


def _check_name(what: str, name: str, part: str) -> None:
    if not _NAME.fullmatch(name):
        raise _fault(
            f"The {what} {_shown(name)} in the model's term {_shown(part)} is no {what}: it {_NAME_RULE}."
        )


def _weight(text: str, part: str) -> float:
    if not _WEIGHT.fullmatch(text):
        raise _fault(
            f"The weight {_shown(text)} in the model's term {_shown(part)} is no number such as 0.6 or -1."
        )
    weight = float(text)
    if abs(weight) > MAX_WEIGHT:
        raise _fault(
            f"The weight in the model's term {_shown(part)} is {weight:g};"
            f" a weight is between {-MAX_WEIGHT:g} and {MAX_WEIGHT:g}."
        )
    return weight


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _fault(message: str) -> InvalidModelError:
    return InvalidModelError(message, param="model")
