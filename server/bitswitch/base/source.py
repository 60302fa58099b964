"""The base's weights once more, from its checkpoint, as they were loaded. Knows nothing of who needs them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bitswitch.base.faults import BaseError
from bitswitch.base.model import Base
from bitswitch_store.checkpoint import Checkpoint, CheckpointError

STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""A checkpoint's types as torch names them."""


def stored_weights(base: Base) -> Iterator[tuple[str, torch.Tensor]]:
    """Every switchable parameter's name and values, on the CPU, in the dtype that the base is held in.

    One at a time, so that no second copy of the weights is ever in memory.

    Raises:
        BaseError: the folder no longer holds them.
    """
    try:
        checkpoint = Checkpoint.open(base.folder)
    except (CheckpointError, OSError) as error:
        raise BaseError(f"the base cannot be read again: {error}") from error
    for name, parameter in base.parameters.items():
        if name not in checkpoint or checkpoint.shape(name) != tuple(parameter.shape):
            raise BaseError(f"the base cannot be read again: {base.folder} has no {name} of its shape now")
        values = torch.frombuffer(bytearray(checkpoint.raw(name)), dtype=STORED[checkpoint.dtype(name)])
        yield name, values.reshape(parameter.shape).to(parameter.dtype)
