"""The database goes away while it is used, in each way it can. A server of its own: it is stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from places import needing

import postgres
from bitswitch_store.catalog import Catalog
from bitswitch_store.database import Database
from bitswitch_store.errors import StoreUnavailable


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    with needing("psycopg", postgres.NoPostgresError), postgres.server() as one:
        yield one


def test_a_server_that_is_stopped_is_said_to_be_and_found_again(server: postgres.Server):
    with closing(Database(server.url)) as database:
        catalog = Catalog(database)
        assert catalog.list("acme") == []
        server.stop()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                catalog.list("acme")
            with pytest.raises(StoreUnavailable, match="does not answer"), catalog.writing():
                pass
        server.start()
        assert catalog.list("acme") == []


def test_a_connection_that_is_cut_in_a_transaction_is_unavailable(server: postgres.Server):
    with closing(Database(server.url)) as database:

        def cut() -> None:
            with database.writing() as connection:
                server.stop()
                connection.exec_driver_sql("SELECT 1")

        with pytest.raises(StoreUnavailable, match="does not answer"):
            cut()
        server.start()
        with database.writing() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_a_server_that_answers_nothing_is_given_up(server: postgres.Server):
    """Stopped dead, its kernel still takes every packet: no timeout of TCP's sees that."""
    with closing(Database(server.url)) as database:
        catalog = Catalog(database)
        assert catalog.list("acme") == []
        server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match="does not answer"):
                catalog.list("acme")
        finally:
            server.signal(signal.SIGCONT)
        assert catalog.list("acme") == []


def test_a_turn_that_somebody_keeps_is_not_waited_for_for_ever(server: postgres.Server):
    held, done = threading.Event(), threading.Event()
    with closing(Database(server.url)) as database, closing(Database(server.url)) as other:

        def hold() -> None:
            with other.writing():
                held.set()
                done.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(60)
        with pytest.raises(StoreUnavailable, match="lock timeout"), database.writing():
            pass
        done.set()
        holder.join()
        with database.writing():
            pass
