"""The tables of the store's database: what SQL knows of names, switches, owners, keys and what was done.

Knows the columns, not what the rows are for. `migrations` brings a database to these tables; a test holds
the two together.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator


class _Utc(TypeDecorator[datetime]):
    """A date and time in UTC, aware on both sides; SQLite alone would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

# One row. Whoever writes updates it first, so one transaction writes at a time on every database.
writer = Table(
    "writer",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("turn", BigInteger, nullable=False),
)
# A name outlives its versions, so that no version number ever means two things. Who sees it sees all of them.
names = Table(
    "names",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("last_version", Integer, nullable=False),
    Column("public", Boolean, nullable=False),
)
switches = Table(
    "switches",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(71), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("task", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("metric", JSON, nullable=False),
    Column("base_digest", String(71), nullable=False),
    Column("created", _Utc, nullable=False),
    ForeignKeyConstraint(["tenant", "name"], ["names.tenant", "names.name"]),
)
aliases = Table(
    "aliases",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    ForeignKeyConstraint(
        ["tenant", "name", "version"], ["switches.tenant", "switches.name", "switches.version"]
    ),
)
# Who a name is shared with, beside its owner; all its versions.
shares = Table(
    "shares",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("shared_with", String(64), primary_key=True, index=True),
    ForeignKeyConstraint(["tenant", "name"], ["names.tenant", "names.name"]),
)
# The id is the part of a key that may be shown; of the rest there is only a keyed hash.
keys = Table(
    "keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("tenant", String(64), nullable=False, index=True),
    Column("role", String(16), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("note", String(200), nullable=False),
    Column("created", _Utc, nullable=False),
    Column("expires", _Utc),
    Column("revoked", _Utc),
)
# What a tenant may have and use; null is the server's default, -1 no limit.
limits = Table(
    "limits",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrent_requests", BigInteger),
    Column("stored_bytes", BigInteger),
    Column("stored_switches", BigInteger),
    Column("batch_inputs", BigInteger),
    Column("input_tokens", BigInteger),
)
# Who did what. Never what was asked.
audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", _Utc, nullable=False, index=True),
    Column("tenant", String(64), nullable=False),
    Column("key", String(16)),
    Column("action", String(32), nullable=False),
    Column("target", String(256), nullable=False),
    Column("digest", String(71)),
    Column("request_id", String(128), nullable=False),
)
# What was answered: one row per day, caller and switch; ("", "base", 0) is the bare base, ("", "", 0) all.
usage = Table(
    "usage",
    metadata,
    Column("day", Date, primary_key=True),
    Column("tenant", String(64), primary_key=True),
    Column("owner", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("inputs", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
)
# Blobs that no version had any more at that time; collected some time later, if that is still so.
garbage = Table(
    "garbage",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("since", _Utc, nullable=False),
)
