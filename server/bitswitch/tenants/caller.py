"""Who calls, and whether they may: the one place where a caller's tenant is decided.

One tenant and at most one key, for now. Knows nothing of HTTP beyond the text of one header.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass

from bitswitch.errors import AuthenticationError

DEFAULT_TENANT = "default"


@dataclass(frozen=True)
class Caller:
    """Whose request it is, and as what: ``admin`` may do everything.

    ``key`` is the id of the key that was shown, which may be told; None where none is needed.
    """

    tenant: str = DEFAULT_TENANT
    role: str = "admin"
    key: str | None = None


class Keys:
    """The keys that open this server.

    Args:
        key: the one key; None lets everybody in.
    """

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.encode()

    @property
    def needed(self) -> bool:
        """Whether a caller has to show a key."""
        return self._key is not None

    def admit(self, authorization: str | None) -> Caller:
        """The caller behind an ``Authorization`` header.

        Raises:
            AuthenticationError: there is none, it is no ``Bearer`` one, or the key is another.
        """
        if self._key is None:
            return Caller()
        if authorization is None:
            raise AuthenticationError("There is no API key; send 'Authorization: Bearer <key>'.")
        scheme, _, shown = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationError("The Authorization header is not 'Bearer <key>'.")
        # As bytes: a header may hold anything, and compare_digest takes text of ASCII alone.
        if not hmac.compare_digest(shown.strip().encode("utf-8", "surrogatepass"), self._key):
            raise AuthenticationError("The API key is not one of this server's.")
        return Caller()


def check_exposure(host: str, keys: Keys) -> None:
    """Whether a server may listen at ``host`` with these keys.

    Raises:
        ValueError: others than this machine could reach it, and it has no key.
    """
    if keys.needed or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False  # some name: who it reaches is not ours to guess
    if not loopback:
        raise ValueError(
            f"host {host} can be reached from other machines and no key is set;"
            " set BITSWITCH_API_KEY, or listen at 127.0.0.1"
        )
