"""Keys: how they are made and kept, and what a header with one opens."""

from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from bitswitch.errors import (
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from bitswitch.tenants import keys as keys_module
from bitswitch.tenants.caller import Caller, Role
from bitswitch.tenants.key import hashed, key_id, new_key, read_secret
from bitswitch.tenants.key_ring import KeyRing
from bitswitch.tenants.keys import Keys
from bitswitch_store import audit
from bitswitch_store.database import Database, catalog_url
from bitswitch_store.errors import InvalidName, StoreUnavailable

SECRET = b"s" * 64


@pytest.fixture
def ring(tmp_path):
    with closing(Database(catalog_url(tmp_path))) as database:
        yield KeyRing(database, SECRET)


@pytest.fixture
def keys(ring):
    return Keys(ring=ring, secret=SECRET)


def made(ring, tenant="acme", role=Role.CALLER, **more):
    key, text = ring.create(tenant, role, **more)
    return key, f"Bearer {text}"


def test_without_a_key_everybody_is_the_default_tenant(keys):
    assert not keys.needed
    assert keys.admit(None) == keys.admit("Bearer whatever") == Keys().admit(None) == Caller()


@pytest.mark.parametrize("header", ["Bearer s3cret-key", "bearer s3cret-key", "Bearer  s3cret-key "])
def test_the_key_of_the_settings_opens(header):
    assert Keys("s3cret-key").admit(header) == Caller()


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (None, "no API key"),
        ("", "not 'Bearer"),
        ("Basic s3cret-key", "not 'Bearer"),
        ("s3cret-key", "not 'Bearer"),
        ("Bearer", "not one of this server's"),
        ("Bearer s3cret-kez", "not one of this server's"),
        ("Bearer s3cret-key2", "not one of this server's"),
        ("Bearer é\ud800", "not one of this server's"),
        (f"Bearer {new_key()[1]}", "not one of this server's"),
    ],
)
def test_nothing_else_does(ring, header, told):
    made(ring)
    for keys in (Keys("s3cret-key"), Keys("s3cret-key", ring=ring, secret=SECRET)):
        with pytest.raises(AuthenticationError, match=told):
            keys.admit(header)


@pytest.mark.parametrize("role", Role)
def test_a_key_stands_for_its_tenant_and_role(ring, keys, role):
    key, header = made(ring, role=role)
    keys.refresh()
    assert keys.admit(header) == Caller("acme", role, key.id, None)


def test_as_soon_as_there_was_a_key_one_is_needed(ring, keys):
    key, header = made(ring)
    keys.refresh()
    with pytest.raises(AuthenticationError):
        keys.admit(None)
    ring.revoke(key.id)
    keys.refresh()
    assert keys.needed
    for shown in (None, header):
        with pytest.raises(AuthenticationError):
            keys.admit(shown)


def test_the_secret_part_counts_and_not_the_id_alone(ring, keys):
    key, header = made(ring)
    keys.refresh()
    other = header[:-1] + ("A" if header[-1] != "A" else "B")
    assert key_id(other.removeprefix("Bearer ")) == key.id
    with pytest.raises(AuthenticationError):
        keys.admit(other)


def test_another_secret_of_the_server_opens_nothing(ring):
    _, header = made(ring)
    with pytest.raises(AuthenticationError):
        Keys(ring=ring, secret=b"t" * 64).admit(header)


def test_an_expired_key_opens_nothing(ring, keys):
    key, header = made(ring, expires=datetime.now(UTC) + timedelta(hours=1))
    keys.refresh()
    assert keys.admit(header).expires == key.expires
    keys._known = {key.id: key.__class__(**{**vars(key), "expires": datetime.now(UTC)})}
    with pytest.raises(AuthenticationError, match="has ended"):
        keys.admit(header)


def test_after_a_rotation_the_old_key_opens_for_its_grace_alone(ring, keys):
    key, old = made(ring, role=Role.PUBLISHER, note="ci")
    fresh, text = ring.rotate(key.id, grace=timedelta(hours=1))
    keys.refresh()
    assert keys.admit(old).key == key.id
    assert keys.admit(f"Bearer {text}") == Caller("acme", Role.PUBLISHER, fresh.id, None)
    assert fresh.note == "ci"
    last, _ = ring.rotate(fresh.id)
    keys.refresh()
    with pytest.raises(AuthenticationError):
        keys.admit(f"Bearer {text}")
    assert [key.id for key in ring.list("acme")] == [key.id, fresh.id, last.id]
    assert ring.list("other") == []


def test_keys_made_and_revoked_are_on_record(ring, tmp_path):
    key, text = ring.create("acme", Role.PUBLISHER)
    ring.revoke(key.id)
    with closing(Database(catalog_url(tmp_path))) as database:
        rows = audit.listed(database, "acme", after=0, limit=10)
    assert [(row.action, row.target.split(" ")[0]) for row in rows] == [
        ("key_made", key.id),
        ("key_revoked", key.id),
    ]
    assert text not in str(rows)


def test_what_cannot_be_made_or_ended_is_refused(ring):
    with pytest.raises(InvalidName, match="the tenant 'No' is not allowed"):
        ring.create("No", Role.CALLER)
    with pytest.raises(InvalidRequestError, match=r"expired at .* already"):
        ring.create("acme", Role.CALLER, expires=datetime.now(UTC))
    with pytest.raises(InvalidRequestError, match="201 characters"):
        ring.create("acme", Role.CALLER, note="n" * 201)
    with pytest.raises(NotFoundError, match="no key 'nosuch'"):
        ring.revoke("nosuch")
    key, _ = ring.create("acme", Role.CALLER)
    ring.revoke(key.id)
    for again in (ring.revoke, ring.rotate):
        with pytest.raises(ConflictError, match="has ended already"):
            again(key.id)
    assert len(ring.list()) == 1


def test_while_the_database_is_away_known_keys_open_for_a_while(ring, keys, monkeypatch):
    _, header = made(ring)
    keys.refresh()

    def away():
        raise StoreUnavailable("the database does not answer")

    monkeypatch.setattr(ring, "turn", away)
    with pytest.raises(StoreUnavailable):
        keys.refresh()
    assert keys.admit(header).tenant == "acme"
    monkeypatch.setattr(keys_module, "STALE_SECONDS", -1.0)
    with pytest.raises(UnavailableError, match="cannot check keys"):
        keys.admit(header)


def test_the_database_holds_no_key(ring, tmp_path):
    texts = [ring.create("acme", Role.CALLER)[1] for _ in range(3)]
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as database:
        held = "".join(database.iterdump())
    for text in texts:
        assert key_id(text) in held
        assert hashed(text, SECRET) in held
        assert text.split("_", 2)[2] not in held
        assert text[-20:] not in held


def test_keys_are_long_and_all_different():
    texts = {new_key()[1] for _ in range(1000)}
    assert len(texts) == len({key_id(text) for text in texts}) == 1000
    assert all(len(text) == 4 + 13 + 1 + 43 for text in texts)


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: read_secret(tmp_path / "store"), range(32)))
    assert len(found) == 1
    (file,) = (tmp_path / "store").iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("key.secret", 0o600)
    file.chmod(0o640)
    with pytest.raises(ValueError, match="can be read by others"):
        read_secret(tmp_path / "store")
    file.chmod(0o600)
    file.write_text("short")
    with pytest.raises(ValueError, match="does not hold the secret"):
        read_secret(tmp_path / "store")
