from __future__ import annotations

from datetime import timedelta

from places import age, damage
from small import small_switch

from bitswitch_store import checkup, collect, file
from bitswitch_store.checkup import Finding
from bitswitch_store.store import Store


def small(seed: int) -> bytes:
    return file.write(small_switch(seed))


def found(store: Store) -> dict[str, Finding]:
    return {finding.digest: finding for finding in checkup.check(store.database, store.blobs)}


def mended(store: Store, *, drop_broken: bool) -> list[str]:
    findings = found(store).values()
    return checkup.repair(store.database, store.blobs, findings, drop_broken=drop_broken)


def test_a_sound_store_has_no_findings(store: Store):
    store.put(small(1), tenant="acme")
    store.put(small(2), tenant="acme")
    store.delete("acme", "trec6", 1)
    assert found(store) == {}
    assert collect.waiting(store.database) == 1
    assert mended(store, drop_broken=True) == []


def test_each_way_to_be_broken_is_found_by_its_name(store: Store):
    lost, corrupt, unreadable = (store.put(small(n), tenant="acme", name=f"n{n}") for n in (1, 2, 3))
    also = store.put(small(1), tenant="other", name="same")
    sound = store.put(small(4), tenant="acme", name="n4")
    orphan = store.blobs.put(small(5))
    store.blobs.delete(lost.digest)
    damage(store.blobs, corrupt.digest, small(2)[:-1] + b"\1")
    with store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE switches SET size = 1 WHERE name = 'n3'")
    findings = found(store)
    assert {digest: one.what for digest, one in findings.items()} == {
        lost.digest: "lost",
        corrupt.digest: "corrupt",
        unreadable.digest: "unreadable",
        orphan: "orphan",
    }
    assert findings[lost.digest].entries == (lost, also)
    assert [one.broken for one in findings.values() if one.what == "orphan"] == [False]
    assert sound.digest not in findings


def test_a_file_that_is_no_switch_is_unreadable(store: Store):
    digest = store.blobs.put(b"no switch, but whole")
    entry = store.put(small(1), tenant="acme")
    with store.database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE switches SET digest = '{digest}'")
    findings = found(store)
    assert findings[digest].what == "unreadable"
    assert findings[entry.digest].what == "orphan"


def test_repair_keeps_what_is_broken_unless_told(store: Store):
    entry = store.put(small(1), tenant="acme")
    store.set_alias("acme", "trec6", "prod", 1)
    store.blobs.delete(entry.digest)
    assert mended(store, drop_broken=False) == []
    assert store.find("acme", "trec6", "prod").digest == entry.digest
    assert mended(store, drop_broken=True) == ["acme/trec6@1 and its aliases prod dropped: its file is gone"]
    assert store.list("acme") == []
    assert found(store) == {}


def test_publishing_again_mends(store: Store):
    entry = store.put(small(1), tenant="acme")
    before = list(found(store).values())
    damage(store.blobs, entry.digest, b"goof")
    broken = list(found(store).values())
    assert (before, [one.what for one in broken]) == ([], ["corrupt"])
    assert store.put(small(1), tenant="acme") == entry
    # Findings of before the mending drop nothing.
    assert checkup.repair(store.database, store.blobs, broken, drop_broken=True) == []
    assert store.list("acme") == [entry]


def test_orphans_are_noted_and_go_in_time(store: Store):
    orphan = store.blobs.put(small(1))
    assert len(mended(store, drop_broken=False)) == 1
    assert found(store) == {}
    assert store.collect() == []
    age(store, orphan, hours=2)
    assert store.collect(older_than=timedelta(hours=1)) == [orphan]
