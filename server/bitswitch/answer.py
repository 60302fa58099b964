"""The life of a request, in code: resolve → route → encode → submit → answer.

The one place that knows both the router and the engine. Knows nothing of HTTP. Whatever blocks
(the store, the tokenizer, the index) runs in a thread; the event loop only waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitswitch.base.model import Base
from bitswitch.core import Mix, Request, Result, Row, Timing, Want
from bitswitch.engine.engine import Engine
from bitswitch.errors import (
    DeadlineExceededError,
    InputTooLongError,
    InvalidRequestError,
    ModelNotFoundError,
    NotAClassifierError,
    RouteAbstainedError,
)
from bitswitch.model_ref import AUTO, parse
from bitswitch.router.auto import AutoSwitch
from bitswitch.selection import Choice, Selection, choice_of, routable, select
from bitswitch_store.store import NotStored, Store

Inputs = Sequence[str | tuple[str, str]]


@dataclass(frozen=True)
class Item:
    """The answer to one input.

    Attributes:
        values: float32, (labels,) probabilities or (dim,) embedding.
        selection: the mix it was computed at.
        choice: the route, if ``auto`` was asked.
        truncated: whether the input was longer than the model reads.
    """

    values: NDArray[np.float32]
    selection: Selection
    choice: Choice | None
    truncated: bool

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


@dataclass(frozen=True)
class _Asked:
    tenant: str
    model: str
    inputs: Inputs
    want: Want
    id: str
    deadline: float

    def request(self, mix: Mix, rows: Sequence[Row], *, want: Want, head: str | None = None) -> Request:
        return Request(mix, want, tuple(rows), head, self.tenant, self.deadline, self.id)


class Answers:
    """Answers requests with one base, one engine, one router and one store.

    Args:
        max_inputs: inputs one request may hold.
        timeout: seconds after which nobody waits for an answer any more.
    """

    def __init__(
        self, *, base: Base, engine: Engine, router: AutoSwitch, store: Store, max_inputs: int, timeout: float
    ) -> None:
        self._base = base
        self._engine = engine
        self._router = router
        self._store = store
        self._max_inputs = max_inputs
        self._timeout = timeout

    async def classify(self, tenant: str, model: str, inputs: Inputs, *, request_id: str = "") -> Answer:
        """Probabilities of each input's labels.

        Raises:
            InvalidModelError: ``model`` is not of the grammar.
            ModelNotFoundError: it names what this tenant may not see.
            NotAClassifierError: the heaviest switch of the mix has no head, or there is none.
            RouteAbstainedError: ``auto``, and an input is far from every query set.
            InputTooLongError: more inputs than one request may hold.
            OverloadedError, UnavailableError, DeadlineExceededError: the engine's.
        """
        async with self._asked(tenant, model, inputs, Want.CLASSIFY, request_id) as asked:
            return await self._answer(asked)

    async def embed(self, tenant: str, model: str, inputs: Inputs, *, request_id: str = "") -> Answer:
        """An embedding of each input; where ``auto`` abstains, the bare base's. Raises as `classify` does."""
        async with self._asked(tenant, model, inputs, Want.EMBED, request_id) as asked:
            return await self._answer(asked)

    async def route(self, tenant: str, inputs: Inputs, *, request_id: str = "") -> Routed:
        """What ``auto`` would do with each input, without doing it. Raises as `classify` does."""
        async with self._asked(tenant, AUTO, inputs, Want.FEATURES, request_id) as asked:
            return await self._route(asked)

    @asynccontextmanager
    async def _asked(
        self, tenant: str, model: str, inputs: Inputs, want: Want, request_id: str
    ) -> AsyncIterator[_Asked]:
        if not inputs:
            raise InvalidRequestError("There is no input; send one text or a list of them.", param="input")
        if len(inputs) > self._max_inputs:
            raise InputTooLongError(
                f"There are {len(inputs)} inputs; one request holds at most {self._max_inputs}.",
                param="input",
            )
        try:
            async with asyncio.timeout(self._timeout):
                yield _Asked(tenant, model, inputs, want, request_id, time.monotonic() + self._timeout)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"There was no answer within {self._timeout:g} s; try again later."
            ) from error

    async def _answer(self, asked: _Asked) -> Answer:
        ref = parse(asked.model)
        before = Timing()
        choices: Sequence[Choice | None] = [None] * len(asked.inputs)
        if ref.auto:
            routed = await self._route(asked)
            choices, before = routed.choices, routed.timing
            model = AUTO
            selections = [choice.selection for choice in routed.choices]
        else:
            selection = await asyncio.to_thread(select, self._store, asked.tenant, ref)
            model = selection.model
            selections = [selection] * len(asked.inputs)
        if asked.want is Want.CLASSIFY:
            _check_heads(selections, choices)
        rows = await self._encode(asked, asked.want)
        values, timing = await self._compute(asked, rows, selections)
        items = map(Item, values, selections, choices, (row.truncated for row in rows))
        return Answer(model, tuple(items), sum(row.length for row in rows), before + timing)

    async def _route(self, asked: _Asked) -> Routed:
        rows = await self._encode(asked, Want.FEATURES)
        (result,) = await self._submit(asked, [asked.request(Mix.of(), rows, want=Want.FEATURES)])
        choices = await asyncio.to_thread(self._pick, asked.tenant, result.values)
        return Routed(tuple(choices), sum(row.length for row in rows), result.timing)

    def _pick(self, tenant: str, features: NDArray[np.float32]) -> list[Choice]:
        named = routable(self._store, tenant)
        return [choice_of(route, named) for route in self._router.pick(features, named.keys())]

    async def _encode(self, asked: _Asked, want: Want) -> tuple[Row, ...]:
        return await asyncio.to_thread(self._base.encode, asked.inputs, want=want)

    async def _compute(
        self, asked: _Asked, rows: Sequence[Row], selections: Sequence[Selection]
    ) -> tuple[list[NDArray[np.float32]], Timing]:
        """One value row per input: inputs of equal mix and head are one request to the engine."""
        groups: dict[tuple[Mix, str | None], list[int]] = {}
        for index, selection in enumerate(selections):
            head = selection.head.digest if selection.head and asked.want is Want.CLASSIFY else None
            groups.setdefault((selection.mix, head), []).append(index)
        requests = [
            asked.request(mix, [rows[index] for index in indices], want=asked.want, head=head)
            for (mix, head), indices in groups.items()
        ]
        results = await self._submit(asked, requests)
        values: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(rows)
        for indices, result in zip(groups.values(), results, strict=True):
            for index, row in zip(indices, result.values, strict=True):
                values[index] = row
        # The groups waited for each other: the slowest one's times are what the caller lived through.
        return values, max((result.timing for result in results), key=_seconds)

    async def _submit(self, asked: _Asked, requests: Sequence[Request]) -> list[Result]:
        """All results, or the first error. What still waits then, or when the caller goes, is dropped."""
        futures: list[asyncio.Future[Result]] = []
        try:
            for request in requests:
                futures.append(asyncio.wrap_future(self._engine.submit(request)))  # noqa: PERF401 - the last may be refused
            return await asyncio.gather(*futures)
        except NotStored as error:  # deleted since it was resolved
            raise ModelNotFoundError(asked.model) from error
        finally:
            for future in futures:
                future.cancel()


def _check_heads(selections: Sequence[Selection], choices: Sequence[Choice | None]) -> None:
    for index, (selection, choice) in enumerate(zip(selections, choices, strict=True)):
        if choice is not None and choice.abstained:
            raise RouteAbstainedError(
                f"No switch is near input {index}: its distance to the nearest query set is"
                f" {choice.distance:.3g}, of at most {choice.threshold:.3g}; name a model instead of 'auto'.",
                param=f"input.{index}",
            )
        if selection.head is None:
            raise NotAClassifierError(
                "The bare base has no classification head; name a switch that has one.", param="model"
            )
        if not selection.head.labels:
            raise NotAClassifierError(
                f"The heaviest switch of the mix, {selection.head.ref}, has no classification head;"
                " name one that has, or ask for embeddings.",
                param="model",
            )


def _seconds(timing: Timing) -> float:
    return timing.queue + timing.swap + timing.forward
