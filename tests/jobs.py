"""Jobs for the tests of the queue and the scheduler: of any size, with switches that only have a size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitswitch.core import Mix, Request, Row, Want
from bitswitch.engine.job import Job
from bitswitch.engine.schedule import Step

A, B = Mix.of([("a", 1.0)]), Mix.of([("b", 1.0)])


@dataclass(frozen=True)
class Sized:
    """Stands for planes where only their size is looked at."""

    active: int


@dataclass(frozen=True)
class Ready:
    """Stands for a switch in memory."""

    planes: Sized
    head: None = None


def job(
    name: str,
    mix: Mix = A,
    *,
    tenant: str = "t",
    rows: int = 1,
    length: int = 4,
    ready: bool = True,
    active: int = 1000,
    **more: Any,
) -> Job:
    """A job of ``rows`` rows of ``length`` tokens each."""
    row = Row({"input_ids": [0] * length})
    switches: Any = {digest: Ready(Sized(active)) for digest in mix.digests} if ready else None
    return Job(Request(mix, Want.EMBED, (row,) * rows, tenant=tenant, id=name, **more), switches)


def names(step: Step | None) -> list[str]:
    """The ids of a step's requests."""
    assert step is not None
    return [one.request.id for one in step.jobs]
