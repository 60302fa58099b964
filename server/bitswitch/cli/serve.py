"""``bitswitch serve``: settings → parts → a listening server. Here alone the parts are put together."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog
import torch
from fastapi import FastAPI

from bitswitch.answer import Answers
from bitswitch.api.app import create_app
from bitswitch.base.features import dim, recipe
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.cli.listen import Listener
from bitswitch.cli.threads import let_threads_go
from bitswitch.collector import Collector
from bitswitch.core import InputLimits
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
from bitswitch.tenants import limit_table
from bitswitch.tenants.caller import DEFAULT_TENANT, check_exposure
from bitswitch.tenants.key import read_secret
from bitswitch.tenants.key_ring import KeyRing
from bitswitch.tenants.keys import Keys
from bitswitch.tenants.limits import Limits, Quotas
from bitswitch.tenants.rounds import Rounds
from bitswitch.tenants.usage import Ledger
from bitswitch_store.store import Entry, Store, StoreError
from bitswitch_store.switch import SwitchError

NOT_STARTED = 3
"""The exit status that uvicorn has for it."""
STOP_SECONDS = 2.0
"""How long the engine may take to end once nobody waits for an answer any more."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class House:
    """The parts of one server, put together and not yet started."""

    base: Base
    store: Store
    engine: Engine
    router: AutoSwitch
    publisher: Publisher
    collector: Collector
    answers: Answers
    metrics: Metrics
    keys: Keys
    quotas: Quotas
    ledger: Ledger
    rounds: Rounds

    @classmethod
    def build(cls, settings: Settings) -> House:
        """Load the base, open the store, wire the rest.

        Raises:
            ValueError: the settings cannot be had: no such base or store, no key where one is needed.
        """
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        limits = InputLimits(
            text_chars=settings.max_text_chars,
            image_bytes=settings.max_image_bytes,
            image_pixels=settings.max_image_pixels,
            request_pixels=settings.max_request_pixels,
        )
        base = load(settings.base, device=settings.device, dtype=settings.dtype, limits=limits)
        shapes = {name: tuple(one.shape) for name, one in base.parameters.items()}
        store = Store(
            settings.store,
            base=base.identity,
            shapes=shapes,
            database_url=settings.database_url.get_secret_value() if settings.database_url else None,
            blobs_url=settings.blobs_url,
            cache_bytes=settings.blobs_cache_bytes,
        )
        keys = _keys(settings, store)
        check_exposure(settings.host, keyed=keys.needed)
        engine = Engine(
            base,
            store.get,
            queue_limit=settings.queue_limit,
            batch_tokens=settings.batch_tokens,
            batch_rows=settings.batch_rows,
            resident_bytes=settings.resident_bytes,
            queue_seconds=settings.max_queue_seconds,
            verify_every=settings.verify_every,
        )
        folder = settings.store / "routes" / base.identity.digest.rpartition(":")[2][:16]
        router = AutoSwitch(
            recipe=recipe(base),
            dim=dim(base),
            k=settings.router_k,
            mode=settings.router_mode,
            quantile=settings.router_quantile,
            folder=folder,
            fetch=store.queries,
        )
        metrics = Metrics()
        metrics.observe_engine(engine.state)
        default = Limits(**{name: getattr(settings, f"limit_{name}") for name in limit_table.NAMES})
        quotas = Quotas(partial(limit_table.read, store.database, default), default)
        ledger = Ledger(store.database)
        return cls(
            base=base,
            store=store,
            engine=engine,
            router=router,
            publisher=Publisher(store=store, engine=engine, router=router),
            collector=Collector(store, after=settings.collect_after),
            answers=Answers(
                base=base,
                engine=engine,
                router=router,
                store=store,
                max_inputs=settings.max_inputs,
                batch_rows=settings.batch_rows,
                timeout=settings.request_timeout,
            ),
            metrics=metrics,
            keys=keys,
            quotas=quotas,
            ledger=ledger,
            rounds=Rounds(keys.refresh, quotas.refresh, ledger.flush),
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
            quotas=self.quotas,
            ledger=self.ledger,
            base_name=self.base.folder.name,
            base_identity=self.base.identity,
            max_body_bytes=settings.max_body_bytes,
            max_upload_bytes=settings.max_upload_bytes,
            docs=settings.docs,
            metrics_public=settings.metrics_public,
            lifespan=lifespan,
        )

    def start(self) -> None:
        """Warm the engine up and tell the router what the store holds."""
        self.engine.start()
        torch.set_num_threads(1)  # of threads born from now on: the cores are the engine's
        self.rounds.start()
        routed = self.publisher.resume()
        self.collector.start()
        # What is here now stays: half a million objects, most of them torch's, which every full
        # collection would walk again, in the middle of requests.
        gc.collect()
        gc.freeze()
        give_back()
        _log.info(
            "ready", base=self.base.identity.digest, routed=routed, parameters=len(self.base.parameters)
        )

    def stop(self) -> None:
        """Bring the base back, write down what was counted, close the store."""
        self.collector.stop()
        self.engine.stop(STOP_SECONDS)
        self.rounds.stop()
        self.router.close()
        self.store.close()


def _keys(settings: Settings, store: Store) -> Keys:
    given = settings.key_secret.get_secret_value().encode() if settings.key_secret else None
    secret = given or read_secret(settings.store)
    one = settings.api_key.get_secret_value() if settings.api_key else None
    return Keys(one, ring=KeyRing(store.database, secret), secret=secret)


def run(settings: Settings) -> None:
    """Serve until told to stop.

    Raises:
        ValueError: as `House.build` and `House.pin`.
    """
    configure(settings.log_level, json=settings.log_json)
    house = House.build(settings)
    let_threads_go()
    house.pin(settings.pin)
    listener = Listener(
        house.app(settings),
        house.engine,
        host=settings.host,
        port=settings.port,
        access_log=settings.log_level == "debug",
        drain_seconds=settings.drain_seconds,
        grace_seconds=settings.grace_seconds,
    )
    with suppress(KeyboardInterrupt):
        listener.run()
    if not listener.started:
        sys.exit(NOT_STARTED)
