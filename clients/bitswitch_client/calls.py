"""Every call of the API, once: its arguments, what it sends, and what it returns.

`client` turns each into a method of `Client` and of `AsyncClient`; these docstrings are theirs too.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import httpx

from bitswitch_client import reading
from bitswitch_client.answers import (
    Action,
    Classification,
    Embedding,
    KeyInfo,
    Model,
    Published,
    Routing,
    Sharing,
    State,
    Used,
    Verdict,
)
from bitswitch_client.call import Call

Image = bytes | Path
"""An image: the bytes of a PNG, JPEG or WebP file, or where it is."""

Input = str | Image | Sequence[str | tuple[str, str] | Image]
"""A text, or several; for tasks on two texts each is a pair of them. Or images, where the server's base reads
images: as `Image`, or as the data URL or base64 of one."""

_READY_STATUSES = frozenset({httpx.codes.SERVICE_UNAVAILABLE})


def _wire(inputs: Input) -> str | list[str | list[str]]:
    if isinstance(inputs, str):
        return inputs
    if isinstance(inputs, bytes | Path):
        return _data_url(inputs)
    return [_one(given) for given in inputs]


def _one(given: str | tuple[str, str] | Image) -> str | list[str]:
    if isinstance(given, bytes | Path):
        return _data_url(given)
    return given if isinstance(given, str) else list(given)


def _data_url(image: Image) -> str:
    content = image.read_bytes() if isinstance(image, Path) else image
    kind = "jpeg" if content[:2] == b"\xff\xd8" else "webp" if content[8:12] == b"WEBP" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def classify(model: str, input: Input) -> Call[Classification]:  # noqa: A002 - the API's own word
    """Classify texts; or images, if that is what the server's base reads.

    Args:
        model: a switch, ``name@version`` or ``name@alias``, a mix ``a*0.6+b*0.4``, or ``auto``.

    Raises:
        RouteAbstainedError: ``auto``, and an input is near to no task.
        OSError: an image's file cannot be read.
    """
    body = {"model": model, "input": _wire(input)}
    return Call("POST", "/v1/classify", lambda r: reading.answer(r, reading.classified), json=body)


def embed(model: str, input: Input, *, dimensions: int | None = None) -> Call[Embedding]:  # noqa: A002
    """Embed texts, by the base's own pooling.

    Args:
        model: as in `classify`; ``base`` is the bare base.
        dimensions: keep the first so many values, normalized again; None keeps all.
    """
    body = {"model": model, "input": _wire(input), "dimensions": dimensions, "encoding_format": "base64"}
    return Call("POST", "/v1/embeddings", lambda r: reading.answer(r, reading.embedded), json=body)


def route(input: Input) -> Call[Routing]:  # noqa: A002
    """What ``auto`` would choose for each input, without running the task."""
    body = {"model": "auto", "input": _wire(input)}
    return Call("POST", "/v1/route", lambda r: reading.answer(r, reading.route), json=body)


def models() -> Call[tuple[Model, ...]]:
    """The names that ``model`` may hold: ``base``, ``auto``, and every switch you may see."""
    return Call("GET", "/v1/models", lambda r: tuple(map(reading.model, r.json()["data"])))


def switches() -> Call[tuple[Published, ...]]:
    """Every version of every switch you may see."""
    return Call("GET", "/v1/switches", lambda r: tuple(map(reading.published, r.json()["data"])))


def switch(name: str, *, version: str | int | None = None, tenant: str | None = None) -> Call[Published]:
    """One version of a switch.

    Args:
        version: a number or an alias; None is the latest.
        tenant: who shares it; None is yourself.
    """
    return Call("GET", "/v1/switches/{name}", _published, fill={"name": name}, query=_which(version, tenant))


def publish(
    source: str | os.PathLike[str] | bytes, name: str | None = None, *, public: bool = False
) -> Call[Published]:
    """Upload a switch; the server checks it whole and serves it from then on.

    The same switch again under the same name gives the version that is there already.

    Args:
        source: the file that ``bitswitch make`` wrote, or its bytes.
        name: what it is called; None is its task's name.
        public: whether every tenant sees the name from now on; `share` says more, and takes it back.

    Raises:
        OSError: the file cannot be read.
        InvalidRequestError: it is no switch, or not one of the server's base.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    form = {"public": "true" if public else "false", "digest": hashlib.sha256(content).hexdigest()} | (
        {} if name is None else {"name": name}
    )
    file = ("upload.switch.safetensors", content)
    return Call("POST", "/v1/switches", _published, file=file, form=form)


def download(
    name: str,
    path: str | os.PathLike[str],
    *,
    version: str | int | None = None,
    tenant: str | None = None,
) -> Call[Path]:
    """Write the very bytes that were uploaded to ``path``, all or nothing; returns the path.

    The file is held in memory meanwhile. ``version`` and ``tenant`` are as in `switch`.

    Raises:
        OSError: the file cannot be written.
        UnexpectedAnswerError: what came is not what the server holds.
    """

    def save(response: httpx.Response) -> Path:
        digest = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
        if digest != response.headers["x-switch-digest"]:
            raise ValueError(f"the bytes' digest is {digest}, not {response.headers['x-switch-digest']}")
        target = Path(path)
        unfinished = target.with_name(target.name + ".part")
        unfinished.write_bytes(response.content)
        return unfinished.replace(target)

    query = _which(version, tenant)
    return Call("GET", "/v1/switches/{name}/file", save, fill={"name": name}, query=query)


