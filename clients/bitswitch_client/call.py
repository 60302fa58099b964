"""What one call is: what it sends, and how its answer is read. Sends nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of the API.

    Attributes:
        path: the path as the API's documentation writes it, e.g. ``/v1/switches/{name}``.
        parse: reads a response; `LookupError`, `TypeError` or `ValueError` for one it does not know.
        fill: values for the path's ``{…}``.
        query: parameters after the ``?``; those that are None are left out.
        json: the body, if it is JSON; fields that are None are left out.
        file: name and bytes of the file to upload, if any; ``form`` are the fields beside it.
        answers: statuses that `parse` reads beside the 2xx.
        repeatable: whether making it twice does no more than making it once.
        patient: whether to ask again at all.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    fill: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    file: tuple[str, bytes] | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    answers: frozenset[int] = frozenset()
    repeatable: bool = True
    patient: bool = True

    def __str__(self) -> str:
        return f"{self.method} {self.url}"

    @property
    def url(self) -> str:
        """The path, filled in."""
        return self.path.format_map({name: quote(value, safe="") for name, value in self.fill.items()})

    def arguments(self) -> dict[str, Any]:
        """Arguments of `httpx.Client.request`."""
        given: dict[str, Any] = {"method": self.method, "url": self.url}
        if query := _given(self.query):
            given["params"] = query
        if self.json is not None:
            given["json"] = _given(self.json)
        if self.file is not None:
            name, content = self.file
            given |= {"files": {"file": (name, content, "application/octet-stream")}, "data": dict(self.form)}
        return given


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
