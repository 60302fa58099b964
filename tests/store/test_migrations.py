"""A database of an earlier version, brought up to date with what is in it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from bitswitch_store.catalog import Catalog
from bitswitch_store.database import Database


def test_a_name_is_public_after_0002_if_all_its_versions_were(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.sqlite3'}"
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "bitswitch_store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        shown = {"all": [True, True], "part": [False, True], "none": [False], "gone": []}
        for name, flags in shown.items():
            connection.execute(text("INSERT INTO names VALUES ('acme', :name, 2)"), {"name": name})
            for version, public in enumerate(flags, 1):
                connection.execute(
                    text(
                        "INSERT INTO switches (tenant, name, version, digest, size, task, labels, metric,"
                        " base_digest, public, created) VALUES ('acme', :name, :version, 'sha256:0', 1, 't',"
                        " '[]', '{}', 'sha256:1', :public, '2026-01-02 03:04:05')"
                    ),
                    {"name": name, "version": version, "public": public},
                )
    engine.dispose()
    with closing(Database(url)) as database:
        catalog = Catalog(database)
        assert {(e.name, e.version) for e in catalog.visible("other")} == {("all", 1), ("all", 2)}
        assert len(catalog.list("acme")) == 5
