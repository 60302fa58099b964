"""When memory runs out: how torch, numpy and Python say so, and what a caller hears. Frees nothing itself."""

from __future__ import annotations

import torch

from bitswitch.errors import UnavailableError


def lacks_memory(error: BaseException | None) -> bool:
    """Whether that is what went wrong."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch has a class for CUDA alone; on the CPU the text tells.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def no_memory() -> UnavailableError:
    """What a caller hears of it."""
    return UnavailableError(
        "The device has no memory left for this request; send fewer inputs, or try again shortly.",
        retry_after=1.0,
    )
