"""The catalog's tables, and how a database that holds them is opened.

Knows the SQL, not what the rows are for. Nothing here is SQLite's alone but `_tune_sqlite`.
`migrations` brings a database to these tables; a test holds the two together.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from datetime import UTC, datetime

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Engine,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeDecorator

from bitswitch_store.errors import StoreError

_BUSY_SECONDS = 30
"""How long a writer waits for its turn; a turn takes milliseconds."""

_alembic = threading.Lock()
"""Alembic keeps what it is at work on in a global."""


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
# A name outlives its versions, so that no version number ever means two things.
names = Table(
    "names",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("last_version", Integer, nullable=False),
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
    Column("public", Boolean, nullable=False),
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


def open_database(url: str | URL) -> Engine:
    """Connect, and bring the tables up to date in one transaction.

    Args:
        url: any URL SQLAlchemy knows.

    Raises:
        StoreError: the database cannot be opened, or a newer bitswitch made its tables.
    """
    shown = make_url(url).render_as_string(hide_password=True)
    engine = create_engine(url)
    try:
        if engine.dialect.name == "sqlite":
            _tune_sqlite(engine)
        with engine.connect().execution_options(migrating=True) as connection, connection.begin():
            _migrate(connection)
    except DBAPIError as error:
        engine.dispose()
        raise StoreError(
            f"the catalog {shown} cannot be opened ({error.orig});"
            " give the URL of a database that nothing else keeps locked"
        ) from error
    except CommandError as error:
        engine.dispose()
        raise StoreError(
            f"the tables of the catalog {shown} are not ones this version knows ({error});"
            " open it with the bitswitch that made them, or a newer one"
        ) from error
    return engine


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "bitswitch_store:migrations")
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, "head")


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        # sqlite3 would begin transactions at some statements and not at others (DDL, SELECT).
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Migrating reads before it writes, and SQLite lets no reader become a writer behind another.
        migrating = connection.get_execution_options().get("migrating", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if migrating else "BEGIN")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log.

    Where several processes do so on a new file at once, SQLite tells all but one "locked" without waiting,
    whatever the busy timeout: the wait is here.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
