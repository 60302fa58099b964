"""What is on record: who used what, and who changed what."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from bitswitch.api.door import Guarded, Publishing
from bitswitch.api.parts import House, Who
from bitswitch.api.wire import Outgoing
from bitswitch.errors import InvalidRequestError, PermissionError  # noqa: A004
from bitswitch.tenants import usage
from bitswitch.tenants.caller import Caller, Role
from bitswitch_store import audit

used = APIRouter(route_class=Guarded, tags=["records"])
changed = APIRouter(route_class=Publishing, tags=["records"])

EVERYBODY = "*"
Whose = Annotated[
    str | None,
    Query(
        max_length=64, description="Another tenant, or `*` for all; for an admin alone. Yours if not given."
    ),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows at most.")]


def _as_written(day: object) -> object:
    """Pydantic would take a number for seconds since 1970; the document says ``format: date``."""
    if isinstance(day, str) and not _DAY.fullmatch(day):
        raise PydanticCustomError("data", "is no day; write one as in 2026-11-24")
    return day


_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
Day = Annotated[date, BeforeValidator(_as_written)]
From = Annotated[
    Day | None, Query(alias="from", description="The first day, UTC; the first there is if not given.")
]
To = Annotated[Day | None, Query(description="The last day, UTC; today if not given.")]
AfterRow = Annotated[str | None, Query(max_length=300, description="The last `id` you have seen.")]
AfterId = Annotated[int, Query(ge=0, lt=2**63, description="The last `id` you have seen.")]


class UsageOut(Outgoing):
    """A tenant's use of one switch on one day."""

    id: str
    day: date
    tenant: str
    owner: str
    name: str
    version: int
    requests: int
    inputs: int
    tokens: int
    seconds: float


class UsageResponse(Outgoing):
    """Uses by day, tenant and switch.

    The row without a name is all of that tenant's day. A mix counts whole for each of its switches, so theirs
    add up to more; `base` is the bare base.
    """

    object: Literal["list"] = "list"
    data: list[UsageOut]
    has_more: bool


class ActionOut(Outgoing):
    """Something that was changed, and by which key."""

    id: int
    at: datetime
    tenant: str
    key: str | None
    action: str
    target: str
    digest: str | None
    request_id: str


class AuditResponse(Outgoing):
    """Changes, the oldest first."""

    object: Literal["list"] = "list"
    data: list[ActionOut]
    has_more: bool


@used.get("/v1/usage", summary="See what was used")
def get_usage(
    house: House,
    who: Who,
    *,
    since: From = None,
    to: To = None,
    tenant: Whose = None,
    after: AfterRow = None,
    limit: Limit = 1000,
) -> UsageResponse:
    """Requests, inputs, tokens and seconds of forward passes, by day and switch; answered requests alone."""
    whose = _whose(who, tenant)
    house.ledger.flush()  # so that who asks finds what they used a moment ago
    last = to or datetime.now(UTC).date()
    try:
        rows = usage.listed(
            house.store.database, whose, since=since or date.min, until=last, after=after, limit=limit
        )
    except ValueError as error:
        raise InvalidRequestError("'after' is no id of a row of usage.", param="after") from error
    data = [UsageOut(id=row.id, **row.__dict__) for row in rows]
    return UsageResponse(data=data, has_more=len(rows) == limit)


@changed.get("/v1/audit", summary="See what was changed, and by whom")
def get_audit(
    house: House, who: Who, tenant: Whose = None, after: AfterId = 0, limit: Limit = 100
) -> AuditResponse:
    """Switches published, aliased, deleted, …: by which key, in which request. For publishers and admins."""
    rows = audit.listed(house.store.database, _whose(who, tenant), after=after, limit=limit)
    return AuditResponse(data=[ActionOut(**row.__dict__) for row in rows], has_more=len(rows) == limit)


def _whose(who: Caller, tenant: str | None) -> str | None:
    """Whose rows to show; None is everybody's.

    Raises:
        PermissionError: those of others, and the caller is no admin. The same whether there are such others.
    """
    if tenant is None or tenant == who.tenant:
        return who.tenant
    if who.role is not Role.ADMIN:
        raise PermissionError("Only an admin may see what is on record of other tenants.")
    return None if tenant == EVERYBODY else tenant
