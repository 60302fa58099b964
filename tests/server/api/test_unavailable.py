"""A database that fails is told as 503, with the time after which to ask again, and without its own words."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from running import House, serving


@pytest.mark.parametrize("path", ["/v1/switches", "/v1/models", "/v1/switches/any"])
def test_a_failing_database_is_503(tiny_base: Path, tmp_path: Path, path: str):
    house = House.build(tiny_base, tmp_path / "store")
    with closing(house.store), serving(house.app()) as address:
        with closing(sqlite3.connect(tmp_path / "store" / "catalog.sqlite3")) as database:
            database.execute("ALTER TABLE switches RENAME TO gone")
        answer = httpx.get(address + path)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "unavailable"
    assert "no such table" not in answer.text
