"""The key that a request shows."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from bitswitch.api.door import Guarded
from bitswitch.api.parts import Who
from bitswitch.api.wire import Outgoing

router = APIRouter(route_class=Guarded, tags=["key"])


class KeyResponse(Outgoing):
    """Who a key stands for."""

    object: Literal["key"] = "key"
    id: str | None = Field(
        description="Null where none is needed, or it is the one of the server's settings."
    )
    tenant: str
    role: Literal["caller", "publisher", "admin"]
    expires: datetime | None


@router.get("/v1/key", summary="See whose key this is")
async def key(who: Who) -> KeyResponse:
    """The tenant and the role that your key stands for, and when it ends."""
    return KeyResponse(id=who.key, tenant=who.tenant, role=who.role.value, expires=who.expires)
