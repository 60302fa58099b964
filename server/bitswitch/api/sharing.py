"""Who besides its owner sees a switch."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from bitswitch.api.door import Publishing
from bitswitch.api.parts import House, Who, actor_of
from bitswitch.api.switches import Name
from bitswitch.api.wire import Incoming, Outgoing
from bitswitch.errors import ModelNotFoundError
from bitswitch.model_ref import Term
from bitswitch.selection import find
from bitswitch_store.store import Sharing

router = APIRouter(route_class=Publishing, prefix="/v1/switches", tags=["switches"])

TenantName = Annotated[str, Field(max_length=64, examples=["acme"])]


class SharingRequest(Incoming):
    """Who shall see it from now on; nobody else does."""

    public: bool = Field(False, description="Whether every tenant sees it.")
    tenants: list[TenantName] = Field(
        default_factory=list, max_length=1000, description="Who sees it anyway."
    )


class SharingResponse(Outgoing):
    """Who sees a switch, all its versions, besides its owner."""

    object: Literal["switch.sharing"] = "switch.sharing"
    name: str
    public: bool
    tenants: list[str]


@router.get("/{name}/sharing", summary="See who else sees a switch")
def sharing(name: Name, house: House, who: Who) -> SharingResponse:
    """Everybody, or these tenants; the others do not know that it exists."""
    now = house.store.sharing(who.tenant, name)
    if now is None:
        raise ModelNotFoundError(name)
    return _response(name, now)


@router.put("/{name}/sharing", summary="Share a switch, or take it back")
def share(name: Name, body: SharingRequest, request: Request, house: House, who: Who) -> SharingResponse:
    """All its versions, those to come included, from the next request on."""
    find(house.store, who.tenant, Term(name))
    wanted = Sharing(public=body.public, tenants=tuple(body.tenants))
    return _response(name, house.store.share(who.tenant, name, wanted, by=actor_of(request)))


def _response(name: str, sharing: Sharing) -> SharingResponse:
    return SharingResponse(name=name, public=sharing.public, tenants=list(sharing.tenants))
