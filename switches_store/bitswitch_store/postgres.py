"""Connections to PostgreSQL that never wait for ever. Needs `psycopg`.

A server that is stopped, or behind a network that swallows packets, closes no connection and answers nothing;
libpq's own timeouts see connecting and unacknowledged bytes alone.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Engine, create_engine, event

CONNECT_SECONDS = 3
"""How long connecting to one address may take."""
ANSWER_SECONDS = 8
"""How long one statement may take, as the client sees it. Longer than a writer waits for its turn."""


class _Connection(psycopg.Connection[Any]):
    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, ANSWER_SECONDS)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()  # whatever came now would answer another question
            raise psycopg.OperationalError(f"no answer within {ANSWER_SECONDS} s") from error


def connecting(url: URL) -> Engine:
    """An engine whose connections are looked at before use and give up in time."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",  # so that a writer whose turn it is sees what the last one did
        pool_pre_ping=True,
        pool_timeout=ANSWER_SECONDS,
        max_overflow=20,
        connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "bitswitch"},
    )

    @event.listens_for(engine, "do_connect")
    def _connect(
        _dialect: object, _record: object, arguments: list[Any], named: dict[str, Any]
    ) -> psycopg.Connection[Any]:
        return _Connection.connect(*arguments, **named)

    return engine
