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
    """200 when requests are taken, 503 before, after, and while the weights are being mended."""
    _check_ready(house)
    return {"status": "ok"}


@router.get("/v2/health/live", summary="Whether the server lives")
async def live(house: House) -> dict[str, bool]:
    """200, but for a server that can no longer mend itself: 503 asks whoever watches it to start it anew."""
    if house.state().condition == "failed":
        raise UnavailableError("The server has failed and has to be started anew; its log says why.")
    return {"live": True}


@router.get("/v2/health/ready", summary="Whether requests are taken")
async def ready(house: House) -> dict[str, bool]:
    """200 when requests are taken, 503 before and after."""
    _check_ready(house)
    return {"ready": True}


def _check_ready(house: Parts) -> None:
    state = house.state()
    if not state.ready:
        raise UnavailableError(
            f"The server is not ready for requests ({state.condition}); try again shortly.", retry_after=1.0
        )
