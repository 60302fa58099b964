"""Usage: counted in memory, added up in the database, and lost by nobody."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from bitswitch.tenants.usage import BASE, TOTAL, Ledger, Use, listed
from bitswitch_store.database import Database
from bitswitch_store.errors import StoreUnavailable

ALWAYS = {"since": date.min, "until": date.max}
TREC = ("acme", "trec6", 1)


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'db'}")
    yield database
    database.close()


def test_uses_add_up_over_flushes_and_ledgers(database):
    one, other = Ledger(database), Ledger(database)
    for ledger in (one, other, one):
        ledger.count("acme", [(TOTAL, Use(1, 2, 30, 0.5)), (TREC, Use(1, 2, 30, 0.5))])
        ledger.flush()
        ledger.flush()
    one.count("other", [(BASE, Use(1, 1, 1, 0.25))])
    one.flush()
    rows = listed(database, None, **ALWAYS)
    today = datetime.now(UTC).date()
    assert [(row.day, row.tenant, row.owner, row.name, row.version) for row in rows] == [
        (today, "acme", *TOTAL),
        (today, "acme", *TREC),
        (today, "other", *BASE),
    ]
    assert [(row.requests, row.inputs, row.tokens, row.seconds) for row in rows] == [
        (3, 6, 90, 1.5),
        (3, 6, 90, 1.5),
        (1, 1, 1, 0.25),
    ]


def test_rows_are_given_by_tenant_by_day_and_page_by_page(database):
    ledger = Ledger(database)
    for number in range(5):
        ledger.count("acme", [(("acme", f"s{number}", 1), Use(1, 1, 1, 0.0))])
    ledger.count("other", [(TREC, Use(1, 1, 1, 0.0))])
    ledger.flush()
    seen, after = [], None
    while page := listed(database, "acme", **ALWAYS, after=after, limit=2):
        seen += [row.name for row in page]
        after = page[-1].id
    assert seen == ["s0", "s1", "s2", "s3", "s4"]
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    assert listed(database, "acme", since=tomorrow, until=date.max) == []
    for wrong in ("x", "a/b/c/d/e", "2026-01-01/a/b/c/x"):
        with pytest.raises(ValueError):  # noqa: PT011 - the API says what is wrong
            listed(database, "acme", **ALWAYS, after=wrong)


def test_what_a_database_that_is_away_did_not_take_is_written_later(database, monkeypatch):
    ledger = Ledger(database)
    ledger.count("acme", [(TREC, Use(1, 1, 10, 0.5))])

    def away():
        raise StoreUnavailable("the database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(database, "writing", away)
        with pytest.raises(StoreUnavailable):
            ledger.flush()
        ledger.count("acme", [(TREC, Use(1, 1, 10, 0.5))])
    ledger.flush()
    (row,) = listed(database, "acme", **ALWAYS)
    assert (row.requests, row.tokens, row.seconds) == (2, 20, 1.0)
