"""The CUDA `Kernel`: the journal in the device's memory, and the launch of `cuda.transition`.

The host sends one short table per transition and, for a mix of several switches, reads back two numbers
(how much memory the journal needs). Knows nothing of mixes' names, nor of when a transition is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from bitswitch.engine import cuda
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.marks import FEW
from bitswitch.engine.planes import Planes
from bitswitch.engine.rehearsal import rehearse

PROGRAMS = 1024
"""Programs of one launch for a mix of several switches, at most; each has 4 KiB a switch of scratch."""

LAUNCH = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}
"""Unpipelined, since a block's loads must come after its stores; unfused, as the contract demands."""


@dataclass(frozen=True, eq=False)
class Journal:
    """What must be remembered to undo a transition exactly, on the device.

    Attributes:
        slots: int32 (the arena's blocks,), a block's line in what follows; -1 if none was touched.
        counts: int32 (n,), saved weights of each block; above `FEW`, the whole block was saved.
        places: int64 (n,), where a block's offsets begin.
        offsets: int16, of saved weights within their blocks; the top bits may hold something else, and
            one offset may come several times.
        ranks: int64 (n,), where a block's saved values begin.
        saved: the bits of the base's own values, int32 or int16.
    """

    slots: torch.Tensor
    counts: torch.Tensor
    places: torch.Tensor
    offsets: torch.Tensor
    ranks: torch.Tensor
    saved: torch.Tensor


def current(device: torch.device) -> AbstractContextManager[object]:
    """``device`` as torch's current one, which is where Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class CudaKernel:
    """See `Kernel`.

    Args:
        arena: the weights, at the base: on a CUDA device, or on the CPU for Triton's interpreter.
    """

    def __init__(self, arena: Arena) -> None:
        device = self._device = arena.device
        self._blocks = arena.blocks
        self._dtype = arena.dtype
        self._weights = arena.flat.view(torch.int32 if arena.flat.itemsize == 4 else torch.int16)
        self._block_tensor = torch.from_numpy(arena.block_tensor).to(device)
        self._block_start = torch.from_numpy(arena.block_start).to(device)
        self._signs = torch.zeros(0, dtype=torch.int8, device=device)
        line = torch.zeros(1, dtype=torch.int64, device=device)
        self.torn = False
        self._resting = self._journal = Journal(
            slots=torch.full((arena.blocks,), -1, dtype=torch.int32, device=device),
            counts=line.int(),
            places=line,
            offsets=line.short(),
            ranks=line,
            saved=self._weights[:0],
        )

    @property
    def journal_bytes(self) -> int:
        """Bytes of base values saved at present."""
        return self._journal.saved.nbytes

    def warm_up(self) -> None:
        """Compile the kernels, and hold what they write against the CPU's, bit for bit.

        Raises:
            RuntimeError: it differs; this device must not serve.
        """
        rehearse(CudaKernel, self._device, self._dtype)

    def transition(self, planes: Sequence[Planes], weights: Sequence[float]) -> None:
        """See `Kernel`."""
        with current(self._device):
            old, new = self._journal, self._journal_for(planes)
            lines = [[*one.addresses.tolist(), one.slots.data_ptr()] for one in planes]
            table = torch.tensor(lines, dtype=torch.int64).to(self._device)
            mix = torch.from_numpy(np.array(weights, np.float32)).to(self._device)
            many = len(planes) > 1
            programs = min(self._blocks, PROGRAMS) if many else self._blocks
            if many and self._signs.numel() < programs * len(planes) * BLOCK:
                self._signs = torch.zeros(
                    programs * len(planes) * BLOCK, dtype=torch.int8, device=self._device
                )
            self.torn = True
            cuda.transition[(programs,)](
                self._weights,
                self._block_tensor,
                self._block_start,
                old.slots,
                old.counts,
                old.places,
                old.offsets,
                old.ranks,
                old.saved,
                new.slots,
                new.counts,
                new.places,
                new.offsets,
                new.ranks,
                new.saved,
                table,
                mix,
                self._signs,
                len(planes),
                self._blocks,
                dtype=str(self._dtype).removeprefix("torch."),
                many=many,
                **LAUNCH,
            )
            self._journal = new  # launched: from here on the weights are on their way
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self.torn = False

    def forget(self) -> None:
        """See `Kernel`."""
        self._journal = self._resting
        self._signs = self._signs[:0].clone()
        self.torn = False

    def _journal_for(self, planes: Sequence[Planes]) -> Journal:
        """A journal with room for a mix of these switches; its slots come from prefix counts over blocks."""
        if not planes:
            return self._resting
        if len(planes) == 1:  # the switch's own offsets serve
            (one,) = planes
            lengths = torch.where(one.counts <= FEW, one.counts, BLOCK)
            return Journal(
                slots=one.slots,
                counts=one.counts,
                places=one.starts.long() * 4,
                offsets=one.marks.view(torch.int16),
                ranks=torch.cumsum(lengths, 0) - lengths,
                saved=self._room(one.room),
            )
        counts = torch.zeros(self._blocks, dtype=torch.int32, device=self._device)
        for one in planes:
            counts.index_add_(0, one.blocks, one.counts)
        listed = torch.where(counts <= FEW, counts, 0)
        lengths = torch.where(counts <= FEW, counts, BLOCK)
        room, offsets = torch.stack([lengths.sum(), listed.sum()]).tolist()
        every = torch.arange(self._blocks, dtype=torch.int32, device=self._device)
        return Journal(
            slots=torch.where(counts > 0, every, -1),
            counts=counts,
            places=torch.cumsum(listed, 0) - listed,
            offsets=torch.empty(offsets, dtype=torch.int16, device=self._device),
            ranks=torch.cumsum(lengths, 0) - lengths,
            saved=self._room(room),
        )

    def _room(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=self._weights.dtype, device=self._device)
