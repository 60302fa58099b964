"""The collecting thread: it works while the server does, outlives what goes wrong, and ends when told."""

from __future__ import annotations

import threading

import pytest

from bitswitch.collector import Collector
from bitswitch_store.errors import StoreUnavailable


class Counted:
    """A store that only collects: what its thread does is asked here, not how a store collects."""

    def __init__(self, *outcomes: Exception | list[str]) -> None:
        self._outcomes = list(outcomes)
        self.all = threading.Event()
        self.asked: list[float] = []

    def collect(self, *, older_than, stopping):
        self.asked.append(older_than.total_seconds())
        outcome = self._outcomes.pop(0) if self._outcomes else []
        if not self._outcomes:
            self.all.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_it_collects_again_whatever_went_wrong_before(caplog: pytest.LogCaptureFixture):
    store = Counted(StoreUnavailable("the database is away"), ZeroDivisionError(), ["sha256:x"])
    collector = Collector(store, after=0.01)
    collector.start()
    assert store.all.wait(60)
    collector.stop()
    assert set(store.asked) == {0.01}
    assert "the database is away" in caplog.text
    assert not collector._thread.is_alive()


def test_one_that_never_started_can_be_stopped():
    Collector(Counted(), after=60).stop()
