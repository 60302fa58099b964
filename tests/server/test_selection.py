"""What a model means to a tenant, against a real store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bitswitch.core import Mix, Neighbour, Route
from bitswitch.errors import ModelNotFoundError
from bitswitch.model_ref import Term, parse
from bitswitch.selection import Routable, choice_of, find, latest, routable, select
from bitswitch_store import file
from bitswitch_store.store import Sharing, Store
from bitswitch_store.switch import BaseIdentity

OTHER = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def store(switch_files, tmp_path_factory):
    """``default``: a@1, a@2 (prod → 1), b@1; of another base: b@2, and elsewhere@1, public.
    ``acme``: a@1 and a@2 public, lent@1 shared with ``default``, hidden@1 its own.
    """
    store = Store(tmp_path_factory.mktemp("selection"), base=None)
    topic = switch_files["topic"].read_bytes()
    newer = file.write(replace(file.read(topic), licence="other"))
    polarity = switch_files["polarity"].read_bytes()
    store.put(topic, tenant="default", name="a")
    store.put(newer, tenant="default", name="a")
    store.set_alias("default", "a", "prod", 1)
    store.put(polarity, tenant="default", name="b")
    store.put(polarity, tenant="acme", name="a", public=True)
    store.put(newer, tenant="acme", name="a")
    store.set_alias("acme", "a", "prod", 2)
    store.set_alias("acme", "a", "shared", 1)
    store.put(topic, tenant="acme", name="hidden")
    store.put(topic, tenant="acme", name="lent")
    store.share("acme", "lent", Sharing(tenants=("default",)))
    elsewhere = replace(file.read(topic), base=BaseIdentity("bert", OTHER))
    store.put(file.write(elsewhere), tenant="default", name="b")
    store.put(file.write(elsewhere), tenant="default", name="elsewhere", public=True)
    yield store
    store.close()


@pytest.fixture(scope="module")
def base(switch_files):
    return file.read(switch_files["topic"]).base.digest


def model(store, base, text, tenant="default"):
    return select(store, tenant, parse(text), base=base).model


@pytest.mark.parametrize(
    ("text", "tenant", "resolved"),
    [
        ("base", "default", "base"),
        ("a", "default", "a@2"),
        ("a@1", "default", "a@1"),
        ("a@prod", "default", "a@1"),
        ("default/a@prod", "default", "a@1"),
        ("a*0.6+b*-0.4", "default", "a@2*0.6+b@1*-0.4"),
        ("b*0.4+a*0.6", "default", "b@1*0.4+a@2*0.6"),
        ("b+a*0", "default", "b@1"),
        ("a*1e-60", "default", "base"),
        ("a*0.25+a@2*0.25", "default", "a@2*0.5"),
        ("acme/a", "default", "acme/a@2"),
        ("acme/a@prod", "default", "acme/a@2"),
        ("acme/lent", "default", "acme/lent@1"),
        ("acme/a@1", "default", "acme/a@1"),
        ("acme/a@shared", "default", "acme/a@1"),
        ("a", "acme", "a@2"),
        ("hidden", "acme", "hidden@1"),
        ("acme/a@1*0.5+b*0.5", "default", "acme/a@1"),
    ],
)
def test_it_is_resolved_to_versions(store, base, text, tenant, resolved):
    assert model(store, base, text, tenant) == resolved
    assert model(store, base, resolved, tenant) == resolved


@pytest.mark.parametrize(
    ("text", "tenant", "told"),
    [
        ("c", "default", "'c'"),
        ("a@3", "default", "'a@3'"),
        ("a@nosuch", "default", "'a@nosuch'"),
        ("acme/a@3", "default", "'acme/a@3'"),
        ("acme/lent", "third", "'acme/lent'"),
        ("acme/hidden", "default", "'acme/hidden'"),
        ("nobody/a", "default", "'nobody/a'"),
        ("default/a", "acme", "'default/a'"),
        ("a+c*0.5", "default", "'c'"),
        ("b@2", "default", "'b@2'"),
        ("elsewhere", "default", "'elsewhere'"),
        ("elsewhere@1", "default", "'elsewhere@1'"),
        ("default/elsewhere", "acme", "'default/elsewhere'"),
    ],
)
def test_unknown_forbidden_and_of_another_base_are_the_same(store, base, text, tenant, told):
    with pytest.raises(ModelNotFoundError) as caught:
        select(store, tenant, parse(text), base=base)
    assert caught.value.message == f"The model {told} does not exist or you do not have access to it."


def test_of_another_base_it_can_still_be_found_to_be_kept(store):
    assert find(store, "default", Term("elsewhere")).base_digest == OTHER
    assert find(store, "acme", Term("elsewhere", "default")).version == 1


def test_the_heaviest_switch_has_the_head(store, base):
    selection = select(store, "default", parse("a*0.3+b*0.7"), base=base)
    assert (selection.head.name, selection.head.labels) == ("b", ("bad", "good"))
    assert selection.mix == Mix.of((part.digest, part.weight) for part in selection.parts)
    assert select(store, "default", parse("a*-1+b*0.1"), base=base).head.name == "b"
    assert select(store, "default", parse("base"), base=base).head is None


def test_auto_chooses_among_the_latest_versions_under_the_tenant_s_own_names(store, base):
    named = routable(store, "default", base=base)
    # acme's public one holds the bytes of our own a: one digest, our name
    assert sorted(part.ref for part in named.values()) == ["a@2", "acme/lent@1", "b@1"]
    assert sorted(part.ref for part in routable(store, "acme", base=base).values()) == ["a@2", "hidden@1"]
    assert sorted(part.ref for part in routable(store, "third", base=base).values()) == ["acme/a@2"]
    assert [entry.version for entry in latest(store.visible("default", base=base))] == [2, 1, 2, 1]


def test_what_auto_may_choose_from_is_asked_again_once_anything_changed(store, base, monkeypatch):
    remembered, asked = Routable(store, base=base), []
    real = store.visible
    monkeypatch.setattr(store, "visible", lambda *args, **values: asked.append(args) or real(*args, **values))
    before = remembered.of("default")
    assert all(again is first for again, first in zip(remembered.of("default"), before, strict=True))
    assert remembered.of("acme")[1] == frozenset(routable(store, "acme", base=base))
    assert asked.count(("default",)) == 1
    changes = (
        lambda: store.share("acme", "lent", Sharing(public=False)),
        lambda: store.share("acme", "lent", Sharing(tenants=("default",))),
    )
    for change in changes:
        change()
        named, digests = remembered.of("default")
        assert named == routable(store, "default", base=base)
        assert digests == frozenset(named) != before[1]
        before = (named, digests)


def test_a_route_is_told_in_names_heaviest_first(store, base):
    named = routable(store, "default", base=base)
    a, _, b = sorted(named, key=lambda digest: named[digest].name)
    neighbours = (Neighbour(b, 0.6, 0.1), Neighbour(a, 0.4, 0.2))
    mix = Mix.of([(a, 0.4), (b, 0.6)])
    choice = choice_of(
        Route(mix, b, abstained=False, distance=0.1, threshold=1, neighbours=neighbours), named
    )
    assert choice.selection.mix == mix
    assert [(part.ref, part.weight) for part in choice.selection.parts] == [("b@1", 0.6), ("a@2", 0.4)]
    assert [(part.ref, share, distance) for part, share, distance in choice.neighbours] == [
        ("b@1", 0.6, 0.1),
        ("a@2", 0.4, 0.2),
    ]
