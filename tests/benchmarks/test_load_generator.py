"""The load generator against a real server of the tiny base."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest
from benchmarks.load import Plan, run


@pytest.fixture(scope="module")
def port(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    from running import House, serving

    built = House.build(tiny_base, tmp_path_factory.mktemp("store"))
    with built.running() as house, serving(house.app()) as address:
        yield int(address.rpartition(":")[2])


def plan(port: int, model: str) -> Plan:
    body = json.dumps({"model": model, "input": "who was the first"})
    return Plan(port, "/v1/embeddings", [[body], [body, body], [body]], seconds=0.3, warm_up=0.1)


def test_every_client_is_answered_and_counted(port: int) -> None:
    outcome = run(plan(port, "base"))
    assert len(outcome.latencies) == 3
    assert all(own and min(own) > 0 for own in outcome.latencies)
    assert sorted(outcome.all_latencies) == sorted(wait for own in outcome.latencies for wait in own)
    assert outcome.rate == pytest.approx(sum(1 / fmean(own) for own in outcome.latencies))
    assert outcome.cpu > 0


def test_a_refusal_ends_the_load_and_is_told(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run(plan(port, "nobody-published-this"))
    assert "HTTP 404" in capfd.readouterr().err
