"""Who used what: requests, inputs, tokens and seconds by day, tenant and switch.

Counted in memory as requests are answered, and added to the store's database by `Ledger.flush`; what was
counted since the last one is lost if the process is killed. Knows nothing of HTTP, nor of inputs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime

from sqlalchemy import Connection, insert, select, tuple_, update

from bitswitch_store.database import Database
from bitswitch_store.tables import usage

MAX_ROWS = 1000
"""Of one `listed`."""

BASE = ("", "base", 0)
"""Owner, name and version under which the bare base is counted."""
TOTAL = ("", "", 0)
"""And all of a tenant's day: each request once, however many switches took part."""

_KEY = (usage.c.day, usage.c.tenant, usage.c.owner, usage.c.name, usage.c.version)


@dataclass(frozen=True)
class Use:
    """What was used of one switch, or in all; ``seconds`` are those of forward passes."""

    requests: int
    inputs: int
    tokens: int
    seconds: float

    def __add__(self, other: Use) -> Use:
        return Use(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


Switch = tuple[str, str, int]
"""Owner, name and version."""
_Key = tuple[date, str, str, str, int]


@dataclass(frozen=True)
class Row:
    """One row of the table: a tenant's use of one switch on one day, UTC."""

    day: date
    tenant: str
    owner: str
    name: str
    version: int
    requests: int
    inputs: int
    tokens: int
    seconds: float

    @property
    def id(self) -> str:
        """Names the row, and is what `listed` goes on after."""
        return f"{self.day}/{self.tenant}/{self.owner}/{self.name}/{self.version}"


class Ledger:
    """Counts uses; from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counted: dict[_Key, Use] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # whoever returns from `flush` finds all that was counted before

    def count(self, tenant: str, uses: Iterable[tuple[Switch, Use]]) -> None:
        """Add what one request used; touches no disk."""
        today = datetime.now(UTC).date()
        with self._lock:
            for switch, use in uses:
                key = (today, tenant, *switch)
                before = self._counted.get(key)
                self._counted[key] = use if before is None else before + use

    def flush(self) -> None:
        """Write what was counted since the last time.

        Raises:
            StoreUnavailable: the database does not answer; nothing is lost, the next flush writes it.
        """
        with self._turn:
            with self._lock:
                counted, self._counted = self._counted, {}
            if not counted:
                return
            try:
                with self._database.writing() as connection:
                    for key, use in counted.items():
                        _add(connection, key, use)
            except BaseException:
                with self._lock:
                    for key, use in counted.items():
                        later = self._counted.get(key)
                        self._counted[key] = use if later is None else use + later
                raise


def listed(
    database: Database,
    tenant: str | None,
    *,
    since: date,
    until: date,
    after: str | None = None,
    limit: int = MAX_ROWS,
) -> list[Row]:
    """Rows by day, tenant and switch.

    Args:
        tenant: whose; None is everybody's.
        since, until: the first day and the last.
        after: the id of the last row that was seen already.
        limit: rows at most.

    Raises:
        ValueError: ``after`` is no row's id.
    """
    rows = select(usage).where(usage.c.day >= since, usage.c.day <= until)
    if tenant is not None:
        rows = rows.where(usage.c.tenant == tenant)
    if after is not None:
        day, whose, owner, name, version = after.split("/")
        rows = rows.where(tuple_(*_KEY) > tuple_(date.fromisoformat(day), whose, owner, name, int(version)))
    with database.reading() as connection:
        found = connection.execute(rows.order_by(*_KEY).limit(min(limit, MAX_ROWS)))
        return [Row(**row) for row in found.mappings()]


def _add(connection: Connection, key: _Key, use: Use) -> None:
    """In a transaction that is alone in writing."""
    here = dict(zip(("day", "tenant", "owner", "name", "version"), key, strict=True))
    more = {
        "requests": usage.c.requests + use.requests,
        "inputs": usage.c.inputs + use.inputs,
        "tokens": usage.c.tokens + use.tokens,
        "seconds": usage.c.seconds + use.seconds,
    }
    if not connection.execute(update(usage).filter_by(**here).values(more)).rowcount:
        connection.execute(insert(usage).values(**here, **use.__dict__))
