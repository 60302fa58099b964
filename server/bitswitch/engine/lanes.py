"""What numba lacks for products of a few tokens: vectors of 16 floats, as code of LLVM's own.

Three functions over plain addresses. A *tile* is float32 (width, tokens), tokens a multiple of 16: a
weight's input lies there for all tokens side by side, so that one active weight is one vector addition.
LLVM cuts the vectors to what the machine has. Knows nothing of switches, knobs or modules.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bitswitch.engine.arena import BLOCK
from bitswitch.engine.marks import MINUS

LANES = 16
"""Floats of one vector: what AVX-512 holds; elsewhere the compiler takes several registers."""

GROUP = 8
"""Offsets that are read at a time: so many, less one, are read past the last of a block, and not used."""

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_WORD = ir.IntType(64)
_GROUP = ir.VectorType(ir.IntType(32), GROUP)
_FUSED = ("contract",)
_BYTES = 4


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, address: Any, kind: Any) -> Any:
    """Load from an address that need not be aligned to more than an offset."""
    return builder.load(_at(builder, address, kind), align=2)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, _at(builder, address, value.type), align=_BYTES)


def _spread(builder: Any, value: Any, kind: Any = _VECTOR) -> Any:
    """A scalar in all lanes."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, nothing, zeros)


def _lane(builder: Any, vector: Any, i: int) -> Any:
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), i))


def _all(value: int) -> Any:
    """A number in all of a group's lanes."""
    return ir.Constant(_GROUP, [value] * GROUP)


def _word(value: int) -> Any:
    return ir.Constant(_WORD, value)


