"""Switches come and go while the server serves: upload, list, get, download, delete, aliases, pins."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse

from bitswitch.api.door import Guarded, Operating, Publishing
from bitswitch.api.parts import House, Parts, Who, actor_of, permit_of
from bitswitch.api.upload import FIELDS, read_form
from bitswitch.api.wire import AliasRequest, DeletedResponse, SwitchesResponse, SwitchOut
from bitswitch.model_ref import Term
from bitswitch.selection import find
from bitswitch_store.store import Entry

reading = APIRouter(route_class=Guarded, prefix="/v1/switches", tags=["switches"])
changing = APIRouter(route_class=Publishing, prefix="/v1/switches", tags=["switches"])
# What is pinned takes from the memory that all tenants share.
pinning = APIRouter(route_class=Operating, prefix="/v1/switches", tags=["switches"])

Name = Annotated[str, Path(max_length=64, description="The switch's name.", examples=["trec6"])]
Owner = Annotated[str | None, Query(max_length=64, description="Another tenant who shares it.")]
Which = Annotated[
    str | None, Query(max_length=64, description="A version or an alias; the latest if not given.")
]
Number = Annotated[int | None, Query(ge=1, le=999_999_999, description="One version; all if not given.")]
Force = Annotated[bool, Query(description="Delete it although aliases point there, and those too.")]

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": FIELDS, "required": ["file"]},
            }
        },
    }
}


@changing.post("", status_code=201, summary="Publish a switch", openapi_extra=_FORM)
async def publish(request: Request, house: House, who: Who) -> SwitchOut:
    """Check a switch file whole, store it as the next version of its name, and serve it from now on.

    The same bytes again under the same name give the version that is there already.
    """
    # The form is read here, after the door: FastAPI would read it before the key is looked at.
    with house.store.receive(house.max_upload_bytes) as upload:
        fields = await read_form(request, upload)
        storing = partial(
            house.publisher.publish,
            upload,
            tenant=who.tenant,
            name=fields.name,
            public=fields.public,
            room=permit_of(request).limits.room,
            by=actor_of(request),
        )
        # It goes on where the caller hangs up: the file is read until it ends.
        entry = await to_thread.run_sync(storing, limiter=house.publishing)
    return _out(house, entry)


def _out(house: Parts, entry: Entry) -> SwitchOut:
    return SwitchOut.of(entry, pinned=house.publisher.pinned(entry))


@reading.get("", summary="List switches")
def switches(house: House, who: Who) -> SwitchesResponse:
    """All versions of your own switches and of those that are shared with you."""
    return SwitchesResponse(data=[_out(house, entry) for entry in house.store.visible(who.tenant)])


@reading.get("/{name}", summary="Get one switch")
def switch(name: Name, house: House, who: Who, version: Which = None, tenant: Owner = None) -> SwitchOut:
    """One version of a switch."""
    return _out(house, find(house.store, who.tenant, Term(name, tenant, version)))


@reading.get("/{name}/file", summary="Download a switch", response_class=FileResponse)
def download(name: Name, house: House, who: Who, version: Which = None, tenant: Owner = None) -> FileResponse:
    """The very bytes that were uploaded."""
    entry = find(house.store, who.tenant, Term(name, tenant, version))
    return FileResponse(
        house.store.path(entry.digest),
        media_type="application/octet-stream",
        filename=f"{entry.name}@{entry.version}.switch.safetensors",
        headers={"x-switch-digest": entry.digest},
    )


@changing.delete("/{name}", summary="Delete a switch")
def delete(
    name: Name, request: Request, house: House, who: Who, *, version: Number = None, force: Force = False
) -> DeletedResponse:
    """Delete one version, or all. Refused with 409 while an alias points there."""
    find(house.store, who.tenant, Term(name, selector=None if version is None else str(version)))
    gone = house.publisher.withdraw(who.tenant, name, version, force=force, by=actor_of(request))
    return DeletedResponse(data=[_out(house, entry) for entry in gone])


@changing.put("/{name}/aliases/{alias}", summary="Point an alias to a version")
def set_alias(
    name: Name, alias: Name, body: AliasRequest, *, request: Request, house: House, who: Who
) -> SwitchOut:
    """`name@alias` means this version from now on, wherever it pointed before."""
    find(house.store, who.tenant, Term(name, selector=str(body.version)))
    return _out(house, house.store.set_alias(who.tenant, name, alias, body.version, by=actor_of(request)))


@changing.delete("/{name}/aliases/{alias}", summary="Take an alias away")
def delete_alias(name: Name, alias: Name, request: Request, house: House, who: Who) -> SwitchOut:
    """`name@alias` means nothing from now on; the version stays."""
    entry = find(house.store, who.tenant, Term(name, selector=alias))
    house.store.delete_alias(who.tenant, name, alias, by=actor_of(request))
    return _out(house, find(house.store, who.tenant, Term(name, selector=str(entry.version))))


@pinning.put("/{name}/pin", summary="Keep a switch in memory")
def pin(name: Name, house: House, who: Who, version: Which = None) -> SwitchOut:
    """Make it ready, and keep it so until it is unpinned or deleted, or the server ends; answers once it is.

    A pin is of these bytes: it does not pass to a version published later. Refused with 409 where all that
    is pinned would not fit into the memory for ready switches.
    """
    entry = find(house.store, who.tenant, Term(name, selector=version), base=house.base_identity.digest)
    house.publisher.pin(entry)
    return _out(house, entry)


@pinning.delete("/{name}/pin", summary="Let a switch leave memory")
def unpin(name: Name, house: House, who: Who, version: Which = None) -> SwitchOut:
    """It goes when memory is short and nobody uses it. One that is not pinned is no error."""
    entry = find(house.store, who.tenant, Term(name, selector=version))
    house.publisher.unpin(entry)
    return _out(house, entry)
