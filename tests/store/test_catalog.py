from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Semaphore

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import URL, select
from sqlalchemy.exc import IntegrityError

from bitswitch_store.catalog import Catalog, Writing
from bitswitch_store.database import Database, open_database
from bitswitch_store.entry import Entry, Sharing, check_name
from bitswitch_store.errors import Conflict, InvalidName, NotStored, StoreError
from bitswitch_store.tables import garbage, metadata


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'catalog.sqlite3'}"


@pytest.fixture
def catalog(database_url: URL) -> Iterator[Catalog]:
    with closing(Database(database_url)) as database:
        yield Catalog(database)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def publish(catalog: Catalog, name: str, number: int, *, tenant: str = "acme", public: bool = False) -> Entry:
    with catalog.writing() as rows:
        return rows.publish(
            tenant=tenant,
            name=name,
            digest=digest(number),
            size=100 + number,
            task="trec6",
            labels=("no", "yés"),
            metric={"accuracy": 0.935},
            base_digest=digest(7),
            public=public,
        )


def remove(catalog: Catalog, name: str, version: int | None = None, *, force: bool = False) -> list[Entry]:
    with catalog.writing() as rows:
        return rows.delete("acme", name, version, force=force)


def point(catalog: Catalog, name: str, alias: str, version: int) -> Entry:
    with catalog.writing() as rows:
        return rows.set_alias("acme", name, alias, version)


def test_what_is_published_is_found_again_after_reopening(database_url: URL):
    before = datetime.now(UTC)
    with closing(Database(database_url)) as database:
        entry = publish(Catalog(database), "trec", 1, public=True)
    assert entry == Entry(
        tenant="acme",
        name="trec",
        version=1,
        digest=digest(1),
        size=101,
        task="trec6",
        labels=("no", "yés"),
        aliases=(),
        public=True,
        metric={"accuracy": 0.935},
        base_digest=digest(7),
        created=entry.created,
    )
    assert before <= entry.created <= datetime.now(UTC)
    with closing(Database(database_url)) as database:
        found = Catalog(database).find("acme", "trec")
        assert found == entry
        assert found.created.utcoffset() == UTC.utcoffset(None)


def test_versions_count_up_per_tenant_and_name(catalog: Catalog):
    assert [publish(catalog, "a", n).version for n in (1, 2, 3)] == [1, 2, 3]
    assert publish(catalog, "b", 1).version == 1
    assert publish(catalog, "a", 1, tenant="other").version == 1


def test_the_latest_again_creates_nothing(catalog: Catalog):
    first = publish(catalog, "a", 1)
    assert publish(catalog, "a", 1) == first
    publish(catalog, "a", 2)
    assert publish(catalog, "a", 1).version == 3
    assert [entry.version for entry in catalog.list("acme")] == [1, 2, 3]


def test_the_latest_again_can_become_public_but_not_private(catalog: Catalog):
    publish(catalog, "a", 1)
    assert publish(catalog, "a", 1, public=True).public
    assert catalog.find("acme", "a").public
    assert publish(catalog, "a", 1, public=False).public
    assert len(catalog.list("acme")) == 1


def test_a_version_number_is_never_given_twice(catalog: Catalog):
    for number in (1, 2):
        publish(catalog, "a", number)
    remove(catalog, "a", 2)
    assert publish(catalog, "a", 3).version == 3
    remove(catalog, "a")
    assert publish(catalog, "a", 3).version == 4


def test_find_by_version_alias_and_latest(catalog: Catalog):
    for number in (1, 2, 3):
        publish(catalog, "a", number)
    entry = point(catalog, "a", "stable", 2)
    assert entry.aliases == ("stable",)
    assert catalog.find("acme", "a").version == 3
    assert catalog.find("acme", "a", "1").version == 1
    assert catalog.find("acme", "a", "stable") == entry
    remove(catalog, "a", 3)
    assert catalog.find("acme", "a").version == 2


@pytest.mark.parametrize(
    "selector",
    ["4", "0", "-1", "01", "1.0", "9" * 5000, "", "none", "Stable", "a@b", "\ud800", "\0", "²", "١", "1\n"],
)
def test_a_selector_that_fits_nothing_finds_nothing(catalog: Catalog, selector: str):
    publish(catalog, "a", 1)
    point(catalog, "a", "stable", 1)
    assert catalog.find("acme", "a", selector) is None


