"""What the rows of one forward pass need of which switches, laid out for the kernels.

Work goes by switch and not by mix: `auto` gives every request weights of its own, over few switches. The
tokens of all rows that need a switch, padding left out, are dealt to its tiles, each with its row's
weight. Knows tokens by their places alone; nothing of modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from bitswitch.engine.arena import Arena
from bitswitch.engine.lanes import LANES
from bitswitch.engine.lookup import expand
from bitswitch.engine.planes import Planes
from bitswitch.engine.product import WIDEST


@dataclass(frozen=True)
class Part:
    """One switch of a row's mix."""

    planes: Planes
    weight: float


@dataclass(frozen=True, eq=False)
class Tiles:
    """Which token lies in which lane of which tile; the arrays are described in `product.fill` and
    `product.add_linear`.
    """

    places: NDArray[np.int32]
    scales: NDArray[np.float32]
    starts: NDArray[np.int64]
    widths: NDArray[np.int64]
    switches: NDArray[np.int64]
    group_tiles: NDArray[np.int64]

    @staticmethod
    def of(needs: Iterable[tuple[NDArray[np.int32], NDArray[np.float32]]]) -> Tiles:
        """Deal out the places that each switch is needed at, and its weights there.

        Lanes that stay empty repeat a token, with weight 0.
        """
        places, scales, widths, switches = [], [], [], []
        for switch, (tokens, weights) in enumerate(needs):
            empty = -len(tokens) % LANES
            places += [tokens, np.full(empty, tokens[0], np.int32)]
            scales += [weights, np.zeros(empty, np.float32)]
            whole, rest = divmod(len(tokens) + empty, WIDEST)
            own = [WIDEST] * whole + {0: [], 16: [16], 32: [32], 48: [32, 16]}[rest]
            widths += own
            switches += [switch] * len(own)
        lanes = np.array(widths, np.int64)
        return Tiles(
            np.concatenate(places),
            np.concatenate(scales),
            np.cumsum(lanes) - lanes,
            lanes,
            np.array(switches, np.int64),
            np.repeat(np.arange(len(lanes)), lanes // LANES),
        )


class Columns:
    """Where each parameter that is small lies when all of them stand behind one another.

    Args:
        arena: where the weights lie.
        norms: those of normalizations; they come first.
        others: those of linear layers that are biases, and all of modules of other kinds.

    Attributes:
        start: by name, the first column.
        norms: columns of all ``norms``.
        size: columns in all.
    """

    def __init__(self, arena: Arena, norms: Sequence[str], others: Sequence[str]) -> None:
        names = (*norms, *others)
        ends = np.cumsum([0, *(int(np.prod(arena.shapes[name])) for name in names)], dtype=np.int64)
        self.start = dict(zip(names, ends.tolist(), strict=False))
        self.norms = int(ends[len(norms)])
        self.size = int(ends[-1])
        self._tensors = np.array([arena.names.index(name) for name in names], np.int64)
        self._first_blocks = np.array([arena.first_block[name] for name in names], np.int64)
        self._ends = ends

    def spots(self, length: int) -> NDArray[np.int64]:
        """Where they lie, cut into blocks of ``length``: int64 (blocks, 4), see `cuda_lookup.SPOT`."""
        return np.array(
            [
                (first + start // length, tensor, start, begin + start)
                for tensor, first, (begin, end) in zip(
                    self._tensors, self._first_blocks, pairwise(self._ends), strict=True
                )
                for start in range(0, end - begin, length)
            ],
            np.int64,
        ).reshape(-1, 4)

    def expand(self, table: NDArray[np.int64]) -> NDArray[np.float32]:
        """What each switch of a table adds to them: float32 (switches, size)."""
        vectors = np.zeros((len(table), self.size), np.float32)
        expand(vectors, table, self._tensors, self._first_blocks, self._ends)
        return vectors


class Needs:
    """The needs of one pass; at least one row has a part.

    Args:
        lengths: tokens of each row.
        parts: what each row's mix is made of.
        columns: of the small parameters.

    Attributes:
        rows, longest: the padded batch's shape.
        table: int64 (switches, 8), see `lookup.expand`; valid while self lives.
        lengths, part_starts, part_switches, part_weights: see `lookup.add_embedding`.
        vectors: float32 (switches, size), what each switch adds to small parameters.
        shares: float32 tensor (rows, switches), the weights of each row's mix.
        norms: float32 tensor (rows, norms), what each row's mix adds to those of normalizations.
        by_token, by_row: the tiles where a layer's input has a vector per token, or per row.
    """

    def __init__(self, lengths: Sequence[int], parts: Sequence[Sequence[Part]], columns: Columns) -> None:
        self.rows, self.longest = len(lengths), max(lengths)
        self._planes = list({id(part.planes): part.planes for row in parts for part in row}.values())
        number = {id(planes): i for i, planes in enumerate(self._planes)}
        self.table = np.array([_line(planes) for planes in self._planes], np.int64)
        self.lengths = np.array(lengths, np.int64)
        self.part_starts = np.cumsum([0, *(len(row) for row in parts)], dtype=np.int64)
        self.part_switches = np.array([number[id(part.planes)] for row in parts for part in row], np.int64)
        self.part_weights = np.array([part.weight for row in parts for part in row], np.float32)
        self.vectors = columns.expand(self.table)
        owners = np.repeat(np.arange(self.rows), np.diff(self.part_starts))
        shares = np.zeros((self.rows, len(self._planes)), np.float32)
        np.add.at(shares, (owners, self.part_switches), self.part_weights)
        self.shares = torch.from_numpy(shares)
        # Not numpy's product: the threads of its own that it starts spin beside torch's for long after.
        self.norms = self.shares @ torch.from_numpy(self.vectors[:, : columns.norms])
        order = np.argsort(self.part_switches, kind="stable")
        bounds = np.searchsorted(self.part_switches[order], np.arange(len(self._planes) + 1))
        own = [order[start:stop] for start, stop in pairwise(bounds)]
        self.by_row = Tiles.of((owners[one].astype(np.int32), self.part_weights[one]) for one in own)
        self.by_token = Tiles.of(self._tokens(owners[one], self.part_weights[one]) for one in own)

    def _tokens(
        self, rows: NDArray[np.int64], weights: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The places of these rows' tokens in the padded batch, and each one's weight."""
        counts = self.lengths[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return (np.repeat(rows * self.longest, counts) + within).astype(np.int32), np.repeat(weights, counts)


def _line(planes: Planes) -> list[int]:
    return [*planes.addresses.tolist(), planes.blocks.ctypes.data, len(planes.blocks)]
