"""``bitswitch serve``: settings → parts → a listening server. Here alone the parts are put together."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog
import torch
import uvicorn
from fastapi import FastAPI

from bitswitch.answer import Answers
from bitswitch.api.app import create_app
from bitswitch.base.features import dim, recipe
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.engine.engine import Engine
from bitswitch.errors import BitswitchError, InvalidModelError
from bitswitch.memory import give_back
from bitswitch.model_ref import parse
from bitswitch.observe.logs import configure
from bitswitch.observe.metrics import Metrics
from bitswitch.publish import Publisher
from bitswitch.router.auto import AutoSwitch
from bitswitch.selection import find
from bitswitch.settings import Settings, SettingsError
from bitswitch.tenants.caller import DEFAULT_TENANT, Keys, check_exposure
from bitswitch_store.store import Entry, Store, StoreError
from bitswitch_store.switch import SwitchError

GRACE_SECONDS = 30
"""How long requests under way may take once the server is told to stop."""
KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than clients and proxies keep theirs (mostly 60), or a
request crosses with our closing and fails for nothing."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class House:
    """The parts of one server, put together and not yet started."""

    base: Base
    store: Store
    engine: Engine
    router: AutoSwitch
    publisher: Publisher
    answers: Answers
    metrics: Metrics
    keys: Keys

    @classmethod
    def build(cls, settings: Settings) -> House:
        """Load the base, open the store, wire the rest.

        Raises:
            ValueError: the settings cannot be had: no such base or store, no key where one is needed.
        """
        keys = Keys(settings.api_key.get_secret_value() if settings.api_key else None)
        check_exposure(settings.host, keys)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        base = load(settings.base, device=settings.device, dtype=settings.dtype)
        weights = sum(parameter.numel() for parameter in base.parameters.values())
        store = Store(settings.store, base=base.identity, max_weights=weights)
        engine = Engine(
            base,
            store.get,
            queue_limit=settings.queue_limit,
            batch_tokens=settings.batch_tokens,
            batch_rows=settings.batch_rows,
            resident_bytes=settings.resident_bytes,
        )
        router = AutoSwitch(recipe=recipe(base), dim=dim(base), k=settings.router_k)
        metrics = Metrics()
        metrics.observe_engine(engine.state)
        return cls(
            base=base,
            store=store,
            engine=engine,
            router=router,
            publisher=Publisher(store=store, engine=engine, router=router),
            answers=Answers(
                base=base,
                engine=engine,
                router=router,
                store=store,
                max_inputs=settings.max_inputs,
                max_text_chars=settings.max_text_chars,
                batch_rows=settings.batch_rows,
                timeout=settings.request_timeout,
            ),
            metrics=metrics,
            keys=keys,
        )

    def pin(self, names: Iterable[str]) -> None:
        """Make these switches ready and keep them so; before the start, so that ready means that they are.

        Raises:
            SettingsError: there is no such switch, it cannot be served, or they do not fit into memory.
        """
        for name in names:
            try:
                self.publisher.pin(self._named(name))
            except (BitswitchError, StoreError, SwitchError) as error:
                raise SettingsError(f"pin: {name!r} cannot be kept ready: {error}") from error

    def _named(self, name: str) -> Entry:
        """The stored switch that the operator means: anybody's, shared or not."""
        terms = parse(name).terms
        if len(terms) != 1 or "*" in name:
            raise InvalidModelError("it is not one switch; give name, tenant/name or name@version")
        (term,) = terms
        own = replace(term, tenant=None)
        return find(self.store, term.tenant or DEFAULT_TENANT, own, base=self.base.identity.digest)

    def app(self, settings: Settings) -> FastAPI:
        """The HTTP surface; the parts start and stop with it."""

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            await asyncio.to_thread(self.start)
            try:
                yield
            finally:
                await asyncio.to_thread(self.stop)

        return create_app(
            answers=self.answers,
            publisher=self.publisher,
            store=self.store,
            verify=self.engine.verify,
            state=self.engine.state,
            metrics=self.metrics,
            keys=self.keys,
            base_name=self.base.folder.name,
            base_identity=self.base.identity,
            max_body_bytes=settings.max_body_bytes,
            max_upload_bytes=settings.max_upload_bytes,
            docs=settings.docs,
            lifespan=lifespan,
        )

    def start(self) -> None:
        """Warm the engine up and tell the router what the store holds."""
        self.engine.start()
        routed = self.publisher.resume(DEFAULT_TENANT)
        # What is here now stays: half a million objects, most of them torch's, which every full
        # collection would walk again, in the middle of requests.
        gc.collect()
        gc.freeze()
        give_back()
        _log.info(
            "ready", base=self.base.identity.digest, routed=routed, parameters=len(self.base.parameters)
        )

    def stop(self) -> None:
        """Answer what waits, bring the base back, close the store."""
        self.engine.stop(GRACE_SECONDS)
        self.store.close()


def run(settings: Settings) -> None:
    """Serve until told to stop.

    Raises:
        ValueError: as `House.build` and `House.pin`.
    """
    configure(settings.log_level, json=settings.log_json)
    house = House.build(settings)
    house.pin(settings.pin)
    uvicorn.run(
        house.app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
