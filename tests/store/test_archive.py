from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import Place, damage
from small import BASE, OTHER_BASE, small_switch

from bitswitch_store import archive, collect, file
from bitswitch_store.archive import export
from bitswitch_store.errors import Conflict, CorruptBlob, InvalidName, StoreError
from bitswitch_store.restore import Restored, restore
from bitswitch_store.store import Store
from bitswitch_store.switch import SwitchError


def small(seed: int, **values: object) -> bytes:
    return file.write(small_switch(seed, **values))


@pytest.fixture
def filled(store: Store) -> Store:
    """Two tenants, a version that is gone, aliases, a share, bytes that two names have."""
    for seed in (1, 2, 3):
        store.put(small(seed), tenant="acme", name="a")
    store.set_alias("acme", "a", "prod", 2)
    store.delete("acme", "a", 3)
    store.put(small(1), tenant="other", name="b", public=True)
    with store.database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO shares VALUES ('acme', 'a', 'friend')")
    return store


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    with Place(tmp_path / "empty").opened() as store:
        yield store


def rows(store: Store, table: str) -> list[tuple[object, ...]]:
    with store.database.reading() as connection:
        return sorted(tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table}"))


def test_an_empty_store_becomes_the_same_one(filled: Store, empty: Store, tmp_path: Path):
    manifest = export(filled, tmp_path / "all.tar")
    assert len(manifest.digests) == 2
    assert restore(empty, tmp_path / "all.tar") == Restored(new=3, known=0)
    for tenant in ("acme", "other"):
        assert empty.list(tenant) == filled.list(tenant)
        for entry in empty.list(tenant):
            assert empty.blobs.raw(entry.digest) == filled.blobs.raw(entry.digest)
    for table in ("names", "shares", "aliases"):
        assert rows(empty, table) == rows(filled, table)
    assert empty.put(small(4), tenant="acme", name="a").version == 4  # 3 was given once
    assert empty.orphans() == set()


def test_importing_again_changes_nothing(filled: Store, empty: Store, tmp_path: Path):
    export(filled, tmp_path / "all.tar")
    restore(empty, tmp_path / "all.tar")
    before = [rows(empty, table) for table in ("names", "switches", "aliases", "shares")]
    assert restore(empty, tmp_path / "all.tar") == Restored(new=0, known=3)
    assert [rows(empty, table) for table in ("names", "switches", "aliases", "shares")] == before


def test_what_was_deleted_since_comes_back(filled: Store, tmp_path: Path):
    export(filled, tmp_path / "all.tar")
    filled.delete("acme", "a", force=True)
    assert collect.waiting(filled.database) == 2
    assert restore(filled, tmp_path / "all.tar") == Restored(new=2, known=1)
    assert filled.find("acme", "a", "prod").version == 2
    assert collect.waiting(filled.database) == 1  # version 3's, which was gone before


def test_contradictions_are_refused_by_name_and_nothing_comes(filled: Store, empty: Store, tmp_path: Path):
    export(filled, tmp_path / "all.tar")
    empty.put(small(9), tenant="acme", name="a")
    empty.put(small(2), tenant="acme", name="a")
    empty.set_alias("acme", "a", "prod", 1)
    with pytest.raises(
        Conflict, match=r"acme/a@1 is .* here and .* there; acme/a@prod is version 1 here and 2"
    ):
        restore(empty, tmp_path / "all.tar")
    assert empty.list("other") == []
    assert empty.orphans() == set()


def test_sharing_that_is_here_is_left_as_it_is(filled: Store, empty: Store, tmp_path: Path):
    export(filled, tmp_path / "all.tar")
    empty.put(small(1), tenant="acme", name="a")
    restore(empty, tmp_path / "all.tar")
    assert rows(empty, "shares") == []


def test_an_export_is_not_written_over_another_and_leaves_no_part(filled: Store, tmp_path: Path):
    target = tmp_path / "out" / "all.tar"
    target.parent.mkdir()
    target.write_text("precious")
    with pytest.raises(StoreError, match="is there already"):
        export(filled, target)
    assert target.read_text() == "precious"
    target.unlink()
    damage(filled.blobs, filled.list("acme")[0].digest, b"goof")
    with pytest.raises(CorruptBlob):
        export(filled, target)
    assert list(target.parent.iterdir()) == []


def test_another_base_is_refused(tmp_path: Path, empty: Store):
    with Place(tmp_path / "foreign").opened(base=None) as foreign:
        foreign.put(small(1, base=OTHER_BASE), tenant="acme")
        export(foreign, tmp_path / "all.tar")
    with pytest.raises(SwitchError, match=BASE.digest):
        restore(empty, tmp_path / "all.tar")
    assert empty.list("acme") == []


Change = Callable[[dict[str, bytes]], None]


def without_a_file(members: dict[str, bytes]) -> None:
    members.popitem()


def with_a_changed_file(members: dict[str, bytes]) -> None:
    names = [name for name in members if name != archive.MANIFEST]
    members[names[0]] = members[names[1]]


def without_a_manifest(members: dict[str, bytes]) -> None:
    del members[archive.MANIFEST]


def said(change: Callable[[dict[str, object]], None]) -> Change:
    def to(members: dict[str, bytes]) -> None:
        manifest = json.loads(members[archive.MANIFEST])
        change(manifest)
        members[archive.MANIFEST] = json.dumps(manifest).encode()

    return to


@pytest.mark.parametrize(
    ("change", "refusal", "told"),
    [
        (without_a_file, StoreError, "lacks 1 files, such as sha256:"),
        (with_a_changed_file, StoreError, "has other bytes, or no version"),
        (without_a_manifest, StoreError, "does not begin with manifest.json"),
        (
            said(lambda m: m.update(format="bitswitch-store/2")),
            StoreError,
            "no archive that this version reads",
        ),
        (said(lambda m: m.update(extra=1)), StoreError, "extra"),
        (said(lambda m: m["names"][0].update(tenant="../x")), InvalidName, "tenant"),
        (said(lambda m: m["names"][0].update(name="base")), InvalidName, "reserved"),
        (said(lambda m: m["names"][0]["versions"][0].update(aliases=["7"])), InvalidName, "version number"),
        (said(lambda m: m["names"][0]["versions"][0].update(version=0)), StoreError, "versions.0.version"),
        (said(lambda m: m["names"][0]["versions"][0].update(version=2)), StoreError, "says two things"),
        (said(lambda m: m["names"].append(m["names"][0])), StoreError, "says two things"),
    ],
)
def test_a_bad_archive_brings_nothing(
    filled: Store, empty: Store, tmp_path: Path, change: Change, refusal: type[Exception], told: str
):
    export(filled, tmp_path / "all.tar")
    with tarfile.open(tmp_path / "all.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    change(members)
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    with pytest.raises(refusal, match=told):
        restore(empty, tmp_path / "bad.tar")
    assert rows(empty, "names") == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_an_archive_that_is_cut_off_brings_nothing(filled: Store, empty: Store, tmp_path: Path, share: float):
    export(filled, tmp_path / "all.tar")
    data = (tmp_path / "all.tar").read_bytes()
    last = data.rstrip(b"\0")
    (tmp_path / "cut.tar").write_bytes(last[: int(len(last) * share)])
    with pytest.raises(StoreError, match=r"no archive of a store|lacks"):
        restore(empty, tmp_path / "cut.tar")
    assert rows(empty, "names") == []
