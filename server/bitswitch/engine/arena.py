"""The resident weights as one flat stretch of memory, cut into blocks.

All switchable parameters are moved behind one another into one buffer and become views of it, so that
one kernel call reaches every weight by one index. Each parameter starts on a block boundary, so a block
of 4,096 weights belongs to exactly one parameter. Tables that passes look up by rows (see `tables`) lie
last, so that a transition may end before them. Knows nothing of switches; writes no weight after the move.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 4096
"""Weights per block: 64 words of 64 bits; in fp32 16 KiB, which the first-level cache holds."""

_NUMPY = {torch.float32: np.float32, torch.float16: np.uint16, torch.bfloat16: np.uint16}


class Arena:
    """One flat buffer of weights and the map from parameters to its blocks.

    Args:
        parameters: by name, all of one dtype (fp32, fp16 or bf16), all on the CPU or on one CUDA
            device. Their storage is replaced by views of the arena; values and bits stay as they are.
        triton: whether Triton's kernels are to write it; by default on a CUDA device alone. True on the
            CPU serves who runs them in Triton's interpreter.
        looked_up: the parameters that lie last, and that transitions leave at the base; on the CPU alone.

    Attributes:
        flat: the whole buffer, of the parameters' dtype and on their device, (size,).
        names: the parameters, in the order in which they lie.
        block_tensor: int32 (blocks,), which parameter a block belongs to.
        block_start: int64 (blocks,), index within that parameter of the block's first weight.
        first_block: by name, the block at which the parameter starts.
        written: how many blocks a transition may write: all that lie before what is looked up.

    Raises:
        ValueError: parameters of several dtypes or devices, or of one that is not supported; something is to
            be looked up where Triton's kernels write.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.Tensor],
        *,
        triton: bool | None = None,
        looked_up: Collection[str] = (),
    ) -> None:
        parameters = dict(sorted(parameters.items(), key=lambda named: named[0] in looked_up))
        dtypes = {parameter.dtype for parameter in parameters.values()}
        if len(dtypes) != 1 or not dtypes <= set(_NUMPY):
            names = ", ".join(sorted(str(dtype) for dtype in dtypes)) or "none"
            raise ValueError(
                f"the weights are of dtype {names}; one of float32, float16 or bfloat16 is needed"
            )
        devices = {parameter.device for parameter in parameters.values()}
        if len(devices) != 1 or not {device.type for device in devices} <= {"cpu", "cuda"}:
            names = ", ".join(sorted(str(device) for device in devices))
            raise ValueError(f"the weights are on {names}; all must be on the CPU or on one CUDA device")
        (self.dtype,) = dtypes
        (self.device,) = devices
        self.triton = self.device.type == "cuda" if triton is None else triton
        if self.triton and looked_up:
            raise ValueError(
                f"Triton's kernels look nothing up: {', '.join(sorted(looked_up))} must be written"
            )
        self.names = tuple(parameters)
        self.shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        counts = [-(-parameter.numel() // BLOCK) for parameter in parameters.values()]
        self.block_tensor = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.first_block = dict(zip(self.names, starts[:-1].tolist(), strict=True))
        self.written = min((self.first_block[name] for name in looked_up), default=self.blocks)
        self.block_start = (np.arange(starts[-1]) - np.repeat(starts[:-1], counts)) * BLOCK
        self.flat = torch.zeros(int(starts[-1]) * BLOCK, dtype=self.dtype, device=self.device)
        for name, parameter in parameters.items():
            home = self.home(name)
            home.copy_(parameter.detach())
            parameter.data = home

    def write_all(self) -> None:
        """Let transitions write what was to be looked up too; before there is a switch or a `Swap`."""
        self.written = self.blocks

    def home(self, name: str) -> torch.Tensor:
        """Where a parameter's weights lie: a view of the buffer, in its shape."""
        start = self.first_block[name] * BLOCK
        shape = self.shapes[name]
        return self.flat[start : start + math.prod(shape)].view(shape)

    @cached_property
    def weights(self) -> NDArray[np.float32] | NDArray[np.uint16]:
        """The buffer as numpy sees it, on the CPU alone: (size,), see `as_stored`."""
        return as_stored(self.flat)

    @property
    def blocks(self) -> int:
        """How many blocks of `BLOCK` weights there are."""
        return len(self.block_tensor)

    @property
    def bfloat16(self) -> bool:
        """Whether the uint16 bits are bf16 (else fp16)."""
        return self.dtype == torch.bfloat16


def as_stored(weights: torch.Tensor) -> NDArray[np.float32] | NDArray[np.uint16]:
    """Weights on the CPU as its kernels take them: float32, of halves the bits as uint16; no copy."""
    bits = weights if weights.dtype == torch.float32 else weights.view(torch.int16)
    return bits.numpy().view(_NUMPY[weights.dtype])