@pytest.mark.parametrize("name", ["b", "", "A", "\ud800", "a\0", "' or 1=1 --"])
def test_a_name_nobody_has_finds_nothing(catalog: Catalog, name: str):
    publish(catalog, "a", 1)
    assert catalog.find("acme", name) is None
    with pytest.raises(NotStored):
        remove(catalog, name)


def test_one_tenant_does_not_find_anothers(catalog: Catalog):
    publish(catalog, "a", 1, public=True)
    assert catalog.find("other", "a") is None
    assert catalog.list("other") == []


def share(catalog: Catalog, name: str, sharing: Sharing, tenant: str = "acme") -> Sharing:
    with catalog.writing() as rows:
        return rows.share(tenant, name, sharing)


def test_visible_is_ones_own_and_what_is_public_or_shared(catalog: Catalog):
    publish(catalog, "mine", 1)
    publish(catalog, "theirs", 2, tenant="zeta")
    publish(catalog, "open", 3, tenant="zeta")
    publish(catalog, "open", 4, tenant="zeta", public=True)
    publish(catalog, "lent", 5, tenant="zeta")
    share(catalog, "lent", Sharing(tenants=("acme", "other")), "zeta")
    point(catalog, "mine", "b", 1)
    point(catalog, "mine", "a", 1)

    def seen(tenant: str) -> list[tuple[str, str, int, tuple[str, ...]]]:
        return [(e.tenant, e.name, e.version, e.aliases) for e in catalog.visible(tenant)]

    opened = [("zeta", "open", 1, ()), ("zeta", "open", 2, ())]
    lent = [("zeta", "lent", 1, ())]
    assert seen("acme") == [("acme", "mine", 1, ("a", "b")), *lent, *opened]
    assert seen("other") == [*lent, *opened]
    assert seen("zeta") == [*lent, *opened, ("zeta", "theirs", 1, ())]
    assert seen("nobody") == opened
    assert len(catalog.everything()) == 5


@pytest.mark.parametrize("selector", [None, "1", "prod"])
def test_it_is_found_by_those_who_may_see_it_alone(catalog: Catalog, selector: str | None):
    publish(catalog, "a", 1)
    point(catalog, "a", "prod", 1)
    assert catalog.find("acme", "a", selector, seen_by="acme").version == 1
    assert catalog.find("acme", "a", selector, seen_by="other") is None
    share(catalog, "a", Sharing(tenants=("other",)))
    assert catalog.find("acme", "a", selector, seen_by="other").version == 1
    assert catalog.find("acme", "a", selector, seen_by="third") is None
    share(catalog, "a", Sharing(public=True))
    assert catalog.find("acme", "a", selector, seen_by="third").version == 1


def test_of_one_base_the_latest_is_found(catalog: Catalog):
    publish(catalog, "a", 1)
    assert catalog.find("acme", "a", base=digest(7)).version == 1
    assert catalog.find("acme", "a", base=digest(8)) is None
    assert catalog.visible("acme", base=digest(8)) == []


def test_sharing_is_the_name_s_and_ends_with_it(catalog: Catalog):
    publish(catalog, "a", 1)
    assert catalog.sharing("acme", "a") == Sharing()
    assert catalog.sharing("acme", "b") is None
    given = share(catalog, "a", Sharing(public=True, tenants=("zeta", "acme", "beta", "zeta")))
    assert given == catalog.sharing("acme", "a") == Sharing(public=True, tenants=("beta", "zeta"))
    assert publish(catalog, "a", 2).public
    share(catalog, "a", Sharing())
    assert not catalog.find("acme", "a").public
    assert catalog.visible("beta") == []
    with pytest.raises(InvalidName, match="the tenant 'No' is not allowed"):
        share(catalog, "a", Sharing(tenants=("No",)))
    with pytest.raises(NotStored, match="no switch 'b'"):
        share(catalog, "b", Sharing())
    share(catalog, "a", Sharing(public=True, tenants=("beta",)))
    remove(catalog, "a")
    publish(catalog, "a", 3)
    assert catalog.sharing("acme", "a") == Sharing()


