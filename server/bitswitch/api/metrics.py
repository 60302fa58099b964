"""What the server counts and times, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute

from bitswitch.api.door import Operating
from bitswitch.api.parts import House
from bitswitch.observe.metrics import CONTENT_TYPE


def router(*, public: bool) -> APIRouter:
    """The route of the metrics; open to all if ``public``: they name no tenant."""
    routes = APIRouter(route_class=APIRoute if public else Operating, tags=["admin"])
    routes.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        summary="Metrics in Prometheus's format",
        response_class=Response,
    )
    return routes


def metrics(house: House) -> Response:
    """What the server counts and times."""
    return Response(house.metrics.render(), media_type=CONTENT_TYPE)
