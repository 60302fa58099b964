"""Methods that find the task by themselves: Auto-Switch as its authors measured it, per request, and ours.

The first kind gets batches of one task, mixes by the mean votes of the batch, and is told whose head to
use. The others get one request at a time, and what they find decides about weights and head alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.judge import Judge, head_bytes
from benchmarks.methods import Ground, Method, Vector, added_by
from benchmarks.routing import Features, lower_features, router
from benchmarks.tasks import Result, Task
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.core import Mix, Request, Row, Want
from bitswitch.engine.engine import Engine
from bitswitch.router.index import QueryIndex
from bitswitch.router.votes import count
from bitswitch_store import file

QUERIES, NEIGHBOURS, BATCH = 100, 10, 32
Shares = Mapping[str, float]
_AT_ONCE = 64


def published(base: Base, rows: Sequence[Row]) -> torch.Tensor:
    """The features of the released code: the last layer's first token, as it is; float32 (rows, dim)."""
    return base.forward(rows).output["last_hidden_state"][:, 0].float()


@dataclass
class Routes:
    """Who is voted for.

    Attributes:
        cache: folder where feature vectors are kept.
    """

    ground: Ground
    cache: Path

    def _features(self, name: str, compute: Callable[[Base, Sequence[Row]], torch.Tensor]) -> Features:
        data = self.ground.tasks[0].data.parent
        return Features(self.ground.base, data, self.cache / name, compute)

    @cached_property
    def _published(self) -> tuple[Features, QueryIndex]:
        found = self._features("published", published)
        queries = {task.name: found.of(f"{task.name}/train", QUERIES) for task in self.ground.tasks}
        return found, QueryIndex.of(queries)

    @cached_property
    def values(self) -> int:
        """How many values the query set of a task has."""
        return int(self._published[0].of(f"{self.ground.tasks[0].name}/train", QUERIES).size)

    def published(self, task: Task, places: Sequence[int]) -> list[Shares]:
        """Of each row the shares of the nearest query vectors, as the paper has them."""
        found, index = self._published
        rows = found.of(f"{task.name}/test", len(places))
        return [{one.digest: one.share for one in count(index.nearest(row, NEIGHBOURS))} for row in rows]

    @cached_property
    def _ours(self) -> tuple[Features, Mapping[str, NDArray[np.float32]]]:
        found = self._features("ours", lower_features)
        return found, {task.name: found.queries(task.name, QUERIES)[0] for task in self.ground.tasks}

    def ours(self, task: Task, places: Sequence[int]) -> list[tuple[Shares, bool]]:
        """Of each row the shares by the product's router, and whether it abstains."""
        found, queries = self._ours
        routes = router(queries).pick(found.of(f"{task.name}/test", len(places)), queries)
        return [({one.digest: one.share for one in route.neighbours}, route.abstained) for route in routes]


def by_batches(routes: Routes, path: str | None) -> Method:
    """Auto-Switch as published over the switches of ``path``; over whole task vectors without one."""
    kept: dict[str, Vector] = {}

    def vector(ground: Ground, task: Task) -> Vector:
        if path is None:
            return ground.vector(task)
        if task.name not in kept:
            added = added_by(file.read(ground.switch(task, path)))
            kept[task.name] = ground.flat.flatten(added)
        return kept[task.name]

    def method(ground: Ground, task: Task, places: Sequence[int]) -> Result:
        judge, votes = Judge(ground.base, task), routes.published(task, places)
        hits: list[NDArray[np.bool_]] = []
        for start in range(0, len(places), BATCH):
            part = votes[start : start + BATCH]
            mix = np.zeros(ground.flat.weights, np.float32)
            for other in ground.tasks:
                share = sum(one.get(other.name, 0.0) for one in part) / len(part)
                if share > 0:
                    mix += np.float32(share) * vector(ground, other)
            judge.set(ground.flat.tensors(mix))
            hits.append(judge.right([task.test[i] for i in places[start : start + BATCH]]))
        right = Result.marks(len(task.test), places, np.concatenate(hits))
        if path is not None:
            return Result(right, ground.switch(task, path).stat().st_size, ground.nbytes)
        queries = 2 * routes.values
        return Result(right, ground.nbytes + head_bytes(ground.base, task) + queries, ground.nbytes)

    return method


class Served:
    """The product's engine over switches, one request at a time; ``close`` ends it."""

    def __init__(self, ground: Ground, path: str) -> None:
        paths = {task.name: ground.switch(task, path) for task in ground.tasks}
        self._digests = {name: file.digest(where.read_bytes()) for name, where in paths.items()}
        self._switches = {self._digests[name]: file.read(where) for name, where in paths.items()}
        self._base = load(ground.base, dtype="float32")
        self._engine = Engine(self._base, self._switches.__getitem__, resident_bytes=2**32)
        self._engine.start()

    def right(self, task: Task, places: Sequence[int], shares: Sequence[Shares]) -> NDArray[np.bool_]:
        """Whether each row gets its label at its own mix, by the head of who has most of it; none: wrong."""
        found = np.zeros(len(places), bool)
        rows = self._base.encode([task.test[i].text for i in places], want=Want.CLASSIFY)
        for start in range(0, len(places), _AT_ONCE):
            asked = []
            for i in range(start, min(start + _AT_ONCE, len(places))):
                if shares[i]:
                    head = self._digests[max(shares[i], key=lambda name: shares[i][name])]
                    mix = Mix.of((self._digests[name], share) for name, share in shares[i].items())
                    asked.append(
                        (i, head, self._engine.submit(Request(mix, Want.CLASSIFY, (rows[i],), head)))
                    )
            for i, head, future in asked:
                answering = self._switches[head].head
                assert answering is not None
                label = answering.labels[int(future.result().values[0].argmax())]
                found[i] = label == task.test[places[i]].label
        return found

    def close(self) -> None:
        self._engine.stop()


def by_request(path: str, shares: Callable[[Task, Sequence[int]], list[Shares]]) -> Method:
    """Each request by its own votes, weights and head, over the switches of ``path``."""
    served: list[Served] = []

    def method(ground: Ground, task: Task, places: Sequence[int]) -> Result:
        if not served:
            served.append(Served(ground, path))
        right = served[0].right(task, places, shares(task, places))
        if task == ground.tasks[-1]:
            served.pop().close()
        size = ground.switch(task, path).stat().st_size
        return Result(Result.marks(len(task.test), places, right), size, ground.nbytes)

    return method


def routed(routes: Routes, *, alpha: float, budget: float) -> Mapping[str, Method]:
    """All of them by name, in the order of the page; the switches they take have to be made before.

    Args:
        alpha: of the paper's rule, for Auto-Switch as published.
        budget: of ours, for ours.
    """
    paper, ours = f"paper.{alpha}", f"budget.{budget}"

    def kept(task: Task, places: Sequence[int]) -> list[Shares]:
        return [{} if abstained else shares for shares, abstained in routes.ours(task, places)]

    return {
        "dense dynamic (Twin-like)": by_batches(routes, None),
        "Auto-Switch as published": by_batches(routes, paper),
        "Auto-Switch per request": by_request(paper, routes.published),
        "ours per request": by_request(ours, kept),
        "ours per request, never abstaining": by_request(
            ours, lambda task, places: [shares for shares, _ in routes.ours(task, places)]
        ),
    }
