"""``bitswitch keys`` as an operator types it: the key alone on standard output, faults as exit status 2."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from bitswitch.tenants.caller import Role
from bitswitch.tenants.key import read_secret
from bitswitch.tenants.key_ring import KeyRing
from bitswitch.tenants.keys import Keys
from bitswitch_store.database import Database, catalog_url


@pytest.fixture
def run(run, monkeypatch):
    """Run ``bitswitch keys …``, whatever the environment says."""
    for variable in ("BITSWITCH_KEY_SECRET", "BITSWITCH_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    return partial(run, "keys")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def made(run, store, *more):
    """A new key's text."""
    status, out, said = run("create", "--store", store, "--tenant", "acme", *more)
    assert status == 0
    assert re.fullmatch(r"bsw_[a-z2-7]{13}_[\w-]{43}\n", out)
    assert out.strip() not in said
    assert out.split("_")[1] in said
    return out.strip()


def admitted(store, text):
    with closing(Database(catalog_url(store))) as database:
        secret = read_secret(store)
        return Keys(ring=KeyRing(database, secret), secret=secret).admit(f"Bearer {text}")


def the_id(text):
    return text.split("_")[1]


@pytest.mark.parametrize("role", Role)
def test_a_key_opens_as_it_was_made(run, store, role):
    caller = admitted(store, made(run, store, "--role", role.value, "--note", "for the console"))
    assert (caller.tenant, caller.role, caller.expires) == ("acme", role, None)


@pytest.mark.parametrize(
    ("expires", "ends"),
    [
        ("30d", timedelta(days=30)),
        ("12h", timedelta(hours=12)),
        ("90m", timedelta(minutes=90)),
        ("2099-01-31", datetime(2099, 1, 31, tzinfo=UTC)),
        ("2099-01-31T12:00+02:00", datetime(2099, 1, 31, 10, tzinfo=UTC)),
        ("2099-01-31T12:00Z", datetime(2099, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_a_key_ends_after_a_span_or_at_a_date(run, store, expires, ends):
    before = datetime.now(UTC)
    found = admitted(store, made(run, store, "--expires", expires)).expires
    if isinstance(ends, timedelta):
        assert before + ends <= found <= datetime.now(UTC) + ends
    else:
        assert found == ends


def test_keys_are_listed_rotated_and_revoked(run, store):
    first = made(run, store, "--note", "ci", "--role", "publisher")
    status, second, _ = run("rotate", the_id(first), "--store", store, "--grace", "1h")
    second = second.strip()
    assert (status, admitted(store, second).role) == (0, Role.PUBLISHER)
    assert admitted(store, first).key == the_id(first)
    assert run("revoke", the_id(first), "--store", store)[:2] == (0, "")
    status, listed, _ = run("list", "--store", store)
    assert status == 0
    lines = {
        key: next(line for line in listed.splitlines() if the_id(key) in line) for key in (first, second)
    }
    assert "ended" in lines[first]
    assert "never" in lines[second]
    assert all(word in lines[second] for word in ("acme", "publisher", "ci"))
    for text in (first, second):
        assert text.split("_", 2)[2] not in listed
    assert "acme" not in run("list", "--store", store, "--tenant", "other")[1]


def test_servers_that_share_a_database_share_a_secret(run, store, monkeypatch, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.sqlite3'}"
    status, _, said = run("create", "--database-url", url, "--tenant", "acme")
    assert (status, "set BITSWITCH_KEY_SECRET" in said) == (2, True)
    monkeypatch.setenv("BITSWITCH_KEY_SECRET", "x" * 31)
    assert run("create", "--database-url", url, "--tenant", "acme")[0] == 2
    monkeypatch.setenv("BITSWITCH_KEY_SECRET", "x" * 32)
    status, out, _ = run("create", "--database-url", url, "--tenant", "acme")
    assert status == 0
    with closing(Database(url)) as database:
        secret = b"x" * 32
        keys = Keys(ring=KeyRing(database, secret), secret=secret)
        assert keys.admit(f"Bearer {out.strip()}").tenant == "acme"
    assert not store.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create", "--tenant", "No Tenant"], "the tenant 'No Tenant' is not allowed"),
        (["create", "--tenant", "acme", "--role", "king"], "'king' is not one of"),
        (["create", "--tenant", "acme", "--expires", "soon"], "'soon' is neither a time from now"),
        (["create", "--tenant", "acme", "--expires", "2001-01-01"], "would have expired"),
        (["create", "--tenant", "acme", "--expires", "0d"], "would have expired"),
        (["create", "--tenant", "acme", "--expires", "9999-12-31T23:59-12:00"], "nor a date"),
        (["create", "--tenant", "acme", "--note", "n" * 201], "201 characters"),
        (["create"], "--tenant"),
        (["revoke", "nosuch"], "no key 'nosuch'"),
        (["rotate", "nosuch"], "no key 'nosuch'"),
        (["rotate", "nosuch", "--grace", "long"], "'long' is no span of time"),
    ],
)
def test_what_is_wrong_is_told(run, store, arguments, told):
    made(run, store)
    status, out, said = run(*arguments, "--store", store)
    assert (status, out) == (2, "")
    assert told in " ".join(said.replace("│", " ").split())


def test_a_store_that_is_not_there_is_no_empty_one(run, store):
    for arguments in (["list"], ["revoke", "x"], ["rotate", "x"]):
        status, _, said = run(*arguments, "--store", store)
        assert (status, "there is no store" in " ".join(said.split())) == (2, True)
        assert not store.exists()
    assert "whose keys?" in run("list")[2]