def delete(name: str, *, version: int | None = None, force: bool = False) -> Call[tuple[Published, ...]]:
    """Delete one version of a switch, or (None) all; returns what was deleted.

    Raises:
        ConflictError: an alias points there; ``force`` deletes the alias too.
    """
    return Call(
        "DELETE",
        "/v1/switches/{name}",
        lambda r: tuple(map(reading.published, r.json()["data"])),
        fill={"name": name},
        query={"version": version, "force": force or None},
        repeatable=False,  # a second time would find nothing, and say so
    )


def alias(name: str, alias: str, version: int) -> Call[Published]:
    """Let ``name@alias`` mean this version from now on, wherever it pointed before."""
    fill = {"name": name, "alias": alias}
    return Call(
        "PUT", "/v1/switches/{name}/aliases/{alias}", _published, fill=fill, json={"version": version}
    )


def unalias(name: str, alias: str) -> Call[Published]:
    """Let ``name@alias`` mean nothing from now on; the version stays."""
    fill = {"name": name, "alias": alias}
    return Call("DELETE", "/v1/switches/{name}/aliases/{alias}", _published, fill=fill, repeatable=False)


def usage(
    *,
    since: date | None = None,
    until: date | None = None,
    tenant: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> Call[tuple[Used, ...]]:
    """What was used, by day and switch.

    Args:
        since, until: the first day and the last, UTC; None is the first there is, and today.
        tenant: another's, or ``*`` for all, which takes an admin's key; None is your own.
        after: the `Used.id` that you have seen last.
        limit: rows at most; None is 1,000.
    """
    query: dict[str, Any] = {"from": since and since.isoformat(), "to": until and until.isoformat()}
    query |= {"tenant": tenant, "after": after, "limit": limit}
    return Call("GET", "/v1/usage", lambda r: tuple(map(reading.used, r.json()["data"])), query=query)


def audit(
    *, tenant: str | None = None, after: int | None = None, limit: int | None = None
) -> Call[tuple[Action, ...]]:
    """What was changed, the oldest first.

    Args:
        tenant: as in `usage`.
        after: the `Action.id` that you have seen last.
        limit: rows at most; None is 100.
    """
    query = {"tenant": tenant, "after": after, "limit": limit}
    return Call("GET", "/v1/audit", lambda r: tuple(map(reading.action, r.json()["data"])), query=query)


def sharing(name: str) -> Call[Sharing]:
    """Who else sees a switch of your own."""
    return Call("GET", "/v1/switches/{name}/sharing", _shared, fill={"name": name})


def share(name: str, *, public: bool = False, tenants: Sequence[str] = ()) -> Call[Sharing]:
    """Let exactly these see a switch, all its versions, from the next request on; nobody if none are given.

    Args:
        public: everybody.
        tenants: these anyway; they name it ``tenant/name``.
    """
    body = {"public": public, "tenants": list(tenants)}
    return Call("PUT", "/v1/switches/{name}/sharing", _shared, fill={"name": name}, json=body)


def whoami() -> Call[KeyInfo]:
    """The tenant and the role that the client's key stands for."""
    return Call("GET", "/v1/key", lambda r: reading.key(r.json()))


def pin(name: str, *, version: str | int | None = None) -> Call[Published]:
    """Keep a version of a switch ready in the server's memory; returns once it is.

    Holds for these bytes until `unpin`, until they are deleted, or until the server ends.

    Args:
        version: a number or an alias; None is the latest.

    Raises:
        ConflictError: what is pinned would not fit into the memory for ready switches.
    """
    query = {"version": version}
    return Call("PUT", "/v1/switches/{name}/pin", _published, fill={"name": name}, query=query)


def unpin(name: str, *, version: str | int | None = None) -> Call[Published]:
    """Let a version of a switch go again when memory is short; one that is not pinned is no error."""
    query = {"version": version}
    return Call("DELETE", "/v1/switches/{name}/pin", _published, fill={"name": name}, query=query)


def verify() -> Call[Verdict]:
    """Let the server prove that its resident weights are the base's, bit for bit."""
    return Call("GET", "/v1/admin/verify", lambda r: reading.verdict(r.json()))


def state() -> Call[State]:
    """What goes on in the server right now."""
    return Call("GET", "/v1/admin/state", lambda r: reading.state(r.json()))


def ready() -> Call[bool]:
    """Whether the server takes requests. Asked once: a server that is not there raises at once."""
    return Call("GET", "/v2/health/ready", lambda r: r.is_success, answers=_READY_STATUSES, patient=False)


def _shared(response: httpx.Response) -> Sharing:
    return reading.sharing(response.json())


def _published(response: httpx.Response) -> Published:
    return reading.published(response.json())


def _which(version: str | int | None, tenant: str | None) -> dict[str, str | int | None]:
    return {"version": version, "tenant": tenant}