def test_an_alias_moves_and_goes(catalog: Catalog):
    for number in (1, 2):
        publish(catalog, "a", number)
    point(catalog, "a", "stable", 1)
    point(catalog, "a", "stable", 1)
    point(catalog, "a", "stable", 2)
    assert [entry.aliases for entry in catalog.list("acme")] == [(), ("stable",)]
    with catalog.writing() as rows:
        rows.delete_alias("acme", "a", "stable")
    assert catalog.find("acme", "a", "stable") is None
    for alias in ("stable", "2", "\ud800"):
        with pytest.raises(NotStored), catalog.writing() as rows:
            rows.delete_alias("acme", "a", alias)


def test_an_alias_points_to_a_version_that_is(catalog: Catalog):
    publish(catalog, "a", 1)
    with pytest.raises(NotStored, match="'acme' has no version 2 of 'a'"):
        point(catalog, "a", "stable", 2)
    with pytest.raises(NotStored):
        point(catalog, "b", "stable", 1)


def test_delete_is_refused_while_an_alias_points_there(catalog: Catalog):
    for number in (1, 2):
        publish(catalog, "a", number)
    point(catalog, "a", "stable", 1)
    point(catalog, "a", "old", 1)
    for version in (1, None):
        with pytest.raises(Conflict, match=r"of 'a' point there \(old → 1, stable → 1\); move or delete"):
            remove(catalog, "a", version)
    assert [entry.version for entry in catalog.list("acme")] == [1, 2]
    assert [entry.version for entry in remove(catalog, "a", 2)] == [2]
    assert [entry.version for entry in remove(catalog, "a", force=True)] == [1]
    assert catalog.list("acme") == []
    publish(catalog, "a", 9)
    assert catalog.find("acme", "a", "stable") is None


def test_delete_touches_only_what_it_names(catalog: Catalog):
    for name in ("a", "b"):
        for number in (1, 2):
            publish(catalog, name, number)
    publish(catalog, "a", 1, tenant="other")
    remove(catalog, "a", 1)
    remove(catalog, "b")
    assert [(e.name, e.version) for e in catalog.list("acme")] == [("a", 2)]
    assert len(catalog.list("other")) == 1
    for version in (1, 3, 0):
        with pytest.raises(NotStored):
            remove(catalog, "a", version)


def waiting(catalog: Catalog) -> set[str]:
    with catalog._database.reading() as connection:
        return set(connection.scalars(select(garbage.c.digest)))


def test_garbage_is_what_no_tenant_has_any_more(catalog: Catalog):
    publish(catalog, "a", 1)
    publish(catalog, "a", 2)
    publish(catalog, "b", 1)
    publish(catalog, "a", 1, tenant="other")
    assert (catalog.names(digest(1)), catalog.names(digest(3))) == (True, False)
    remove(catalog, "a")
    assert waiting(catalog) == {digest(2)}
    remove(catalog, "b")
    assert waiting(catalog) == {digest(2)}
    with catalog.writing() as rows:
        rows.delete("other", "a", None, force=False)
    assert waiting(catalog) == {digest(1), digest(2)}
    assert catalog.digests() == set()
    publish(catalog, "a", 2)
    remove(catalog, "a")
    publish(catalog, "c", 1)
    assert waiting(catalog) == {digest(2)}


@pytest.mark.parametrize("name", ["a", "0", "7b", "a.b_c-d", "x" * 64, "base2", "latest"])
def test_names_that_may_be(name: str):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "-a", ".a", "_a", "a b", "a/b", "a@1", "a*b", "a+b", "é", "x" * 65, "a\n"]
)
@pytest.mark.parametrize("what", ["name", "alias", "tenant"])
def test_names_that_may_not_be(name: str, what: str):
    with pytest.raises(InvalidName, match=f"the {what} .* is not allowed; it is 1 to 64 of a-z, 0-9"):
        check_name(name, what)


def test_reserved_names_and_aliases_that_read_as_versions(catalog: Catalog):
    for name in ("base", "auto"):
        for tenant in ("acme", "other"):
            with pytest.raises(InvalidName, match="is reserved, as are auto and base"):
                publish(catalog, name, 1, tenant=tenant)
    publish(catalog, "12", 1, tenant="base")
    publish(catalog, "a", 1)
    with pytest.raises(InvalidName, match="'12' reads as a version number"):
        point(catalog, "a", "12", 1)
    with pytest.raises(InvalidName, match="tenant"):
        publish(catalog, "a", 1, tenant="No Tenant")


