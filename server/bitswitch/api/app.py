"""The whole HTTP surface, put together. Knows which endpoints there are, and nothing of what they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from bitswitch.answer import Answers
from bitswitch.api import (
    admin,
    classify,
    embeddings,
    faults,
    health,
    key,
    models,
    oip,
    records,
    reference,
    route,
    sharing,
    switches,
)
from bitswitch.api import (
    metrics as prometheus,
)
from bitswitch.api.middleware import BodyLimit, Envelope, HangUp
from bitswitch.api.parts import Parts, State, Verdict
from bitswitch.api.record import Recorder
from bitswitch.api.wire import FaultResponse
from bitswitch.observe.metrics import Metrics
from bitswitch.publish import Publisher
from bitswitch.tenants.keys import Keys
from bitswitch.tenants.limits import Quotas
from bitswitch.tenants.usage import Ledger
from bitswitch_store.store import Store
from bitswitch_store.switch import BaseIdentity

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_DESCRIPTION = """One resident base model, and every fine-tune of it as a switch of 1 to 3 % of its size.

`model` names a switch (`trec6`, `trec6@3`, `trec6@prod`), a weighted mix of switches
(`trec6*0.6+subj*0.4`), the bare `base`, or `auto`, which chooses by the input."""

_FAULTS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": FaultResponse,
        "description": "The request's fault; the message says what would be right.",
    },
    "5XX": {"model": FaultResponse, "description": "The server's fault."},
}


def create_app(
    *,
    answers: Answers,
    publisher: Publisher,
    store: Store,
    verify: Callable[[], Verdict],
    state: Callable[[], State],
    metrics: Metrics,
    keys: Keys,
    quotas: Quotas,
    ledger: Ledger,
    base_name: str,
    base_identity: BaseIdentity,
    max_body_bytes: int,
    max_upload_bytes: int,
    docs: bool = True,
    metrics_public: bool = False,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """The ASGI application over the parts.

    Args:
        verify: `Engine.verify`.
        state: `Engine.state`.
        base_name: what models say their ``root`` is.
        max_body_bytes: of a JSON body.
        max_upload_bytes: of an uploaded switch.
        docs: whether ``/docs`` and ``/openapi.json`` are served; they need no key.
        metrics_public: whether ``/metrics`` needs none either.
        lifespan: starts the parts before the first request and stops them after the last; None where the
            caller does.
    """
    app = FastAPI(
        title="bitswitch",
        version=version("bitswitch"),
        summary="Thousands of fine-tunes, one resident base model.",
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        openapi_url="/openapi.json" if docs else None,
        redoc_url=None,
        redirect_slashes=False,
        responses=_FAULTS,
        lifespan=lifespan,
    )
    app.state.parts = Parts(
        answers=answers,
        publisher=publisher,
        store=store,
        verify=verify,
        state=state,
        metrics=metrics,
        keys=keys,
        quotas=quotas,
        ledger=ledger,
        base_name=base_name,
        base_identity=base_identity,
        max_upload_bytes=max_upload_bytes,
        started=int(time.time()),
    )
    faults.install(app)
    if docs:
        reference.install(app)
    # For the documentation alone: who gets in is decided by `door.Guarded`, before a body is read.
    bearer = [Depends(HTTPBearer(auto_error=False))]
    app.include_router(health.router)
    app.include_router(
        prometheus.router(public=metrics_public), dependencies=[] if metrics_public else bearer
    )
    modules = (classify, embeddings, route, models, sharing, oip, admin, key)
    for router in (
        *(module.router for module in modules),
        switches.reading,
        switches.changing,
        switches.pinning,
        records.used,
        records.changed,
    ):
        app.include_router(router, dependencies=bearer)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, body=max_body_bytes, upload=max_upload_bytes)
    app.add_middleware(HangUp)
    app.add_middleware(Envelope, recorder=Recorder(metrics, ledger))
    return app
