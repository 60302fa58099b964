"""How much a tenant may have stored, and how much it has. Knows nothing of who asks.

Bytes are those of all a tenant's versions: where two names hold the same file, it counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from bitswitch_store.errors import QuotaExceeded
from bitswitch_store.tables import switches


@dataclass(frozen=True)
class Room:
    """What a tenant may have; None is no limit.

    Attributes:
        bytes: of all its versions' files.
        switches: versions of all its names.
    """

    bytes: int | None = None
    switches: int | None = None


UNBOUNDED = Room()


def check(connection: Connection, tenant: str, room: Room, size: int) -> None:
    """Whether one more version of ``size`` bytes fits. The transaction that would write it has the last word.

    Raises:
        QuotaExceeded: it does not; the message says which limit, and what there is.
    """
    if room == UNBOUNDED:
        return
    count, total = connection.execute(
        select(func.count(), func.coalesce(func.sum(switches.c.size), 0)).where(switches.c.tenant == tenant)
    ).one()
    if room.switches is not None and count + 1 > room.switches:
        raise QuotaExceeded(
            f"stored switches: tenant {tenant!r} has {count} of {room.switches};"
            " delete a version, or ask for a higher limit"
        )
    if room.bytes is not None and int(total) + size > room.bytes:
        raise QuotaExceeded(
            f"stored bytes: tenant {tenant!r} has {total} of {room.bytes}, and this file has {size};"
            " delete a version, or ask for a higher limit"
        )
