"""A whole server over the tiny base, for tests: real parts, a real socket, no mocks.

`make_switches` writes the switch files, `House` wires the parts as the command line does, `serving`
puts an app behind uvicorn on a free loopback port.
"""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from bitswitch.answer import Answers
from bitswitch.api.app import create_app
from bitswitch.base.features import features, recipe
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.core import InputLimits, Want
from bitswitch.engine.engine import Engine
from bitswitch.observe.metrics import Metrics
from bitswitch.publish import Publisher
from bitswitch.router.auto import AutoSwitch
from bitswitch.tenants import limit_table
from bitswitch.tenants.keys import Keys
from bitswitch.tenants.limits import Limits, Quotas
from bitswitch.tenants.usage import Ledger
from bitswitch_store import file
from bitswitch_store.binarize import binarize
from bitswitch_store.checkpoint import Checkpoint
from bitswitch_store.store import Store
from bitswitch_store.switch import QuerySet, Rule, Switch
from tiny import make_finetune

BANKING = (
    "my card was charged twice please refund",
    "i did not like my bank account charged twice",
    "please refund my card",
    "was my account charged twice",
    "my bank card was charged please",
    "refund the money to my account",
)
FILMS = (
    "great movie brilliant acting",
    "boring awful film i did not like it",
    "loved the plot of the film",
    "the acting was great",
    "awful movie boring plot",
    "brilliant film loved it",
)
FAR = "who who who who who who who who who who who who who who who who"
Tasks = Mapping[str, tuple[tuple[str, ...], tuple[str, ...] | None]]
"""By name: labels, and the inputs of the query set."""
TASKS: Tasks = {
    "topic": (("bank", "film", "spam"), BANKING),
    "polarity": (("bad", "good"), FILMS),
    "entail": (("yes", "perhaps", "no", "never"), None),
}


def query_set(base: Base, texts: tuple[str, ...]) -> QuerySet:
    """The texts' features at the bare base."""
    rows = base.encode(texts, want=Want.FEATURES)
    return QuerySet.of(features(base, base.forward(rows), rows).numpy(), recipe(base))


def make_switches(base_folder: Path, folder: Path, tasks: Tasks = TASKS) -> dict[str, Path]:
    """A file per task, and ``bare``: a switch without a head."""
    base, checkpoint = load(base_folder), Checkpoint.open(base_folder)
    files = {}
    for seed, (task, (labels, texts)) in enumerate(tasks.items()):
        finetune = make_finetune(folder / f"finetune-{task}", base_folder, labels, seed=seed + 1, noise=0.2)
        queries = None if texts is None else query_set(base, texts)
        switch = binarize(
            checkpoint, Checkpoint.open(finetune), Rule("paper", {"alpha": 0.5}), task=task, queries=queries
        )
        files[task] = folder / f"{task}.switch.safetensors"
        files[task].write_bytes(file.write(switch))
    files["bare"] = folder / "bare.switch.safetensors"
    files["bare"].write_bytes(file.write(replace(switch, head=None, task="bare")))
    return files


@dataclass
class House:
    """The parts of one server."""

    base: Base
    store: Store
    engine: Engine
    router: AutoSwitch
    publisher: Publisher
    answers: Answers
    metrics: Metrics
    quotas: Quotas
    ledger: Ledger

    @classmethod
    def build(
        cls,
        base_folder: Path,
        store_root: Path,
        *,
        timeout: float = 30.0,
        gate: threading.Event | None = None,
        queue_limit: int = 1024,
        queue_seconds: float = math.inf,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        input_limits: InputLimits = InputLimits(),  # noqa: B008 - frozen
    ) -> House:
        """Parts that do not run yet. Until a ``gate`` is set, no switch is read: requests wait."""
        base = load(base_folder, limits=input_limits)
        shapes = {name: tuple(one.shape) for name, one in base.parameters.items()}
        store = Store(store_root, base=base.identity, shapes=shapes)

        def fetch(digest: str) -> Switch:
            if gate is not None:
                gate.wait(30)
            return store.get(digest)

        engine = Engine(base, fetch, queue_limit=queue_limit, queue_seconds=queue_seconds)
        router = AutoSwitch(recipe=recipe(base), k=5, fetch=store.queries)
        publisher = Publisher(store=store, engine=engine, router=router)
        answers = Answers(
            base=base, engine=engine, router=router, store=store, max_inputs=64, timeout=timeout
        )
        metrics = Metrics()
        metrics.observe_engine(engine.state)
        quotas = Quotas(partial(limit_table.read, store.database, limits), limits)
        ledger = Ledger(store.database)
        return cls(base, store, engine, router, publisher, answers, metrics, quotas, ledger)

    @contextmanager
    def running(self, files: Iterable[Path] = ()) -> Iterator[House]:
        """Started, with these switch files published for the default tenant; stopped and closed after it."""
        self.engine.start()
        try:
            for path in files:
                self.publisher.publish(path.read_bytes(), tenant="default", name=None, public=False)
            yield self
        finally:
            self.engine.stop(10)
            self.store.close()

    def app(
        self,
        *,
        key: str | None = None,
        keys: Keys | None = None,
        docs: bool = True,
        metrics_public: bool = False,
        max_upload_bytes: int = 2**22,
    ) -> FastAPI:
        """The HTTP surface; with ``keys``, or the one of the settings, or none."""
        return create_app(
            answers=self.answers,
            publisher=self.publisher,
            store=self.store,
            verify=self.engine.verify,
            state=self.engine.state,
            metrics=self.metrics,
            keys=Keys(key) if keys is None else keys,
            quotas=self.quotas,
            ledger=self.ledger,
            base_name="tiny",
            base_identity=self.base.identity,
            max_body_bytes=2**16,
            max_upload_bytes=max_upload_bytes,
            docs=docs,
            metrics_public=metrics_public,
        )

    def switch(self, name: str) -> Switch:
        entry = self.store.find("default", name)
        assert entry is not None
        return self.store.get(entry.digest)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address at which ``app`` is served, for as long as the block lasts."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
