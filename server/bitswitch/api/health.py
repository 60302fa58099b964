"""Whether the server lives and takes requests. The only endpoints that need no key.

They are coroutines: a plain function would wait for a thread, behind whatever keeps the threads busy.
"""

from __future__ import annotations

from fastapi import APIRouter

from bitswitch.api.parts import House, Parts
from bitswitch.errors import UnavailableError

router = APIRouter(tags=["health"])


@router.get("/health", summary="Whether requests are taken (vLLM's path)")
async def health(house: House) -> dict[str, str]:
    """200 when requests are taken, 503 before and after."""
    _check_ready(house)
    return {"status": "ok"}


@router.get("/v2/health/live", summary="Whether the server lives")
async def live() -> dict[str, bool]:
    """200, always."""
    return {"live": True}


@router.get("/v2/health/ready", summary="Whether requests are taken")
async def ready(house: House) -> dict[str, bool]:
    """200 when requests are taken, 503 before and after."""
    _check_ready(house)
    return {"ready": True}


def _check_ready(house: Parts) -> None:
    if not house.state().ready:
        raise UnavailableError("The server is not ready for requests; try again shortly.", retry_after=1.0)
