"""Fixtures of the store's tests: the databases and the places of blobs that they run over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from places import Place, needing
from sqlalchemy import URL

import postgres
import s3
from bitswitch_store.store import Store


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[URL]:
    """A PostgreSQL server's."""
    with needing("psycopg", postgres.NoPostgresError), postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """An S3 server's."""
    with needing("obstore", s3.NoS3Error), s3.server() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """An empty database, once of each kind."""
    return _database(request, request.param, tmp_path)


def _database(request: pytest.FixtureRequest, kind: str, folder: Path) -> URL:
    if kind == "sqlite":
        return URL.create("sqlite", database=str(folder / "catalog.sqlite3"))
    return postgres.schema(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["sqlite, directory", "postgresql, directory", "postgresql, s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where an empty store may be, once for each database, and once with its blobs elsewhere."""
    database, blobs = request.param.split(", ")
    blobs_url = request.getfixturevalue("bucket_url") if blobs == "s3" else None
    return Place(tmp_path / "store", _database(request, database, tmp_path), blobs_url)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.opened() as store:
        yield store


@pytest.fixture
def bucket_url(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in an S3 server, and the environment that says where that is."""
    for name, value in s3.environment(s3_address).items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.bucket(s3_address)}/some/prefix"
