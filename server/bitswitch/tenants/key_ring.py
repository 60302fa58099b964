"""The keys in the database: made, listed, rotated, revoked. Any process may, while servers run.

Knows nothing of requests; a key's text leaves here once, when it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update

from bitswitch.errors import ConflictError, InvalidRequestError, NotFoundError
from bitswitch.tenants.caller import Role
from bitswitch.tenants.key import Key, hashed, new_key
from bitswitch_store import audit
from bitswitch_store.database import Database
from bitswitch_store.entry import check_name
from bitswitch_store.tables import keys

MAX_NOTE = 200


class KeyRing:
    """All keys of one database; thread-safe.

    Args:
        database: where they are.
        secret: what they are hashed with, see `key.read_secret`.
    """

    def __init__(self, database: Database, secret: bytes) -> None:
        self._database = database
        self._secret = secret

    def create(
        self, tenant: str, role: Role, *, expires: datetime | None = None, note: str = ""
    ) -> tuple[Key, str]:
        """A new key, and its text, which nobody can ask for again.

        Args:
            expires: when it ends; aware, UTC.

        Raises:
            InvalidName: of the tenant.
            InvalidRequestError: it would have ended already, or the note is too long.
        """
        with self._database.writing() as connection:
            return self._insert(connection, tenant, role, expires, note)

    def list(self, tenant: str | None = None) -> list[Key]:
        """All keys, ended ones too, or those of one tenant; by tenant and age."""
        wanted = select(keys).order_by(keys.c.tenant, keys.c.created, keys.c.id)
        if tenant is not None:
            wanted = wanted.filter_by(tenant=tenant)
        with self._database.reading() as connection:
            rows = connection.execute(wanted).mappings().all()
        return [_key(row) for row in rows]

    def turn(self) -> int:
        """See `Database.turn`: while it stays, so do the keys."""
        return self._database.turn()

    def rotate(self, name: str, *, grace: timedelta = timedelta()) -> tuple[Key, str]:
        """A new key like this one, which ends after ``grace``. Returns the new one and its text.

        Raises:
            NotFoundError, ConflictError: as `revoke`.
        """
        with self._database.writing() as connection:
            old = _live(connection, name)
            made = self._insert(connection, old.tenant, old.role, old.expires, old.note)
            _end(connection, old, grace)
            return made

    def revoke(self, name: str, *, grace: timedelta = timedelta()) -> Key:
        """Let a key end, after ``grace`` if any.

        Raises:
            NotFoundError: there is no key of this id.
            ConflictError: it has ended already.
        """
        with self._database.writing() as connection:
            return _end(connection, _live(connection, name), grace)

    def _insert(
        self, connection: Connection, tenant: str, role: Role, expires: datetime | None, note: str
    ) -> tuple[Key, str]:
        now = datetime.now(UTC)
        check_name(tenant, "tenant")
        if expires is not None and expires <= now:
            raise InvalidRequestError(f"The key would have expired at {expires:%Y-%m-%d %H:%M} UTC already.")
        if len(note) > MAX_NOTE:
            raise InvalidRequestError(f"The note has {len(note)} characters; at most {MAX_NOTE} are kept.")
        name, text = new_key()
        key = Key(name, tenant, role, hashed(text, self._secret), note, now, expires)
        connection.execute(insert(keys).values(vars(key)))
        audit.record(connection, audit.COMMAND_LINE, tenant, "key_made", f"{name} ({role})")
        return key, text


def _key(row: Mapping[Any, Any]) -> Key:
    return Key(**{**row, "role": Role(row["role"])})


def _live(connection: Connection, name: str) -> Key:
    row = connection.execute(select(keys).filter_by(id=name)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"There is no key {name[:40]!r}; 'bitswitch keys list' shows the ids.")
    key = _key(row)
    if key.ended(datetime.now(UTC)):
        raise ConflictError(f"The key {name!r} has ended already; make a new one.")
    return key


def _end(connection: Connection, key: Key, grace: timedelta) -> Key:
    ended = datetime.now(UTC) + grace
    if key.revoked is not None:  # with a grace that runs: a later one does not lengthen it
        ended = min(ended, key.revoked)
    connection.execute(update(keys).filter_by(id=key.id).values(revoked=ended))
    audit.record(connection, audit.COMMAND_LINE, key.tenant, "key_revoked", f"{key.id} from {ended:%F %T}")
    return replace(key, revoked=ended)