def test_a_transaction_that_fails_leaves_nothing(catalog: Catalog):
    publish(catalog, "a", 1)

    def fail() -> None:
        with catalog.writing() as rows:
            rows.set_alias("acme", "a", "stable", 1)
            rows.delete("acme", "a", None, force=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [entry.aliases for entry in catalog.list("acme")] == [()]
    assert publish(catalog, "a", 2).version == 2


def test_the_database_itself_refuses_an_alias_to_nothing(catalog: Catalog):
    publish(catalog, "a", 1)
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"), catalog.writing() as rows:
        rows._connection.exec_driver_sql("INSERT INTO aliases VALUES ('acme', 'a', 'stable', 2)")


def test_eight_threads_publish_to_one_name(database_url: URL, catalog: Catalog):
    with closing(Database(database_url)) as second, ThreadPoolExecutor(8) as pool:
        catalogs = (catalog, Catalog(second))
        entries = list(pool.map(lambda n: publish(catalogs[n % 2], "a", n), range(1, 81)))
    assert sorted(entry.version for entry in entries) == list(range(1, 81))
    assert catalog.list("acme") == sorted(entries, key=lambda entry: entry.version)


def test_reading_waits_for_no_writer(catalog: Catalog):
    publish(catalog, "a", 1)
    with catalog.writing() as rows:
        rows.delete("acme", "a", None, force=False)
        assert catalog.find("acme", "a").version == 1
    assert catalog.find("acme", "a") is None


def test_who_waits_for_a_turn_keeps_no_connection_from_those_who_read(tmp_path: Path):
    with (
        closing(Database(url(tmp_path))) as database,
        closing(sqlite3.connect(tmp_path / "catalog.sqlite3", isolation_level=None)) as other,
        ThreadPoolExecutor(40) as pool,
    ):

        def write(begun: Semaphore) -> None:
            begun.release()
            with database.writing():
                pass

        other.execute("BEGIN IMMEDIATE")
        begun = Semaphore(0)
        waiting = [pool.submit(write, begun) for _ in range(40)]
        for _ in waiting:
            begun.acquire()
        assert database.turn() == 0
        assert not any(one.done() for one in waiting)
        other.execute("ROLLBACK")
        for one in waiting:
            one.result(30)
        assert database.turn() == len(waiting)


def test_the_migrations_make_the_tables_the_code_knows(database_url: URL):
    engine = open_database(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path):
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite3")) as database:
        database.execute("CREATE TABLE aliases (of_somebody_else TEXT)")
        with pytest.raises(StoreError, match=r"table aliases already exists"):
            Database(url(tmp_path))
        tables = database.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("aliases",)]


def test_sqlite_is_set_to_lose_nothing(tmp_path: Path):
    engine = open_database(url(tmp_path))
    with engine.connect() as connection:
        ask = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
               ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")}  # fmt: skip
    engine.dispose()
    assert ask == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_processes_that_open_a_new_catalog_at_once_all_do(database_url: URL):
    code = (
        "import sys; from bitswitch_store.database import Database; print('ready', flush=True);"
        " sys.stdin.read(1); Database(sys.argv[1]).close(); print('open')"
    )
    command = [sys.executable, "-c", code, database_url.render_as_string(hide_password=False)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["open\n"] * 4


def test_threads_that_open_catalogs_at_once_all_do(tmp_path: Path):
    folders = [tmp_path / str(number % 3) for number in range(9)]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(9) as pool:
        for database in pool.map(lambda folder: Database(url(folder)), folders):
            assert Catalog(database).list("acme") == []
            database.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "catalog.sqlite3").write_text("this is not a database, however long it may be" * 100)
    with pytest.raises(StoreError, match=r"cannot be opened .*not a database.*; give the URL of a database"):
        Database(url(tmp_path))


