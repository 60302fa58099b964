"""Fixtures of the store's tests: the databases and the places of blobs that they run over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

import postgres
import s3


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[URL]:
    """A PostgreSQL server's."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    try:
        with postgres.database() as url:
            yield url
    except postgres.NoPostgresError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """An S3 server's."""
    pytest.importorskip("obstore", reason="obstore is not installed")
    try:
        with s3.server() as address:
            yield address
    except s3.NoS3Error as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        return URL.create("sqlite", database=str(tmp_path / "catalog.sqlite3"))
    return postgres.schema(request.getfixturevalue("postgres_url"))


@pytest.fixture
def bucket_url(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in an S3 server, and the environment that says where that is."""
    for name, value in s3.environment(s3_address).items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.bucket(s3_address)}/some/prefix"
