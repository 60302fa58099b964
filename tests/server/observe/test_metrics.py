"""Metrics as a scrape reads them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from bitswitch.core import Timing, Want
from bitswitch.observe.metrics import CONTENT_TYPE, LABELLED_SWITCHES, Metrics


@dataclass(frozen=True)
class State:
    waiting: int = 0
    running: int = 0
    resident: dict[str, int] = field(default_factory=dict)
    transitions: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    journal_bytes: int = 0
    ready: bool = True
    reloads: dict[str, int] = field(default_factory=dict)
    failed_checks: int = 0


def scrape(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, parsed by Prometheus's own parser."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_a_finished_request_is_counted_and_timed():
    metrics = Metrics()
    timing = Timing(queue=0.02, swap=0.0002, forward=0.3)
    metrics.request_finished(Want.CLASSIFY, timing, tokens=12, seconds=0.4)
    metrics.request_finished(Want.CLASSIFY, timing, tokens=5, seconds=70.0)
    seen = scrape(metrics)
    assert seen["bitswitch_request_success_total", "classify"] == 2
    assert seen["bitswitch_request_success_total", "embed"] == 0
    assert seen["bitswitch_prompt_tokens_total",] == 17
    assert seen["bitswitch_e2e_request_latency_seconds_count",] == 2
    assert seen["bitswitch_e2e_request_latency_seconds_sum",] == pytest.approx(70.4)
    assert seen["bitswitch_e2e_request_latency_seconds_bucket", "0.25"] == 0
    assert seen["bitswitch_e2e_request_latency_seconds_bucket", "0.5"] == 1
    assert seen["bitswitch_request_queue_time_seconds_sum",] == pytest.approx(0.04)
    assert seen["bitswitch_request_swap_time_seconds_sum",] == pytest.approx(0.0004)
    assert seen["bitswitch_request_swap_time_seconds_bucket", "0.00025"] == 2
    assert seen["bitswitch_request_forward_time_seconds_sum",] == pytest.approx(0.6)


def test_failures_and_abstentions():
    metrics = Metrics()
    metrics.request_failed("overloaded")
    metrics.request_failed("overloaded")
    metrics.request_failed("model_not_found")
    metrics.router_abstained(3)
    seen = scrape(metrics)
    assert seen["bitswitch_request_failure_total", "overloaded"] == 2
    assert seen["bitswitch_request_failure_total", "model_not_found"] == 1
    assert seen["bitswitch_router_abstentions_total",] == 3


def test_the_engine_is_read_at_each_scrape():
    metrics = Metrics()
    assert ("bitswitch_num_requests_running",) not in scrape(metrics)
    state = State(
        waiting=4,
        running=2,
        resident={"a": 100, "b": 20},
        transitions=9,
        steps={"overlay": 3},
        journal_bytes=7,
    )
    states = iter([state, replace(state, waiting=0, resident={"b": 20}, transitions=10)])
    metrics.observe_engine(lambda: next(states))
    first, second = scrape(metrics), scrape(metrics)
    assert first["bitswitch_num_requests_waiting",] == 4
    assert first["bitswitch_num_requests_running",] == 2
    assert first["bitswitch_transitions_total",] == 9
    assert first["bitswitch_steps_total", "overlay"] == 3
    assert first["bitswitch_journal_bytes",] == 7
    assert first["bitswitch_switch_resident", "a", "memory"] == 1
    assert first["bitswitch_switch_resident_bytes", "memory"] == 120
    assert second["bitswitch_num_requests_waiting",] == 0
    assert second["bitswitch_transitions_total",] == 10
    assert second["bitswitch_switch_resident", "a", "memory"] == 0
    assert second["bitswitch_switch_resident", "b", "memory"] == 1


def test_the_weights_fate_is_read_at_each_scrape():
    metrics = Metrics()
    mending = State(ready=False, reloads={"check": 1, "memory": 0}, failed_checks=1)
    states = iter([mending, replace(mending, ready=True)])
    metrics.observe_engine(lambda: next(states))
    first, second = scrape(metrics), scrape(metrics)
    assert (first["bitswitch_ready",], second["bitswitch_ready",]) == (0, 1)
    assert first["bitswitch_base_reloads_total", "check"] == 1
    assert first["bitswitch_base_reloads_total", "memory"] == 0
    assert first["bitswitch_base_check_failures_total",] == 1


def test_the_switches_labels_are_bounded_over_time():
    metrics = Metrics()
    states = [State(resident={f"{turn}-{i}": 1 for i in range(70)}) for turn in range(4)]
    pending = iter(states)
    metrics.observe_engine(lambda: next(pending))
    labels = set()
    for _ in states:
        seen = {
            key[1]: value for key, value in scrape(metrics).items() if key[0] == "bitswitch_switch_resident"
        }
        assert sum(seen.values()) == 70
        labels |= seen.keys()
    assert len(labels) == LABELLED_SWITCHES + 1
    assert seen["other"] == 70


def test_each_server_has_a_registry_of_its_own():
    one, other = Metrics(), Metrics()
    one.request_failed("overloaded")
    assert ("bitswitch_request_failure_total", "overloaded") not in scrape(other)
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("bitswitch")]
    assert "process_resident_memory_bytes" in one.render().decode()
    assert CONTENT_TYPE.startswith("text/plain")


def test_threads_lose_no_count():
    metrics = Metrics()

    def work() -> None:
        for _ in range(500):
            metrics.request_finished(Want.EMBED, Timing(), tokens=2, seconds=0.1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scrape(metrics)["bitswitch_prompt_tokens_total",] == 4000
