"""What the rows of one forward pass need of which switches, laid out for the kernels.

Work goes by switch and not by mix: `auto` gives every request weights of its own, over few switches. The
tokens of all rows that need a switch, padding left out, are dealt to its tiles, each with its row's
weight. Knows tokens by their places alone; nothing of modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from bitswitch.engine.arena import Arena
from bitswitch.engine.lanes import LANES, WIDEST
from bitswitch.engine.lookup import expand
from bitswitch.engine.mixes import Mixes, Part

Share = dict[int, list[tuple[int, int, float]]]
"""One thread's work: for a switch, the runs of places that need it: the first, how many, and their weight."""

_READING = 24
"""Tokens whose sums take as long as it takes to read a switch's marks."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """Which token lies in which lane of which tile; the arrays are described in `product.add_linear`."""

    places: NDArray[np.int32]
    scales: NDArray[np.float32]
    starts: NDArray[np.int64]
    widths: NDArray[np.int64]
    switches: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @staticmethod
    def of(shares: Iterable[Share]) -> Tiles:
        """Deal out each share's places.

        Lanes that stay empty repeat a token, with weight 0.
        """
        runs: list[tuple[int, int, int, float]] = []  # a place, how many, how far apart, and their weight
        widths, switches, bounds = [], [], [0]
        for share in shares:
            for switch, own in share.items():
                tokens = sum(count for _, count, _ in own)
                empty = -tokens % LANES
                runs += [(place, count, 1, weight) for place, count, weight in own]
                runs.append((own[0][0], empty, 0, 0.0))
                whole, rest = divmod(tokens + empty, WIDEST)
                own_widths = [WIDEST] * whole + [rest] * (rest > 0)
                widths += own_widths
                switches += [switch] * len(own_widths)
            bounds.append(len(widths))
        first, counts, steps, scales = map(np.array, zip(*runs, strict=True))
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        lanes = np.array(widths, np.int64)
        return Tiles(
            (np.repeat(first, counts) + within * np.repeat(steps, counts)).astype(np.int32),
            np.repeat(scales, counts).astype(np.float32),
            np.cumsum(lanes) - lanes,
            lanes,
            np.array(switches, np.int64),
            np.array(bounds, np.int64),
        )


class Columns:
    """Where each parameter that is small lies when all of them stand behind one another.

    Args:
        arena: where the weights lie.
        norms: those of normalizations; they come first.
        others: those of linear layers that are biases, and all of modules of other kinds.
        fixed: of normalizations, what no switch can touch, by a name of its own.

    Attributes:
        start: by name, the first column; of what is fixed, among `Needs.norms` alone.
        norms: columns of all ``norms``.
        size: columns in all, without what is fixed.
    """

    def __init__(
        self,
        arena: Arena,
        norms: Sequence[str],
        others: Sequence[str],
        fixed: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        names = (*norms, *others)
        ends = np.cumsum([0, *(int(np.prod(arena.shapes[name])) for name in names)], dtype=np.int64)
        self.start = dict(zip(names, ends.tolist(), strict=False))
        self.norms = int(ends[len(norms)])
        self.size = int(ends[-1])
        self._tensors = np.array([arena.names.index(name) for name in names], np.int64)
        self._first_blocks = np.array([arena.first_block[name] for name in names], np.int64)
        self._ends = ends
        self._base = torch.cat([arena.flat[:0], *(arena.home(name).flatten() for name in norms)])
        constants = [value.detach().float().flatten() for value in (fixed or {}).values()]
        starts = np.cumsum([self.norms, *map(len, constants)]).tolist()
        self.start.update(zip(fixed or {}, starts, strict=False))
        self._fixed = torch.cat([torch.empty(0, device=arena.device), *constants])

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

    def set_norms(self, moves: torch.Tensor) -> torch.Tensor:
        """Parameters of normalizations, moved from the base and rounded to its dtype, then the fixed ones:
        float32 (rows, norms and more).
        """
        moved = (self._base.float() + moves).to(self._base.dtype).float()
        return torch.cat([moved, self._fixed.expand(len(moves), -1)], 1) if len(self._fixed) else moved

    def expand(self, table: NDArray[np.int64]) -> NDArray[np.float32]:
        """What each switch of a table adds to them: float32 (switches, size)."""
        vectors = np.zeros((len(table), self.size), np.float32)
        expand(vectors, table, self._tensors, self._first_blocks, self._ends)
        return vectors


class Needs:
    """The needs of one overlaid pass; at least one row has a part.

    Args:
        lengths: tokens of each row.
        parts: what each row's mix is made of.
        columns: of the small parameters.
        threads: that share the work.

    Attributes:
        mixes: the rows' switches.
        vectors: float32 (switches, size), what each switch adds to small parameters.
        shares: float32 tensor (rows, switches), the weights of each row's mix.
        norms: float32 tensor (rows, norms and more), what each row's mix sets those of normalizations to.
    """

    def __init__(
        self, lengths: Sequence[int], parts: Sequence[Sequence[Part]], columns: Columns, threads: int
    ) -> None:
        mixes = self.mixes = Mixes(lengths, parts)
        self.vectors = columns.expand(mixes.table)
        owners = np.repeat(np.arange(mixes.rows), np.diff(mixes.part_starts))
        shares = np.zeros((mixes.rows, len(mixes.planes)), np.float32)
        np.add.at(shares, (owners, mixes.part_switches), mixes.part_weights)
        self.shares = torch.from_numpy(shares)
        # Not numpy's product: the threads of its own that it starts spin beside torch's for long after.
        self.norms = columns.set_norms(self.shares @ torch.from_numpy(self.vectors[:, : columns.norms]))
        active = [max(planes.active, 1) for planes in mixes.planes]
        uses = [
            (switch, active[switch], weight)
            for switch, weight in zip(mixes.part_switches.tolist(), mixes.part_weights.tolist(), strict=True)
        ]
        self._uses = [uses[start:end] for start, end in pairwise(mixes.part_starts.tolist())]
        self._threads = threads

    @cached_property
    def by_token(self) -> Tiles:
        """The tiles where a layer's input has a vector per token."""
        return Tiles.of(self._shares(self.mixes.lengths.tolist(), self.mixes.longest))

    @cached_property
    def by_row(self) -> Tiles:
        """The tiles where it has one per row."""
        return Tiles.of(self._shares([1] * self.mixes.rows, 1))

    def _shares(self, lengths: Sequence[int], apart: int) -> list[Share]:
        """The work of each thread; the rows' first places are ``apart``.

        A place is one thread's with all its switches, so that no two threads add to it. Rows of one switch
        come one after another: a thread reads it once for all of its own.
        """
        rows = sorted(
            (row for row in range(self.mixes.rows) if self._uses[row]), key=lambda row: self._uses[row]
        )
        reading = {switch: active * _READING for row in rows for switch, active, _ in self._uses[row]}
        work = sum(lengths[row] * active for row in rows for _, active, _ in self._uses[row])
        fair = (sum(reading.values()) + work) / self._threads
        left, shares = fair, [Share()]
        for row in rows:
            start, cost = 0, sum(active for _, active, _ in self._uses[row])
            while start < lengths[row]:
                own = shares[-1]
                fixed = sum(reading[switch] for switch, _, _ in self._uses[row] if switch not in own)
                count = lengths[row] - start
                if len(shares) < self._threads:
                    count = min(count, max(round((left - fixed) / cost / LANES), not own) * LANES)
                if not count:
                    shares.append(Share())
                    left += fair
                    continue
                for switch, _, weight in self._uses[row]:
                    own.setdefault(switch, []).append((row * apart + start, count, weight))
                start += count
                left -= fixed + count * cost
        return shares
