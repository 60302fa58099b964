"""The life of a request, in code: resolve → route → encode → submit → answer.

The one place that knows both the router and the engine. Knows nothing of HTTP. Whatever blocks
(the store, the tokenizer, the images' decoder, the index) runs in a thread; the event loop only waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitswitch.asked import Asked, check_count
from bitswitch.base.model import Base
from bitswitch.core import Inputs, Mix, Request, Result, Row, Timing, Want
from bitswitch.engine.engine import Engine
from bitswitch.errors import (
    DeadlineExceededError,
    InputTooLongError,
    InvalidSwitchError,
    ModelNotFoundError,
    StoredSwitchError,
)
from bitswitch.model_ref import AUTO, ModelRef, parse
from bitswitch.pieces import cut, together
from bitswitch.router.auto import AutoSwitch
from bitswitch.selection import Choice, Routable, Selection, check_heads, choice_of, select
from bitswitch.tenants.limits import Permit
from bitswitch_store.store import CorruptBlob, NotStored, Store
from bitswitch_store.switch import SwitchError

_Target = tuple[Mix, str | None]
"""Weights, and the digest of the head that answers; None where no head does."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """The answer to one input.

    Attributes:
        values: float32, (labels,) probabilities or (dim,) embedding.
        selection: the mix it was computed at.
        choice: the route, if ``auto`` was asked.
        row: the input as it was read.
    """

    values: NDArray[np.float32]
    selection: Selection
    choice: Choice | None
    row: Row

    @property
    def labels(self) -> tuple[str, ...]:
        """What the probabilities are of: the labels of the answering head."""
        return self.selection.head.labels if self.selection.head else ()


@dataclass(frozen=True)
class Answer:
    """What came of a request: one item per input, in the inputs' order.

    Attributes:
        model: ``auto``, or the model with its versions resolved; may be asked again as it is.
        tokens: tokens read, special ones included.
    """

    model: str
    items: tuple[Item, ...]
    tokens: int
    timing: Timing


@dataclass(frozen=True)
class Routed:
    """What ``auto`` would do with each input."""

    choices: tuple[Choice, ...]
    tokens: int
    timing: Timing


class Answers:
    """Answers requests with one base, one engine, one router and one store.

    Args:
        max_inputs: inputs one request may hold.
        timeout: seconds after which nobody waits for an answer any more.
        max_mixes: different mixes that ``auto`` may choose for one request; each costs a swap.
        batch_rows: inputs handed to the engine at a time, at most.
    """

    def __init__(
        self,
        *,
        base: Base,
        engine: Engine,
        router: AutoSwitch,
        store: Store,
        max_inputs: int,
        timeout: float,
        max_mixes: int = 32,
        batch_rows: int = 64,
    ) -> None:
        self._base = base
        self._engine = engine
        self._router = router
        self._store = store
        self._routable = Routable(store, base=base.identity.digest)
        self._max_inputs = max_inputs
        self._timeout = timeout
        self._max_mixes = max_mixes
        self._batch_rows = batch_rows

    @property
    def reads(self) -> Literal["text", "image"]:
        """What inputs are."""
        return self._base.encoder.kind

    async def classify(
        self, tenant: str, model: str, inputs: Inputs, *, request_id: str = "", permit: Permit | None = None
    ) -> Answer:
        """Probabilities of each input's labels.

        Args:
            permit: the tenant's, which is charged for the tokens before they are computed.

        Raises:
            RateLimitedError: the tenant's tokens of this minute do not reach.
            InvalidModelError: ``model`` is not of the grammar.
            ModelNotFoundError: it names what this tenant may not see.
            NotAClassifierError: the heaviest switch of the mix has no head, or there is none.
            RouteAbstainedError: ``auto``, and an input is far from every query set.
            InputTooLongError: more inputs, longer or larger ones, or more mixes than one request may have.
            InvalidRequestError: an input is none that the base reads; or of its kinds.
            StoredSwitchError: a switch that is stored cannot be applied.
            OverloadedError, UnavailableError, DeadlineExceededError: the engine's.
        """
        async with self._asked(
            tenant, model, inputs, want=Want.CLASSIFY, request_id=request_id, permit=permit
        ) as asked:
            return await self._answer(asked)

    async def embed(
        self, tenant: str, model: str, inputs: Inputs, *, request_id: str = "", permit: Permit | None = None
    ) -> Answer:
        """An embedding of each input; where ``auto`` abstains, the bare base's. Raises as `classify` does."""
        async with self._asked(
            tenant, model, inputs, want=Want.EMBED, request_id=request_id, permit=permit
        ) as asked:
            return await self._answer(asked)

    async def route(
        self, tenant: str, inputs: Inputs, *, request_id: str = "", permit: Permit | None = None
    ) -> Routed:
        """What ``auto`` would do with each input, without doing it. Raises as `classify` does."""
        async with self._asked(
            tenant, AUTO, inputs, want=Want.FEATURES, request_id=request_id, permit=permit
        ) as asked:
            routed, _ = await self._route(asked)
            return routed

    @asynccontextmanager
    async def _asked(
        self, tenant: str, model: str, inputs: Inputs, *, want: Want, request_id: str, permit: Permit | None
    ) -> AsyncIterator[Asked]:
        check_count(inputs, self._max_inputs)
        self._base.encoder.check(inputs, want=want)
        if permit is not None:
            permit.check_inputs(len(inputs))
        guess, deadline = self._base.encoder.guess(inputs), time.monotonic() + self._timeout
        try:
            with self._engine.admission.admitted(tenant, guess) as ticket:  # or it is refused at no cost
                async with asyncio.timeout(self._timeout):
                    yield Asked(tenant, model, inputs, want, request_id, deadline, ticket, permit)
        except TimeoutError as error:
            late = f"There was no answer within {self._timeout:g} s; try again later."
            raise DeadlineExceededError(late) from error

    async def _answer(self, asked: Asked) -> Answer:
        ref = parse(asked.model)
        before = Timing()
        choices: Sequence[Choice | None] = [None] * len(asked.inputs)
        if ref.auto:
            routed, rows = await self._route(asked)
            choices, before = routed.choices, routed.timing
            model = AUTO
            selections = [choice.selection for choice in routed.choices]
            self._check(asked, selections, choices)
            if asked.want is Want.EMBED:  # of which the model may read more or less
                rows = await asyncio.to_thread(self._base.encode, asked.inputs, want=Want.EMBED)
        else:
            selection, rows = await asyncio.to_thread(self._named, asked, ref)
            model = selection.model
            selections = [selection] * len(asked.inputs)
        targets = [(selection.mix, _head(selection, asked.want)) for selection in selections]
        values, timing = await self._compute(asked, rows, targets, want=asked.want)
        items = tuple(map(Item, values, selections, choices, rows))
        return Answer(model, items, sum(row.length for row in rows), before + timing)

    def _named(self, asked: Asked, ref: ModelRef) -> tuple[Selection, tuple[Row, ...]]:
        """Resolve and encode at one go: each hand-over to a thread costs as much as a short text."""
        selection = select(self._store, asked.tenant, ref, base=self._base.identity.digest)
        self._check(asked, [selection], [None])
        rows = self._base.encode(asked.inputs, want=asked.want)
        asked.charge(rows)
        return selection, rows

    def _check(self, asked: Asked, selections: Sequence[Selection], choices: Sequence[Choice | None]) -> None:
        """Refuse what these selections cannot answer, before any of it is computed."""
        if asked.want is Want.CLASSIFY:
            check_heads(selections, choices)
        count = len({selection.mix for selection in selections})
        if count > self._max_mixes:
            most = f"one request has at most {self._max_mixes}: send fewer inputs per request."
            raise InputTooLongError(f"The inputs need {count} different mixes; {most}", param="input")

    async def _route(self, asked: Asked) -> tuple[Routed, tuple[Row, ...]]:
        """The routes, and the inputs as rows: as they are read for features and for classes alike."""
        rows = await asyncio.to_thread(self._base.encode, asked.inputs, want=Want.FEATURES)
        asked.charge(rows)
        at_base: list[_Target] = [(Mix.of(), None)] * len(rows)
        features, timing = await self._compute(asked, rows, at_base, want=Want.FEATURES)
        choices = await asyncio.to_thread(self._pick, asked.tenant, np.stack(features))
        return Routed(tuple(choices), sum(row.length for row in rows), timing), rows

    def _pick(self, tenant: str, features: NDArray[np.float32]) -> list[Choice]:
        named, visible = self._routable.of(tenant)
        routes = self._router.pick(features, visible, caller=tenant)
        return [choice_of(route, named) for route in routes]

    async def _compute(
        self, asked: Asked, rows: Sequence[Row], targets: Sequence[_Target], *, want: Want
    ) -> tuple[list[NDArray[np.float32]], Timing]:
        """One value row per input: inputs of equal target go to the engine together, a batch at a time."""
        groups: dict[_Target, list[int]] = {}
        for index, target in enumerate(targets):
            groups.setdefault(target, []).append(index)
        pieces = [
            (target, piece)
            for target, indices in groups.items()
            for piece in cut(indices, rows, most_rows=self._batch_rows)
        ]
        requests = [
            asked.request(mix, [rows[index] for index in indices], want=want, head=head)
            for (mix, head), indices in pieces
        ]
        results = await self._submit(asked, requests)
        values: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(rows)
        parts: dict[_Target, list[Result]] = {target: [] for target in groups}
        for (target, indices), result in zip(pieces, results, strict=True):
            parts[target].append(result)
            for index, row in zip(indices, result.values, strict=True):
                values[index] = row
        # The groups waited for each other: the slowest one's times are what the caller lived through.
        return values, max(map(together, parts.values()), key=lambda time: time.total)

    async def _submit(self, asked: Asked, requests: Sequence[Request]) -> list[Result]:
        """All results, or the first error. What still waits then, or when the caller goes, is dropped."""
        futures: list[asyncio.Future[Result]] = []
        try:
            for request in requests:
                futures.append(asyncio.wrap_future(self._engine.submit(request)))  # noqa: PERF401 - the last may be refused
            return await asyncio.gather(*futures)
        except NotStored as error:  # deleted since it was resolved
            raise ModelNotFoundError(asked.model) from error
        except (CorruptBlob, SwitchError, InvalidSwitchError) as error:  # it was fit when it was published
            _log.error("request %s: a switch of %s cannot be served: %s", asked.id, asked.model, error)
            raise StoredSwitchError(
                f"The stored switch cannot be served: {error}; publish it again, made for this base."
            ) from error
        finally:
            for future in futures:
                future.cancel()


def _head(selection: Selection, want: Want) -> str | None:
    return selection.head.digest if selection.head and want is Want.CLASSIFY else None
