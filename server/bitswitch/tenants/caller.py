"""Who calls: a tenant, as what, by which key. And where a server may listen that knows no key.

Knows nothing of how a key is checked; that is `keys`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

DEFAULT_TENANT = "default"


class Role(StrEnum):
    """What a caller may do; each may all that the ones before it may.

    ``caller`` asks for answers and sees what is its tenant's or shared with it; ``publisher`` also changes
    its tenant's switches; ``admin`` also operates the server, and sees what all tenants did.
    """

    CALLER = "caller"
    PUBLISHER = "publisher"
    ADMIN = "admin"

    def reaches(self, needed: Role) -> bool:
        """Whether this is ``needed`` or more."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Caller:
    """Whose request it is, and as what.

    Attributes:
        key: the id of the key that was shown; None where none was needed, or it was the one of the settings.
        expires: when that key ends, UTC; None for never.
    """

    tenant: str = DEFAULT_TENANT
    role: Role = Role.ADMIN
    key: str | None = None
    expires: datetime | None = None


def check_exposure(host: str, *, keyed: bool) -> None:
    """Whether a server may listen at ``host``.

    Args:
        keyed: whether callers have to show a key.

    Raises:
        ValueError: others than this machine could reach it, and it has no key.
    """
    if keyed or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False  # some name: who it reaches is not ours to guess
    if not loopback:
        raise ValueError(
            f"host {host} can be reached from other machines and there is no key; make one with"
            " 'bitswitch keys create --store DIR --tenant NAME --role admin', set BITSWITCH_API_KEY,"
            " or listen at 127.0.0.1"
        )