class _Row:
    """The loop over one matrix row's active weights, in LLVM's terms; see `_add_row`.

    By `GROUP` weights at a time, those behind the row's last one with sign 0: a branch for each weight would
    be guessed wrong at the end of most rows, and few of them are longer than a group or two.
    """

    def __init__(self, builder: Any, vectors: int, arguments: Any) -> None:
        self.builder, self.vectors = builder, vectors
        self.chains = 4 if vectors == 1 else 2  # sums, so that an addition need not wait for the one before
        self.tile, self.shift, self.offsets, self.start, self.count, self.limit, self.scale, self.total = (
            arguments
        )

    def generate(self) -> Any:
        builder, vectors = self.builder, self.vectors
        zero = ir.Constant(_VECTOR, [ir.Constant(_FLOAT, 0.0)] * LANES)
        before = builder.block
        body, after = (builder.append_basic_block(name) for name in ("body", "after"))
        builder.branch(body)
        builder.position_at_end(body)
        position = builder.phi(_WORD)
        sums = [builder.phi(_VECTOR) for _ in range(vectors * self.chains)]
        added = list(sums)
        columns, signs, found = self._group(position)
        for i in range(GROUP):
            self._add(_lane(builder, columns, i), _lane(builder, signs, i), added, i % self.chains)
        # Not by what was found, for that has to be waited for.
        following = builder.add(position, _word(GROUP))
        for phi, first, then in zip(
            [position, *sums], [self.start, *[zero] * len(sums)], [following, *added], strict=True
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(then, body)
        builder.cbranch(builder.icmp_signed("==", found, _word(GROUP)), body, after)
        builder.position_at_end(after)
        scale = _spread(builder, self.scale)
        for v in range(vectors):
            total = added[v]
            for other in added[v + vectors :: vectors]:
                total = builder.fadd(total, other)
            address = builder.add(self.total, _word(v * LANES * _BYTES))
            product = builder.fmul(total, scale, flags=_FUSED)
            _store(builder, builder.fadd(_load(builder, address, _VECTOR), product, flags=_FUSED), address)
        return builder.add(position, found)

    def _group(self, position: Any) -> tuple[Any, Any, Any]:
        """Of the next weights: their columns (bytes into the tile), their signs, how many are this row's."""
        builder = self.builder
        address = builder.add(self.offsets, builder.shl(position, _word(1)))
        offsets = builder.zext(_load(builder, address, ir.VectorType(ir.IntType(16), GROUP)), _GROUP)
        places = builder.and_(offsets, _all(BLOCK - 1))
        left = builder.trunc(builder.sub(self.count, position), ir.IntType(32))
        number = ir.Constant(_GROUP, list(range(GROUP)))
        there = builder.icmp_signed("<", number, _spread(builder, left, _GROUP))
        limit = builder.trunc(self.limit, ir.IntType(32))
        here = builder.and_(there, builder.icmp_signed("<", places, _spread(builder, limit, _GROUP)))
        shift = builder.trunc(self.shift, ir.IntType(32))
        columns = builder.sub(places, _spread(builder, shift, _GROUP))
        columns = builder.select(here, columns, _all(0))
        columns = builder.mul(columns, _all(self.vectors * LANES * _BYTES))
        minus = builder.shl(builder.and_(offsets, _all(MINUS)), _all(16))
        signs = builder.select(here, builder.or_(minus, _all(0x3F800000)), _all(0))
        mask = builder.bitcast(here, ir.IntType(GROUP))
        found = builder.zext(builder.ctpop(mask), _WORD)
        return columns, builder.bitcast(signs, ir.VectorType(_FLOAT, GROUP)), found

    def _add(self, column: Any, sign: Any, sums: list[Any], chain: int) -> None:
        builder = self.builder
        line = builder.add(self.tile, builder.zext(column, _WORD))
        spread = _spread(builder, sign)
        for v in range(self.vectors):
            value = _load(builder, builder.add(line, _word(v * LANES * _BYTES)), _VECTOR)
            i = chain * self.vectors + v
            sums[i] = builder.fadd(sums[i], builder.fmul(value, spread, flags=_FUSED), flags=_FUSED)


def _add_row(vectors: int) -> Any:
    """``add_row`` for tiles of ``vectors`` times 16 tokens.

    ``add_row(tile, shift, offsets, start, count, limit, scale, total)`` reads the uint16 at ``offsets``
    from index ``start`` to below ``count`` and up to the first offset ≥ ``limit``, adds scale · Σ ±
    tile[offset − shift] to the floats at ``total``, and returns the index at which it ended. `GROUP` offsets
    are read at a time, so that memory must be readable as far beyond the last one.
    """

    @intrinsic
    def add_row(
        context: Any,
        tile: Any,
        shift: Any,
        offsets: Any,
        start: Any,
        count: Any,
        limit: Any,
        scale: Any,
        total: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _Row(builder, vectors, arguments).generate()

        whole = types.int64
        return whole(whole, whole, whole, whole, whole, whole, types.float32, whole), generate

    return add_row


add_row_16, add_row_32 = _add_row(1), _add_row(2)


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """16 vectors of 16, rows to columns, in four rounds of exchanges."""
    kind = ir.VectorType(ir.IntType(32), LANES)
    rows = list(rows)
    for step in (1, 2, 4, 8):
        low = ir.Constant(kind, [LANES + j - step if j & step else j for j in range(LANES)])
        high = ir.Constant(kind, [LANES + j if j & step else j + step for j in range(LANES)])
        for i in range(LANES):
            if not i & step:
                one, other = rows[i], rows[i + step]
                rows[i] = builder.shuffle_vector(one, other, low)
                rows[i + step] = builder.shuffle_vector(one, other, high)
    return rows


def _line(builder: Any, matrix: Any, places: Any, i: int, row_bytes: Any) -> Any:
    """Address of row ``places[i]`` of a matrix."""
    place = builder.load(_at(builder, builder.add(places, _word(i * _BYTES)), ir.IntType(32)), align=_BYTES)
    return builder.add(matrix, builder.mul(builder.sext(place, _WORD), row_bytes))


@intrinsic
def pack(context: Any, matrix: Any, row_bytes: Any, places: Any, tile: Any, tile_bytes: Any) -> Any:
    """Write 16 columns of 16 rows of a matrix, transposed, to a tile whose lines are ``tile_bytes`` apart.

    Row i is the one that the int32 at ``places`` names, ``matrix`` the address of the first column.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix, row_bytes, places, tile, tile_bytes = arguments
        rows = [_load(builder, _line(builder, matrix, places, i, row_bytes), _VECTOR) for i in range(LANES)]
        for j, column in enumerate(_transpose(builder, rows)):
            _store(builder, column, builder.add(tile, builder.mul(tile_bytes, _word(j))))
        return context.get_dummy_value()

    whole = types.int64
    return types.void(whole, whole, whole, whole, whole), generate


@intrinsic
def unpack(
    context: Any,
    tile: Any,
    tile_bytes: Any,
    moves: Any,
    scales: Any,
    matrix: Any,
    row_bytes: Any,
    places: Any,
) -> Any:
    """The way back: add 16 lines of a tile, transposed, to 16 columns of 16 rows, times the row's scale.

    The 16 floats at ``moves`` are added to the lines before, one to each.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tile, tile_bytes, moves, scales, matrix, row_bytes, places = arguments
        lines = []
        for j in range(LANES):
            move = _load(builder, builder.add(moves, _word(j * _BYTES)), _FLOAT)
            line = _load(builder, builder.add(tile, builder.mul(tile_bytes, _word(j))), _VECTOR)
            lines.append(builder.fadd(line, _spread(builder, move)))
        for i, row in enumerate(_transpose(builder, lines)):
            address = _line(builder, matrix, places, i, row_bytes)
            scale = _spread(builder, _load(builder, builder.add(scales, _word(i * _BYTES)), _FLOAT))
            product = builder.fmul(row, scale, flags=_FUSED)
            _store(builder, builder.fadd(_load(builder, address, _VECTOR), product, flags=_FUSED), address)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(whole, whole, whole, whole, whole, whole, whole), generate
