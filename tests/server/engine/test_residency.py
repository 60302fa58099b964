"""The tier of ready switches: least recently used go first, by bytes."""

from dataclasses import dataclass

import pytest

from bitswitch.engine.residency import Residency


@dataclass
class Sized:
    nbytes: int


class Builder:
    def __init__(self, size=10):
        self.built = []
        self.size = size

    def __call__(self, digest):
        if digest == "corrupt":
            raise OSError("the blob is corrupt")
        self.built.append(digest)
        return Sized(self.size)


def test_the_least_recently_used_goes_first():
    build = Builder()
    tier = Residency(build, budget=25)
    for digest in ("a", "b", "a", "c"):
        tier.get(digest)
    assert tier.sizes() == {"a": 10, "c": 10}
    tier.get("b")
    assert build.built == ["a", "b", "c", "b"]


def test_a_switch_larger_than_the_budget_is_built_and_not_kept():
    tier = Residency(Builder(size=30), budget=25)
    assert tier.get("a").nbytes == 30
    assert "a" not in tier


def test_forgetting_frees_it():
    tier = Residency(Builder(), budget=25)
    tier.get("a")
    tier.forget("a")
    tier.forget("never there")
    assert tier.sizes() == {}


def test_what_cannot_be_built_says_so_and_leaves_the_rest():
    tier = Residency(Builder(), budget=25)
    tier.get("a")
    with pytest.raises(OSError, match="corrupt"):
        tier.get("corrupt")
    assert tier.sizes() == {"a": 10}
