"""The CUDA `Additions`: what is sent to the device for a pass, and the launches of the overlay's kernels.

A pass sends one buffer, whatever its rows need; a linear layer then costs one launch, and one more to lay
the tokens side by side where the layer before did not have the same input. Knows nothing of modules or of
mixes' names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch.nn import functional

from bitswitch.engine import cuda_lookup, cuda_product
from bitswitch.engine.additions import Latest
from bitswitch.engine.arena import BLOCK, Arena
from bitswitch.engine.cuda_kernel import current
from bitswitch.engine.mixes import Part
from bitswitch.engine.needs import Columns

OUTPUTS: int = cuda_product.OUTPUTS.value
TOKENS: int = cuda_product.TOKENS.value

LAUNCH = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
"""Two stages, since with three Triton 3.6 has to spill registers of halves' products."""

_FORMS = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
_ALIGNED = 16


@dataclass(frozen=True, eq=False)
class Dealt:
    """Which token lies in which lane; the arrays are described in `cuda_product.add_linear`.

    Rows that need the same switches come behind one another, so that a tile needs few; rows that need none
    are left out.
    """

    places: NDArray[np.int32]
    owners: NDArray[np.int32]
    tile_starts: NDArray[np.int32]
    tile_switches: NDArray[np.int32]
    live_lanes: int

    @staticmethod
    def of(counts: NDArray[np.int64], apart: int, needed: NDArray[np.bool_]) -> Dealt:
        """Deal out the rows' vectors.

        Args:
            counts: int64 (rows,), vectors of each row.
            apart: how many lie between the first of one row and that of the next.
            needed: (rows, switches), whether a row needs a switch; at least one does.
        """
        switches = [tuple(np.flatnonzero(row)) for row in needed]
        rows = np.array(sorted((r for r, own in enumerate(switches) if own), key=switches.__getitem__))
        ends = np.cumsum(counts[rows])
        live = int(ends[-1])
        starts = ends - counts[rows]
        within = np.arange(live) - np.repeat(starts, counts[rows])
        places = np.repeat(rows * apart, counts[rows]) + within
        tiles = -(-live // TOKENS)
        wanted = np.zeros((tiles, needed.shape[1]), bool)
        for row, start, end in zip(rows, starts, ends, strict=True):
            wanted[start // TOKENS : (end - 1) // TOKENS + 1] |= needed[row]
        unused = tiles * TOKENS - live  # these repeat the first token, and are never written
        return Dealt(
            np.pad(places, (0, unused), constant_values=places[0]).astype(np.int32),
            np.pad(np.repeat(rows, counts[rows]), (0, unused)).astype(np.int32),
            np.cumsum([0, *wanted.sum(axis=1)]).astype(np.int32),
            np.nonzero(wanted)[1].astype(np.int32),
            live,
        )


@dataclass(frozen=True, eq=False)
class _Lanes:
    """`Dealt`, on the device."""

    live_lanes: int
    places: torch.Tensor
    owners: torch.Tensor
    tile_starts: torch.Tensor
    tile_switches: torch.Tensor


class CudaAdditions:
    """See `Additions`.

    Args:
        lengths: tokens of each row.
        parts: what each row's mix is made of; at least one row's of something.
        columns: of the one-dimensional parameters.
        arena: where the weights lie: on a CUDA device, or on the CPU for Triton's interpreter.
    """

    def __init__(
        self, lengths: Sequence[int], parts: Sequence[Sequence[Part]], columns: Columns, arena: Arena
    ) -> None:
        self._device = arena.device
        self._dtype = str(arena.dtype).removeprefix("torch.")
        # Triton's interpreter would multiply the bits of bf16.
        self._form = _FORMS[arena.dtype if self._device.type == "cuda" else torch.float32]
        self.rows, self.longest = len(lengths), max(lengths)
        self._planes = list({id(part.planes): part.planes for row in parts for part in row}.values())
        number = {id(planes): i for i, planes in enumerate(self._planes)}
        shares = np.zeros((len(self._planes), self.rows), np.float32)
        needed = np.zeros((self.rows, len(self._planes)), bool)
        for r, row in enumerate(parts):
            for part in row:
                shares[number[id(part.planes)], r] += part.weight
                needed[r, number[id(part.planes)]] = True
        table = np.array([[*p.addresses.tolist(), p.slots.data_ptr()] for p in self._planes], np.int64)
        by_token = Dealt.of(np.array(lengths, np.int64), self.longest, needed)
        by_row = Dealt.of(np.ones(self.rows, np.int64), 1, needed)
        arrays = [(one.places, one.owners, one.tile_starts, one.tile_switches) for one in (by_token, by_row)]
        sent = _send([table, shares, columns.spots(BLOCK), *arrays[0], *arrays[1]], self._device)
        self._table, self._shares, spots = sent[:3]
        self._by_token = _Lanes(by_token.live_lanes, *sent[3:7])
        self._by_row = _Lanes(by_row.live_lanes, *sent[7:])
        self._latest: Latest[tuple[_Lanes, torch.Tensor]] = Latest()
        self._vectors = torch.zeros(len(self._planes), columns.size, dtype=torch.float32, device=self._device)
        with current(self._device):
            cuda_lookup.expand[len(spots), len(self._planes)](
                self._vectors, columns.size, self._table, spots, **LAUNCH
            )
        self.norms = columns.set_norms(self._shares.T @ self._vectors[:, : columns.norms])

    def moves(self, row: int, column: int, count: int) -> torch.Tensor:
        """See `Additions`."""
        return self._shares[:, row] @ self._vectors[:, column : column + count]

    def normalize(self, x: torch.Tensor, *, scale: int, moves: int, eps: float) -> torch.Tensor:
        """See `Additions`."""
        dim = x.shape[-1]
        even = functional.layer_norm(x.float(), (dim,), None, None, eps).view(self.rows, -1, dim)
        scales, moved = (self.norms[:, None, first : first + dim] for first in (scale, moves))
        return torch.addcmul(moved, even, scales, out=even).view(x.shape).to(x.dtype)

    def linear(
        self, y: torch.Tensor, x: torch.Tensor, *, per_token: bool, tensor: int, block: int, bias: int
    ) -> torch.Tensor:
        """See `Additions`."""
        lanes, dealt = self._latest.of(x, lambda: self._deal(x, per_token))
        inputs, stride = dealt.shape
        outputs = y.shape[-1]
        y = y.contiguous()
        with current(self._device):
            cuda_product.add_linear[triton.cdiv(outputs, OUTPUTS), stride // TOKENS](
                y.view(torch.int32 if y.itemsize == 4 else torch.int16),
                dealt,
                lanes.places,
                lanes.owners,
                self._shares,
                lanes.tile_starts,
                lanes.tile_switches,
                self._table,
                self._vectors,
                self._vectors.shape[1],
                lanes.live_lanes,
                stride,
                self.rows,
                tensor,
                block,
                bias,
                outputs,
                inputs=inputs,
                run=math.gcd(inputs, 32),
                dtype=self._dtype,
                form=self._form,
                **LAUNCH,
            )
        return y

    def embedding(self, y: torch.Tensor, ids: torch.Tensor, *, tensor: int, block: int) -> torch.Tensor:
        """See `Additions`."""
        lanes = self._by_token
        sums = y.float().contiguous()
        with current(self._device):
            cuda_lookup.add_embedding[(lanes.live_lanes,)](
                sums,
                ids.long().contiguous(),
                lanes.places,
                lanes.owners,
                self._shares,
                lanes.tile_starts,
                lanes.tile_switches,
                self._table,
                self.rows,
                tensor,
                block,
                y.shape[-1],
                **LAUNCH,
            )
        return sums.to(y.dtype)

    def _deal(self, x: torch.Tensor, per_token: bool) -> tuple[_Lanes, torch.Tensor]:
        """The lanes, and their vectors side by side: (inputs, lanes)."""
        lanes = self._by_token if per_token else self._by_row
        return lanes, x.reshape(-1, x.shape[-1]).t().index_select(1, lanes.places)


def _send(arrays: Sequence[NDArray[np.generic]], device: torch.device) -> list[torch.Tensor]:
    """Take arrays to a device, all in one copy."""
    ends = np.cumsum([-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays]).tolist()
    starts = [0, *ends[:-1]]
    buffer = np.zeros(ends[-1], np.uint8)
    for start, array in zip(starts, arrays, strict=True):
        buffer[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    there = torch.from_numpy(buffer).to(device)
    return [
        there[start : start + array.nbytes].view(torch.from_numpy(array).dtype).view(array.shape)
        for start, array in zip(starts, arrays, strict=True)
    ]
