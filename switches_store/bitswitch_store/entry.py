"""One version of a switch under its name, as the catalog knows it; what a name may be, and who sees it.

Knows no SQL and no file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bitswitch_store.errors import InvalidName

RESERVED = ("auto", "base")
"""No switch's name, in any tenant: what ``model`` may say besides one."""

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a name, a tenant or an alias looks like."""


@dataclass(frozen=True)
class Entry:
    """One version of a switch, as the catalog knows it.

    Attributes:
        version: 1, 2, …; a number is never given twice under one name.
        digest: ``sha256:<hex>`` of its file.
        size: of its file, in bytes.
        labels: of its head, in the order of the outputs; () without a head.
        aliases: those that point to this version, sorted.
        public: whether every other tenant sees it, and all other versions of its name.
        created: when it was published, UTC.
    """

    tenant: str
    name: str
    version: int
    digest: str
    size: int
    task: str
    labels: tuple[str, ...]
    aliases: tuple[str, ...]
    public: bool
    metric: Mapping[str, float]
    base_digest: str
    created: datetime


@dataclass(frozen=True)
class Sharing:
    """Who besides its owner sees a name, all its versions.

    Attributes:
        public: everybody.
        tenants: these in any case, sorted.
    """

    public: bool = False
    tenants: tuple[str, ...] = ()


def check_name(name: str, what: str = "name") -> str:
    """The name itself, if it may be a switch's name, an alias (``what="alias"``) or a tenant's.

    Raises:
        InvalidName: it may not; the message gives the rule.
    """
    if not NAME.fullmatch(name):
        raise InvalidName(
            f"the {what} {name!r} is not allowed; it is 1 to 64 of a-z, 0-9, '.', '_' and '-',"
            " the first one a letter or a digit"
        )
    if what != "tenant" and name in RESERVED:
        raise InvalidName(f"the {what} {name!r} is reserved, as are {' and '.join(RESERVED)}; take another")
    if what == "alias" and name.isdigit():
        raise InvalidName(f"the alias {name!r} reads as a version number; give it at least one letter")
    return name
