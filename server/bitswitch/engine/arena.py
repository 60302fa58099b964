"""The resident weights as one flat stretch of memory, cut into blocks.

All switchable parameters are moved behind one another into one buffer and become views of it, so that
one kernel call reaches every weight by one index. Each parameter starts on a block boundary, so a block
of 4,096 weights belongs to exactly one parameter. Knows nothing of switches; writes no weight after
the move.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 4096
"""Weights per block: 64 words of 64 bits; in fp32 16 KiB, which the first-level cache holds."""

_NUMPY = {torch.float32: np.float32, torch.float16: np.uint16, torch.bfloat16: np.uint16}


class Arena:
    """One flat buffer of weights and the map from parameters to its blocks.

    Args:
        parameters: by name, all of one dtype (fp32, fp16 or bf16), on the CPU. Their storage is
            replaced by views of the arena; values and bits stay as they are.

    Attributes:
        weights: the whole buffer; float32 (size,) for fp32, the raw bits as uint16 (size,) else.
        names: the parameters, in the order in which they lie.
        block_tensor: int32 (blocks,), which parameter a block belongs to.
        block_start: int64 (blocks,), index within that parameter of the block's first weight.
        first_block: by name, the block at which the parameter starts.

    Raises:
        ValueError: parameters of several dtypes, an unsupported dtype, or a device that is no CPU.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor]) -> None:
        dtypes = {parameter.dtype for parameter in parameters.values()}
        if len(dtypes) != 1 or not dtypes <= set(_NUMPY):
            names = ", ".join(sorted(str(dtype) for dtype in dtypes)) or "none"
            raise ValueError(
                f"the weights are of dtype {names}; one of float32, float16 or bfloat16 is needed"
            )
        if any(parameter.device.type != "cpu" for parameter in parameters.values()):
            raise ValueError("the weights are not in the CPU's memory; only device 'cpu' is switched so far")
        (self.dtype,) = dtypes
        self.names = tuple(parameters)
        self.shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        counts = [-(-parameter.numel() // BLOCK) for parameter in parameters.values()]
        self.block_tensor = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.first_block = dict(zip(self.names, starts[:-1].tolist(), strict=True))
        self.block_start = (np.arange(starts[-1]) - np.repeat(starts[:-1], counts)) * BLOCK
        flat = torch.zeros(int(starts[-1]) * BLOCK, dtype=self.dtype)
        for name, parameter in parameters.items():
            start = self.first_block[name] * BLOCK
            home = flat[start : start + parameter.numel()].view(parameter.shape)
            home.copy_(parameter.detach())
            parameter.data = home
        bits = flat if self.dtype == torch.float32 else flat.view(torch.int16)
        self.weights: NDArray[np.float32] | NDArray[np.uint16] = bits.numpy().view(_NUMPY[self.dtype])

    @property
    def blocks(self) -> int:
        """How many blocks of `BLOCK` weights there are."""
        return len(self.block_tensor)

    @property
    def bfloat16(self) -> bool:
        """Whether the uint16 bits are bf16 (else fp16)."""
        return self.dtype == torch.bfloat16
