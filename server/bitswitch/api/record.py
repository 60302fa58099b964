"""What is kept of a request once it has ended: metrics, a line in the log, the tenant's usage.

Never what was asked, nor what a caller wrote where a name should be: paths are told as the routes declare
them, models as they were resolved.
"""

from __future__ import annotations

from typing import Any

import structlog

from bitswitch.api.serve import Served
from bitswitch.errors import RouteAbstainedError
from bitswitch.observe.metrics import Metrics
from bitswitch.tenants.caller import Caller
from bitswitch.tenants.usage import TOTAL, Ledger, Use

_log = structlog.get_logger(__name__)


class Recorder:
    """Takes note of requests that have ended."""

    def __init__(self, metrics: Metrics, ledger: Ledger) -> None:
        self._metrics = metrics
        self._ledger = ledger

    def ended(self, scope: Any, status: int | None, seconds: float) -> None:  # noqa: ANN401 - ASGI's
        """A request has ended, one way or another.

        Args:
            scope: its ASGI scope.
            status: of its answer; None if none was begun.
            seconds: it took.
        """
        state: dict[str, Any] = scope["state"]
        caller: Caller | None = state.get("caller")
        served: Served | None = state.get("served")
        failed: str | None = state.get("failed")
        if failed is not None:
            self._metrics.request_failed(failed)
            if failed == RouteAbstainedError.code:
                self._metrics.router_abstained(1)
        elif served is not None:
            self._metrics.request_finished(served.want, served.timing, tokens=served.tokens, seconds=seconds)
            self._metrics.router_abstained(served.abstained)
            if caller is not None:
                total = Use(1, served.inputs, served.tokens, served.timing.forward)
                self._ledger.count(caller.tenant, [(TOTAL, total), *served.uses])
        if caller is not None or failed is not None:  # not the probes of health, every second or so
            told = served if failed is None else None
            _log.info(
                "request",
                request_id=state["request_id"],
                tenant=caller.tenant if caller else None,
                key_id=caller.key if caller else None,
                method=scope["method"],
                path=getattr(scope.get("route"), "path", None),
                model=told.model if told else None,
                input_count=told.inputs if told else None,
                tokens=told.tokens if told else None,
                status=status,
                code=failed,
                ms=round(1000 * seconds, 3),
            )
