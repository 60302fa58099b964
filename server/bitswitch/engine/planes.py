"""A switch ready for the kernels: the marks of its blocks, its knobs, and where they lie.

Only blocks with an active weight are kept. On the CPU the arrays are numpy's; for an arena that Triton's
kernels write they are laid out here all the same and then taken to its device, once. Writes no weight.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from bitswitch.engine import marks, sizes
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.knobs import address_of
from bitswitch_store.knobs import narrowest
from bitswitch_store.switch import Switch, TensorSwitch

COLUMNS = 6
"""A switch's line in the kernels' table, int64: addresses of marks, starts, counts, knobs (see `knobs`),
knob_start and width."""

Array: TypeAlias = Any
"""numpy's on the CPU, torch's on a device, where the marks are int64 of the same bits."""

_SIZES = ("sizes", "size_start")
"""What the CPU's kernels alone read."""

_ARRAYS = ("marks", "starts", "counts", "knobs", "knob_start", "width", "blocks", "slots", *_SIZES)


class Planes:
    """The kernels' form of one switch.

    Args:
        arena: where the weights lie.
        switch: a switch of that base; `Arena` parameters it does not name stay as they are.

    Attributes:
        blocks: int32 (n,), the arena's blocks with active weights, ascending.
        counts: int32 (n,), a block's active weights.
        starts: int32 (n,), where a block's marks begin, in words of 8 bytes.
        marks: uint64, see `engine.marks`.
        knobs: those of all parameters behind one another, and zeros where kernels read on: float32, on the
            CPU float16 if that holds every one exactly, as it does those of our rule.
        knob_start: int64 (parameters,), where a parameter's knobs begin.
        width: int64 (parameters,), how many weights of a parameter share a knob.
        slots: int32 (the arena's blocks,), where a block lies in ``blocks``; -1 where it does not.
        sizes: uint16, see `engine.sizes`: those of matrices whose blocks are all lists, behind one another;
            on the CPU alone.
        size_start: int64 (parameters,), where a parameter's sizes begin; -1 where it has none.
        active: how many weights are active, but for those that the arena has looked up.
        room: how many base values a journal of this switch alone saves.

    Raises:
        ValueError: the switch names a parameter the arena has not, or one of another shape.
    """

    def __init__(self, arena: Arena, switch: Switch) -> None:
        count = len(arena.names)
        position = {name: i for i, name in enumerate(arena.names)}
        self.knob_start: Array = np.zeros(count, np.int64)
        self.width: Array = np.ones(count, np.int64)
        self.size_start: Array = np.full(count, -1, np.int64)
        blocks, counts, starts, marked, knobs, measured = [], [], [], [], [], []
        word = knob = read = size = 0
        # In the arena's order, which need not be that of the names.
        for tensor in sorted(switch.tensors, key=lambda t: position.get(t.name, -1)):
            if tensor.name not in position:
                raise ValueError(f"the base has no tensor {tensor.name}")
            if tensor.shape != arena.shapes[tensor.name]:
                theirs = arena.shapes[tensor.name]
                raise ValueError(f"{tensor.name} is {tensor.shape} in the switch and {theirs} in the base")
            used, active, begin, written = _marked(tensor)
            blocks.append((arena.first_block[tensor.name] + used).astype(np.int32))
            counts.append(active.astype(np.int32))
            starts.append((word + begin).astype(np.int32))
            marked.append(written)
            knobs.append(tensor.knobs)
            index = position[tensor.name]
            self.knob_start[index] = knob
            self.width[index] = tensor.numel // tensor.knobs.size
            read = max(read, knob + (-(-tensor.numel // BLOCK) * BLOCK - 1) // int(self.width[index]) + 1)
            knob += tensor.knobs.size
            word += written.size
            if _has_sizes(tensor, active, arena):
                self.size_start[index] = size
                measured.append(_sizes(tensor, used, active, begin, written))
                size += measured[-1].size
        self.blocks: Array = np.concatenate([np.empty(0, np.int32), *blocks])
        self.counts: Array = np.concatenate([np.empty(0, np.int32), *counts])
        self.starts: Array = np.concatenate([np.empty(0, np.int32), *starts])
        self.marks: Array = np.concatenate([np.empty(0, np.uint64), *marked])
        # A kernel goes to the end of a vector's last block, and reads on where its knobs end.
        self.knobs: Array = np.concatenate([*knobs, np.zeros(max(read - knob, 0), np.float32)])
        self.sizes: Array = np.concatenate([np.empty(0, np.uint16), *measured])
        if not arena.triton:
            self.knobs = narrowest(self.knobs)
        self.slots: Array = np.full(arena.blocks, -1, np.int32)
        self.slots[self.blocks] = np.arange(len(self.blocks), dtype=np.int32)
        self.active = int(self.counts[self.blocks < arena.written].sum(dtype=np.int64))
        self.room = int(np.where(self.counts <= marks.FEW, self.counts, BLOCK).sum(dtype=np.int64))
        if arena.triton:
            for name in _ARRAYS[: -len(_SIZES)]:
                array = getattr(self, name)
                held = array.view(np.int64) if array.dtype == np.uint64 else array
                setattr(self, name, torch.from_numpy(held).to(arena.device))

    @cached_property
    def addresses(self) -> NDArray[np.int64]:
        """Where the arrays lie, int64 (COLUMNS,): a line of the kernels' table. Valid while self lives."""
        arrays = [getattr(self, name) for name in _ARRAYS[:COLUMNS]]
        if isinstance(self.knobs, torch.Tensor):
            return np.array([array.data_ptr() for array in arrays], np.int64)
        return np.array([address_of(a) if a is self.knobs else a.ctypes.data for a in arrays], np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(int(getattr(self, name).nbytes) for name in _ARRAYS)


def _marked(
    tensor: TensorSwitch,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """One tensor's blocks with active weights, how many each has, where its marks begin, and the marks."""
    padded = np.zeros(-(-tensor.numel // BLOCK) * (BLOCK // 8), np.uint8)
    padded[: tensor.activation.size] = tensor.activation
    lines = padded.view("<u8").reshape(-1, marks.WORDS)
    active = np.bitwise_count(lines).sum(axis=1, dtype=np.int64)
    used = np.flatnonzero(active)
    active = active[used]
    words = marks.sizes(active)
    starts = np.cumsum(words) - words
    written = np.zeros(int(words.sum()), np.uint64)
    marks.write(lines[used], np.cumsum(active) - active, active, tensor.polarity, starts, written)
    return used, active, starts, written


def _has_sizes(tensor: TensorSwitch, active: NDArray[np.int64], arena: Arena) -> bool:
    """Whether a tensor's sizes are kept: of a matrix that passes over the base multiply with on the CPU."""
    written = arena.first_block[tensor.name] < arena.written and not arena.triton
    return written and len(tensor.shape) > 1 and active.max(initial=0) <= marks.FEW


def _sizes(
    tensor: TensorSwitch,
    used: NDArray[np.int64],
    active: NDArray[np.int64],
    begin: NDArray[np.int64],
    written: NDArray[np.uint64],
) -> NDArray[np.uint16]:
    """A matrix's sizes, see `engine.sizes`."""
    rows = tensor.shape[0]
    found = np.zeros(sizes.count(rows, -(-tensor.numel // BLOCK)), np.uint16)
    sizes.write(found, written, begin, active, used, tensor.numel // rows)
    return found
