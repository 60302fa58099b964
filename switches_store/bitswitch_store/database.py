"""The store's database: how it is opened, read and written. Catalog, keys, limits and the audit share one.

Knows no table but the one whose row is a writer's turn. SQLite and PostgreSQL; what needs the
driver of the latter is in `postgres`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select, update
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError

from bitswitch_store.errors import StoreError, StoreUnavailable
from bitswitch_store.tables import writer

_BUSY_SECONDS = 10
"""How long a writer waits for its turn; a turn takes milliseconds."""
_MIGRATING = 0x62697473  # any number of ours

_URLS = "give sqlite:///file or postgresql://user@host/database"
_OUR_FAULTS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
"""What the database says of a statement that should not have been sent. All else is its own trouble."""

TURN_SECONDS = 5
"""The same where it is the server that waits: sooner than a client gives it up."""

_alembic = threading.Lock()
"""Alembic keeps what it is at work on in a global."""


class Database:
    """One database; may be used from many threads, and opened by many processes.

    Args:
        url: ``sqlite:///…`` or ``postgresql://…``, as SQLAlchemy reads them; the tables are made or brought
            up to date.

    Raises:
        StoreError: it cannot be opened, or a newer bitswitch made its tables.
    """

    def __init__(self, url: str | URL) -> None:
        self._engine = open_database(url)
        self._writer = threading.Lock()

    def close(self) -> None:
        """Close the connections; the database is not used after that."""
        self._engine.dispose()

    def turn(self) -> int:
        """How many turns of writing there were; while it stays, so does all that was read after it.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        with self.reading() as connection:
            return int(connection.scalar(select(writer.c.turn)) or 0)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads; it needs no lock.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except NoConnectionError as error:
            raise StoreUnavailable("all connections to the database are in use; try again") from error
        except _OUR_FAULTS:
            raise
        except DBAPIError as error:
            raise StoreUnavailable(f"the database does not answer ({_said(error)}); try again") from error

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is alone in writing from its beginning to its end; all of it, or nothing.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        # First: who waits holds no connection, of which those who read would be left none.
        if not self._writer.acquire(timeout=TURN_SECONDS):
            raise StoreUnavailable(f"others have been writing for {TURN_SECONDS} s; try again")
        try:
            with self.reading() as connection:
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TURN_SECONDS}s'")
                connection.execute(update(writer).values(turn=writer.c.turn + 1))
                yield connection
        finally:
            self._writer.release()


def catalog_url(root: Path) -> URL:
    """Where the database of a store at ``root`` is, if nothing else was said."""
    return URL.create("sqlite", database=str(root / "catalog.sqlite3"))


def open_database(url: str | URL) -> Engine:
    """Connect, and bring the tables up to date in one transaction.

    Raises:
        StoreError: the database cannot be opened, or a newer bitswitch made its tables.
    """
    engine = _engine(url)
    shown = engine.url.render_as_string(hide_password=True)
    try:
        with engine.connect().execution_options(migrating=True) as connection, connection.begin():
            _migrate(connection)
    except DBAPIError as error:
        engine.dispose()
        raise StoreError(
            f"the catalog {shown} cannot be opened ({_said(error)});"
            " give the URL of a database that answers and that nothing else keeps locked"
        ) from error
    except CommandError as error:
        engine.dispose()
        raise StoreError(
            f"the tables of the catalog {shown} are not ones this version knows ({error});"
            " open it with the bitswitch that made them, or a newer one"
        ) from error
    return engine


def _engine(url: str | URL) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:  # which would show what may be a password
        raise StoreError(f"the catalog's URL cannot be read; {_URLS}") from None
    match parsed.get_backend_name():
        case "sqlite":
            if parsed.database in (None, "", ":memory:"):
                raise StoreError(f"the catalog cannot be kept in memory; {_URLS}")
            engine = create_engine(parsed, pool_timeout=_BUSY_SECONDS)
            _tune_sqlite(engine)
            return engine
        case "postgresql" | "postgres":
            try:
                from bitswitch_store.postgres import connecting  # noqa: PLC0415 - an extra
            except ImportError as error:
                raise StoreError(
                    "PostgreSQL needs the package psycopg; install bitswitch with the extra 'postgres'"
                ) from error
            return connecting(parsed)
        case other:
            raise StoreError(f"the catalog cannot be kept in {other}; {_URLS}")


def _said(error: DBAPIError) -> str:
    """In one line."""
    return " ".join(str(error.orig).split())


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # or two would make the same tables at once
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
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
