"""What ``auto`` would do, and why."""

from __future__ import annotations

from fastapi import APIRouter, Request

from bitswitch.api.door import Guarded
from bitswitch.api.inputs import listed
from bitswitch.api.parts import House, Who, permit_of
from bitswitch.api.serve import Served, head, note, request_id
from bitswitch.api.wire import RouteDatum, RouteOut, RouteRequest, RouteResponse
from bitswitch.core import Want
from bitswitch.model_ref import AUTO
from bitswitch.tenants.usage import BASE, Use

router = APIRouter(route_class=Guarded, tags=["inference"])


@router.post("/v1/route", summary="Ask what `auto` would choose")
async def route(body: RouteRequest, request: Request, house: House, who: Who) -> RouteResponse:
    """The mix that `auto` would set the weights to for each input, without running the task."""
    routed = await house.answers.route(
        who.tenant, listed(body.input), request_id=request_id(request), permit=permit_of(request)
    )
    abstained = sum(choice.abstained for choice in routed.choices)
    use = Use(1, len(routed.choices), routed.tokens, routed.timing.forward)
    note(
        request,
        Served(
            Want.FEATURES, routed.timing, routed.tokens, use.inputs, AUTO, ((BASE, use),), abstained=abstained
        ),
    )
    return RouteResponse(
        **head(request, "route", AUTO, routed.tokens),
        data=[
            RouteDatum(index=index, **RouteOut.fields_of(choice))
            for index, choice in enumerate(routed.choices)
        ],
    )
