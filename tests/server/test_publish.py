"""Publishing and withdrawing: store, router and engine agree afterwards, whatever went wrong."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from bitswitch.core import Mix
from bitswitch.errors import InvalidSwitchError
from bitswitch.publish import Publisher
from bitswitch.router import AutoSwitch
from bitswitch.selection import Routable
from bitswitch_store import file
from bitswitch_store.store import Conflict, CorruptBlob, InvalidName, NotStored
from bitswitch_store.switch import BaseIdentity, QuerySet, SwitchError
from running import House


@pytest.fixture
def parts(tiny_base, tmp_path):
    """Parts whose engine does not run: publishing needs none."""
    house = House.build(tiny_base, tmp_path / "store")
    yield house
    house.store.close()


def publish(house, data, name="mine", tenant="default"):
    return house.publisher.publish(data, tenant=tenant, name=name, public=False)


def test_what_is_published_is_routed_to_until_its_last_name_goes(parts, switch_files):
    data = switch_files["topic"].read_bytes()
    first, second = publish(parts, data, "one"), publish(parts, data, "two")
    assert first.digest == second.digest
    assert first.digest in parts.router
    parts.publisher.withdraw("default", "one", None, force=False)
    assert first.digest in parts.router
    parts.publisher.withdraw("default", "two", None, force=False)
    assert first.digest not in parts.router
    assert not parts.store.names(first.digest)
    assert parts.store.path(first.digest).is_file()  # for requests that resolved it before


def test_one_without_a_query_set_is_stored_and_not_routed_to(parts, switch_files):
    entry = publish(parts, switch_files["entail"].read_bytes())
    assert parts.store.find("default", "mine") == entry
    assert len(parts.router) == 0


def other_base(switch):
    return replace(switch, base=BaseIdentity("bert", "sha256:" + "1" * 64))


def other_recipe(switch):
    return replace(switch, queries=QuerySet(switch.queries.codes, "hidden:9|mean|l2"))


def other_width(switch):
    return replace(switch, queries=QuerySet.of(np.ones((3, 8)), switch.queries.recipe))


def other_name(switch):
    first, *rest = switch.tensors
    return replace(switch, tensors=(replace(first, name="a.tensor.of.no.base"), *rest))


@pytest.mark.parametrize("change", [other_base, other_recipe, other_width, other_name])
def test_what_does_not_fit_leaves_no_trace(parts, switch_files, change):
    publish(parts, switch_files["polarity"].read_bytes(), "before")
    data = file.write(change(file.read(switch_files["topic"])))
    with pytest.raises((SwitchError, InvalidSwitchError)):
        publish(parts, data)
    assert [entry.name for entry in parts.store.list("default")] == ["before"]
    assert len(parts.router) == 1
    assert parts.store.orphans() == set()


def test_a_name_that_is_refused_leaves_the_router_as_it_was(parts, switch_files):
    data = switch_files["topic"].read_bytes()
    with pytest.raises(InvalidName):
        publish(parts, data, "No Name")
    assert len(parts.router) == 0
    entry = publish(parts, data)
    with pytest.raises(InvalidName):
        publish(parts, data, "No Name")
    assert entry.digest in parts.router


def test_what_is_no_switch_is_refused(parts):
    with pytest.raises(SwitchError):
        publish(parts, b"not a switch")


def test_a_refused_deletion_changes_nothing(parts, switch_files):
    entry = publish(parts, switch_files["topic"].read_bytes())
    parts.store.set_alias("default", "mine", "prod", 1)
    with pytest.raises(Conflict):
        parts.publisher.withdraw("default", "mine", 1, force=False)
    with pytest.raises(NotStored):
        parts.publisher.withdraw("default", "other", None, force=False)
    assert entry.digest in parts.router
    parts.publisher.withdraw("default", "mine", 1, force=True)
    assert entry.digest not in parts.router


def test_a_server_that_starts_again_routes_to_what_is_stored(
    parts, switch_files, tiny_base, tmp_path, caplog
):
    topic = publish(parts, switch_files["topic"].read_bytes(), "topic")
    polarity = publish(parts, switch_files["polarity"].read_bytes(), "polarity")
    publish(parts, switch_files["entail"].read_bytes(), "entail")
    damaged = parts.store.path(polarity.digest)
    damaged.chmod(0o644)
    damaged.write_bytes(b"rotten")

    again = House.build(tiny_base, tmp_path / "store")
    assert again.publisher.resume() == 1
    assert topic.digest in again.router
    assert polarity.digest not in again.router
    assert "polarity@1 is not routed to" in caplog.text
    assert again.publisher.resume() == 1
    again.store.close()


def test_what_another_server_publishes_is_routed_to(parts, tiny_base, tmp_path, switch_files):
    """A new version is in sight everywhere at once; were it not routed to, its name would have no vote."""
    publish(parts, switch_files["topic"].read_bytes(), "mine")
    other = House.build(tiny_base, tmp_path / "store")
    assert other.publisher.resume() == 1

    def nearest(house):
        _, visible = Routable(house.store, base=house.base.identity.digest).of("default")
        inputs = house.store.queries(newer.digest).codes.vectors()[:1]
        (route,) = house.router.pick(inputs, visible, caller="default")
        return {one.digest for one in route.neighbours}

    newer = publish(parts, switch_files["polarity"].read_bytes(), "mine")
    without = publish(parts, switch_files["entail"].read_bytes(), "another")
    assert nearest(other) == nearest(parts) == {newer.digest}
    assert without.digest not in other.router
    other.store.close()


def test_a_start_opens_no_file_whose_query_set_the_router_kept(
    parts, switch_files, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    def started():
        kept = {"at_once": 0, "folder": tmp_path / "routes"}
        router = AutoSwitch(recipe=parts.router.recipe, k=5, fetch=parts.store.queries, **kept)
        publisher = Publisher(store=parts.store, engine=parts.engine, router=router)
        return router, publisher, publisher.resume()

    for name in ("topic", "polarity"):
        publish(parts, switch_files[name].read_bytes(), name)
    digests = [entry.digest for entry in parts.store.list("default")]
    inputs = parts.store.queries(digests[0]).codes.vectors()
    router, _, count = started()
    assert count == 2
    routes = router.pick(inputs, digests, caller="default")
    router.settle()
    router.close()
    monkeypatch.setattr(parts.store, "queries", lambda digest: pytest.fail(f"{digest} was opened"))
    router, publisher, count = started()
    assert count == 2
    assert router.pick(inputs, digests, caller="default") == routes
    publisher.withdraw("default", "polarity", None, force=False)
    router.close()
    router, _, count = started()  # what the files still hold of it counts for nothing
    assert count == 1
    (left,) = {entry.digest for entry in parts.store.list("default")}
    near = router.pick(inputs, [left], caller="default")
    assert {one.digest for route in near for one in route.neighbours} == {left}
    router.close()


def test_a_pin_that_comes_too_late_is_let_go(parts, switch_files):
    """Its bytes are kept for a while, so that it can be built; nobody has a name to unpin it by."""
    entry = publish(parts, switch_files["topic"].read_bytes())
    parts.publisher.withdraw("default", "mine", None, force=False)
    with pytest.raises(NotStored):
        parts.publisher.pin(entry)
    assert not parts.publisher.pinned(entry)
    assert parts.engine.state().pinned == ()


def test_withdrawing_frees_the_engine_s_memory(house, switch_files):
    data = file.write(replace(file.read(switch_files["topic"]), licence="of this test"))
    entry = publish(house, data, "shortlived")
    request = house.base.encode(["a"], want="embed")
    from bitswitch.core import Request, Want

    house.engine.submit(Request(Mix.of([(entry.digest, 1.0)]), Want.EMBED, request)).result(10)
    assert entry.digest in house.engine.state().resident
    house.publisher.withdraw("default", "shortlived", None, force=False)
    assert entry.digest not in house.engine.state().resident


def test_a_pin_is_its_owner_s_and_the_memory_everybody_s(parts, switch_files):
    data = switch_files["topic"].read_bytes()
    mine, same = publish(parts, data, "mine"), publish(parts, data, "again")
    theirs = publish(parts, data, "theirs", tenant="other")
    publisher, pinned = parts.publisher, lambda: parts.engine.state().pinned
    publisher.pin(mine)
    assert publisher.pinned(mine)
    assert publisher.pinned(same)
    assert not publisher.pinned(theirs)
    publisher.unpin(theirs)
    assert pinned() == (mine.digest,)
    publisher.pin(theirs)
    publisher.unpin(mine)
    assert not publisher.pinned(mine)
    assert pinned() == (mine.digest,)
    publisher.pin(mine)
    publisher.withdraw("other", "theirs", None, force=False)
    publisher.withdraw("default", "mine", None, force=False)
    assert publisher.pinned(same)
    publisher.withdraw("default", "again", None, force=False)
    assert not publisher.pinned(same)
    assert pinned() == ()
    assert parts.engine.state().resident == {}


def test_what_cannot_be_built_is_not_pinned(parts, switch_files):
    entry = publish(parts, switch_files["topic"].read_bytes())
    damaged = parts.store.path(entry.digest)
    damaged.chmod(0o644)
    damaged.write_bytes(b"rotten")
    with pytest.raises(CorruptBlob):
        parts.publisher.pin(entry)
    assert not parts.publisher.pinned(entry)
    assert parts.engine.state().pinned == ()


def test_what_is_withdrawn_while_it_is_pinned_is_gone(tiny_base, tmp_path, switch_files):
    gate = threading.Event()
    house = House.build(tiny_base, tmp_path / "store", gate=gate)
    entry = publish(house, switch_files["topic"].read_bytes())
    with ThreadPoolExecutor(1) as pool:
        pinning = pool.submit(house.publisher.pin, entry)
        while not house.publisher.pinned(entry):
            time.sleep(0.001)
        house.publisher.withdraw("default", "mine", None, force=False)
        gate.set()
        with pytest.raises(NotStored):
            pinning.result(10)
    assert house.engine.state().pinned == ()
    house.store.close()
