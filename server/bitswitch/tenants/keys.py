"""The door's keys: which caller stands behind an ``Authorization`` header.

The keys are those of the last `Keys.refresh`, which a running server does every second: no request waits for
a query. Knows nothing of HTTP beyond that header.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from bitswitch.errors import AuthenticationError, UnavailableError
from bitswitch.tenants.caller import Caller
from bitswitch.tenants.key import Key, hashed, key_id
from bitswitch.tenants.key_ring import KeyRing

STALE_SECONDS = 300.0
"""How long keys go on opening while the database cannot be asked whether they still do."""

_NOBODY = "0" * 64
"""The hash of no key: an unknown id is compared like any other, and takes as long."""


class Keys:
    """The keys that open a server. Admits from any thread.

    Args:
        key: a key of the settings; it opens as the default tenant's admin.
        ring: the keys of the database; None where there are none to ask for.
        secret: what they are hashed with.
    """

    def __init__(self, key: str | None = None, *, ring: KeyRing | None = None, secret: bytes = b"") -> None:
        self._ring = ring
        self._secret = secret or secrets.token_bytes(32)
        self._key = None if key is None else hashed(key, self._secret)
        self._known: Mapping[str, Key] = {}
        self._turn = -1
        self._read = time.monotonic()
        if ring is not None:
            self.refresh()

    @property
    def needed(self) -> bool:
        """Whether a caller has to show a key: as soon as one was ever made, even if it has ended."""
        return self._key is not None or bool(self._known)

    def refresh(self) -> None:
        """Ask the database which keys there are.

        Raises:
            StoreUnavailable: it does not answer.
        """
        if self._ring is None:
            return
        now, turn = time.monotonic(), self._ring.turn()
        if turn != self._turn:  # what is read after it is as new at least
            self._known = {key.id: key for key in self._ring.list()}
        self._turn, self._read = turn, now

    def admit(self, authorization: str | None) -> Caller:
        """The caller behind an ``Authorization`` header.

        Raises:
            AuthenticationError: there is none, it is no ``Bearer`` one, or the key opens nothing.
            UnavailableError: whether it still opens has not been known for too long.
        """
        if not self.needed:
            return Caller()
        if authorization is None:
            raise AuthenticationError("There is no API key; send 'Authorization: Bearer <key>'.")
        scheme, _, shown = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationError("The Authorization header is not 'Bearer <key>'.")
        shown = shown.strip()
        # One hash and two comparisons, of equal lengths, whatever is shown.
        given, key = hashed(shown, self._secret), self._known.get(key_id(shown) or "")
        own = hmac.compare_digest(given, self._key or _NOBODY)
        same = hmac.compare_digest(given, key.hash if key else _NOBODY)
        if own:
            return Caller()
        if key is None or not same or key.ended(datetime.now(UTC)):
            raise AuthenticationError("The API key is not one of this server's, or has ended.")
        if time.monotonic() - self._read > STALE_SECONDS:
            raise UnavailableError(
                "The server cannot check keys at present; try again shortly.", retry_after=5.0
            )
        return Caller(key.tenant, key.role, key.id, key.expires)
