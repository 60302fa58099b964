"""What the server counts and times, in Prometheus's text format, under names like vLLM's.

Knows nothing of HTTP, nor of the engine but the plain values of its state. The number of time series
is bounded: nothing a caller sends becomes a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bitswitch.core import Timing, Want

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""The media type of `Metrics.render`."""
LABELLED_SWITCHES = 100
"""How many switches get a time series of their own; the others are counted under ``other``."""

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SWAP_SECONDS = (0.0001, 0.00025, *_SECONDS[:-3])


class State(Protocol):
    """The engine's state, as far as it is counted here; ``resident`` is bytes by switch digest."""

    @property
    def waiting(self) -> int: ...  # noqa: D102
    @property
    def running(self) -> int: ...  # noqa: D102
    @property
    def resident(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def transitions(self) -> int: ...  # noqa: D102
    @property
    def steps(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def journal_bytes(self) -> int: ...  # noqa: D102
    @property
    def ready(self) -> bool: ...  # noqa: D102
    @property
    def reloads(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def failed_checks(self) -> int: ...  # noqa: D102


class Metrics:
    """The server's metrics, in a registry of their own; safe from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._success = self._counter("request_success", "Requests answered.", "want")
        for want in Want:  # a series that starts at 0 has a rate from its first request on
            self._success.labels(want.value)
        self._failure = self._counter("request_failure", "Requests refused or failed, by error code.", "code")
        self._tokens = self._counter("prompt_tokens", "Tokens read, special ones included.")
        self._abstentions = self._counter("router_abstentions", "Inputs that auto found no switch for.")
        self._latency = self._histogram("e2e_request_latency", "From a request's arrival to its answer.")
        self._queue = self._histogram("request_queue_time", "Waiting for the model.")
        self._swap = self._histogram("request_swap_time", "Setting the weights.", _SWAP_SECONDS)
        self._forward = self._histogram("request_forward_time", "Running the model.")

    def observe_engine(self, read: Callable[[], State]) -> None:
        """Report an engine's state, read anew at each `render`. Once per server."""
        self._registry.register(_EngineCollector(read))

    def request_finished(self, want: str, timing: Timing, *, tokens: int, seconds: float) -> None:
        """A request was answered.

        Args:
            want: a `Want`, or another word of a small fixed set.
            timing: the engine's part of it.
            tokens: tokens read.
            seconds: from its arrival to its answer.
        """
        self._success.labels(want).inc()
        self._tokens.inc(tokens)
        self._latency.observe(seconds)
        self._queue.observe(timing.queue)
        self._swap.observe(timing.swap)
        self._forward.observe(timing.forward)

    def request_failed(self, code: str) -> None:
        """A request ended in an error; ``code`` is its class's, never a text of the caller's."""
        self._failure.labels(code).inc()

    def router_abstained(self, inputs: int) -> None:
        """``auto`` found no switch for so many inputs."""
        self._abstentions.inc(inputs)

    def render(self) -> bytes:
        """Everything, as a scrape reads it; see `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"bitswitch_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(
            f"bitswitch_{name}_seconds", f"{text} Seconds.", buckets=buckets, registry=self._registry
        )


class _EngineCollector(Collector):
    """Reads the engine's state when it is asked for, so that no figure is ever stale."""

    def __init__(self, read: Callable[[], State]) -> None:
        self._read = read
        self._labelled: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        """One state, as metrics."""
        state = self._read()
        yield _gauge("num_requests_running", "Requests in the model's current batch.", state.running)
        yield _gauge("num_requests_waiting", "Requests in the queue.", state.waiting)
        yield _gauge("journal_bytes", "Base values saved for the way back.", state.journal_bytes)
        yield CounterMetricFamily(
            "bitswitch_transitions", "Settings of the weights to another mix.", value=state.transitions
        )
        yield _gauge("ready", "Whether requests are taken: 1, or 0.", state.ready)
        yield CounterMetricFamily(
            "bitswitch_base_check_failures",
            "Checks that found the resident weights to differ from the base's.",
            value=state.failed_checks,
        )
        yield _counts("base_reloads", "Loadings of the base anew.", "reason", state.reloads)
        yield _counts(
            "steps",
            "Steps of the engine: at the weights as they were, after a transition, or of many mixes at once.",
            "kind",
            state.steps,
        )
        yield self._resident(state.resident)
        total = GaugeMetricFamily(
            "bitswitch_switch_resident_bytes", "Bytes of all switches ready to be applied.", labels=["tier"]
        )
        total.add_metric(["memory"], sum(state.resident.values()))
        yield total

    def _resident(self, resident: Mapping[str, int]) -> Metric:
        """1 per switch in memory; how many more under ``other``.

        The first switches that are seen keep their labels for the life of the process. Labelling the
        latest ones instead would bound one scrape, not the series that a server leaves in Prometheus.
        """
        for digest in resident:
            if len(self._labelled) < LABELLED_SWITCHES:
                self._labelled.add(digest)
        family = GaugeMetricFamily(
            "bitswitch_switch_resident", "Switches ready to be applied, by digest.", labels=["switch", "tier"]
        )
        for digest in sorted(self._labelled):
            family.add_metric([digest, "memory"], float(digest in resident))
        family.add_metric(["other", "memory"], len(resident.keys() - self._labelled))
        return family


def _counts(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"bitswitch_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"bitswitch_{name}", text, value=value)