def test_tables_of_a_newer_version_are_refused(database_url: URL):
    with closing(Database(database_url)) as database, database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(
        StoreError, match=r"not ones this version knows .*9999.*; open it with the bitswitch that"
    ):
        Database(database_url)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("", "URL cannot be read; give sqlite:///file or postgresql://"),
        ("secret@host", "URL cannot be read"),
        ("mysql://user:secret@host/database", "cannot be kept in mysql; give"),
        ("sqlite://", "cannot be kept in memory"),
        ("postgresql://user:secret@127.0.0.1:1/none", r"user:\*\*\*@127.0.0.1:1/none cannot be opened"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_password(wrong: str, told: str):
    with pytest.raises(StoreError, match=told) as refused:
        Database(wrong)
    assert "secret" not in str(refused.value)


class Bookkeeping(RuleBasedStateMachine):
    """The catalog against a dictionary, each run under a tenant of its own."""

    tenants = count()
    names = st.sampled_from(["a", "b"])
    selectors = st.none() | st.integers(1, 6)
    aliases = st.sampled_from(["stable", "beta"])

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self.catalog = catalog
        self.tenant = f"t{next(self.tenants)}"
        self.versions: dict[str, dict[int, int]] = {"a": {}, "b": {}}
        self.last = {"a": 0, "b": 0}
        self.pointers: dict[tuple[str, str], int] = {}

    @rule(name=names, number=st.integers(1, 3))
    def publish(self, name: str, number: int) -> None:
        versions = self.versions[name]
        if not versions or versions[max(versions)] != number:
            self.last[name] += 1
            versions[self.last[name]] = number
        assert publish(self.catalog, name, number, tenant=self.tenant).version == max(versions)

    @rule(name=names, alias=aliases, version=st.integers(1, 6))
    def point(self, name: str, alias: str, version: int) -> None:
        with self.expecting(None if version in self.versions[name] else NotStored) as rows:
            rows.set_alias(self.tenant, name, alias, version)
        if version in self.versions[name]:
            self.pointers[name, alias] = version

    @rule(name=names, alias=aliases)
    def unpoint(self, name: str, alias: str) -> None:
        with self.expecting(None if (name, alias) in self.pointers else NotStored) as rows:
            rows.delete_alias(self.tenant, name, alias)
        self.pointers.pop((name, alias), None)

    @rule(name=names, version=selectors, force=st.booleans())
    def delete(self, name: str, version: int | None, force: bool) -> None:
        versions = self.versions[name]
        chosen = {v for v in versions if version in (None, v)}
        pointing = {key for key, target in self.pointers.items() if key[0] == name and target in chosen}
        refusal = NotStored if not chosen else Conflict if pointing and not force else None
        with self.expecting(refusal) as rows:
            rows.delete(self.tenant, name, version, force=force)
        if refusal is None:
            self.versions[name] = {v: n for v, n in versions.items() if v not in chosen}
            self.pointers = {key: v for key, v in self.pointers.items() if key not in pointing}

    @contextmanager
    def expecting(self, refusal: type[StoreError] | None) -> Iterator[Writing]:
        with pytest.raises(refusal) if refusal else nullcontext(), self.catalog.writing() as rows:
            yield rows

    @invariant()
    def lists_what_there_is(self) -> None:
        listed = [(e.name, e.version, e.digest, e.aliases) for e in self.catalog.list(self.tenant)]
        assert listed == [
            (
                name,
                version,
                digest(number),
                tuple(sorted(a for (n, a), v in self.pointers.items() if (n, v) == (name, version))),
            )
            for name, versions in sorted(self.versions.items())
            for version, number in sorted(versions.items())
        ]

    @invariant()
    def garbage_is_what_is_not_named(self) -> None:
        assert not waiting(self.catalog) & self.catalog.digests()

    @invariant()
    def finds_the_latest_and_the_aliases(self) -> None:
        for name, versions in self.versions.items():
            latest = self.catalog.find(self.tenant, name)
            assert (latest and latest.version) == max(versions, default=None)
        for (name, alias), version in self.pointers.items():
            assert self.catalog.find(self.tenant, name, alias).version == version


def test_any_sequence_of_changes_keeps_the_books(catalog: Catalog):
    run_state_machine_as_test(
        lambda: Bookkeeping(catalog),
        settings=settings(max_examples=15, stateful_step_count=15, deadline=None),
    )
