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

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_WORD = ir.IntType(64)
_FUSED = ("contract",)
_BYTES = 4


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, address: Any, kind: Any) -> Any:
    """Load from an address that need not be aligned to more than a float."""
    return builder.load(_at(builder, address, kind), align=2 if kind.__class__ is ir.IntType else _BYTES)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, _at(builder, address, value.type), align=_BYTES)


def _spread(builder: Any, value: Any) -> Any:
    """A scalar in all lanes."""
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), zeros)


def _word(value: int) -> Any:
    return ir.Constant(_WORD, value)


def _sign(builder: Any, offset: Any) -> Any:
    """±1 in all lanes, as an offset's top bit says."""
    minus = builder.shl(
        builder.and_(builder.trunc(offset, ir.IntType(32)), ir.Constant(ir.IntType(32), MINUS)),
        ir.Constant(ir.IntType(32), 16),
    )
    return _spread(
        builder, builder.bitcast(builder.or_(minus, ir.Constant(ir.IntType(32), 0x3F800000)), _FLOAT)
    )


class _Row:
    """The loop over one matrix row's active weights, in LLVM's terms; see `_add_row`."""

    def __init__(self, builder: Any, vectors: int, arguments: Any) -> None:
        self.builder, self.vectors = builder, vectors
        self.tile, self.shift, self.offsets, self.start, self.count, self.limit, self.scale, self.total = (
            arguments
        )

    def generate(self) -> Any:
        builder, vectors = self.builder, self.vectors
        zero = ir.Constant(_VECTOR, [ir.Constant(_FLOAT, 0.0)] * LANES)
        # Two sums, so that an addition need not wait for the one before it.
        position, sums = self._loop(2, self.start, [zero] * (2 * vectors))
        position, sums = self._loop(1, position, sums)
        scale = _spread(builder, self.scale)
        for v in range(vectors):
            address = builder.add(self.total, _word(v * LANES * _BYTES))
            both = builder.fadd(sums[v], sums[vectors + v])
            product = builder.fmul(both, scale, flags=_FUSED)
            _store(builder, builder.fadd(_load(builder, address, _VECTOR), product, flags=_FUSED), address)
        return position

    def _loop(self, step: int, start: Any, sums: list[Any]) -> tuple[Any, list[Any]]:
        """Add ``step`` weights at a time while so many are left of this row."""
        builder = self.builder
        before = builder.block
        head, check, body, after = (
            builder.append_basic_block(name) for name in ("head", "check", "body", "after")
        )
        builder.branch(head)
        builder.position_at_end(head)
        position = builder.phi(_WORD)
        current = [builder.phi(_VECTOR) for _ in sums]
        last = builder.add(position, _word(step - 1))
        builder.cbranch(builder.icmp_signed("<", last, self.count), check, after)
        builder.position_at_end(check)
        offsets = [self._offset(builder.add(position, _word(i))) for i in range(step)]
        place = builder.and_(offsets[-1], _word(BLOCK - 1))
        builder.cbranch(builder.icmp_signed("<", place, self.limit), body, after)
        builder.position_at_end(body)
        added = list(current)
        for i, offset in enumerate(offsets):
            self._add(offset, added, i * self.vectors)
        following = builder.add(position, _word(step))
        builder.branch(head)
        for phi, first, then in zip([position, *current], [start, *sums], [following, *added], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, body)
        builder.position_at_end(after)
        return position, current

    def _offset(self, position: Any) -> Any:
        address = self.builder.add(self.offsets, self.builder.shl(position, _word(1)))
        return self.builder.zext(_load(self.builder, address, ir.IntType(16)), _WORD)

    def _add(self, offset: Any, sums: list[Any], first: int) -> None:
        builder = self.builder
        column = builder.sub(builder.and_(offset, _word(BLOCK - 1)), self.shift)
        line = builder.add(self.tile, builder.mul(column, _word(self.vectors * LANES * _BYTES)))
        sign = _sign(builder, offset)
        for v in range(self.vectors):
            value = _load(builder, builder.add(line, _word(v * LANES * _BYTES)), _VECTOR)
            signed = builder.fmul(value, sign, flags=_FUSED)
            sums[first + v] = builder.fadd(sums[first + v], signed, flags=_FUSED)


def _add_row(vectors: int) -> Any:
    """``add_row`` for tiles of ``vectors`` times 16 tokens.

    ``add_row(tile, shift, offsets, start, count, limit, scale, total)`` reads the uint16 at ``offsets``
    from index ``start`` to below ``count`` and up to the first offset ≥ ``limit``, adds scale · Σ ±
    tile[offset − shift] to the floats at ``total``, and returns the index at which it ended.
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


add_row_16, add_row_32, add_row_64 = _add_row(1), _add_row(2), _add_row(4)


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
    context: Any, tile: Any, tile_bytes: Any, scales: Any, matrix: Any, row_bytes: Any, places: Any
) -> Any:
    """The way back: add 16 lines of a tile, transposed, to 16 columns of 16 rows, times the row's scale."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tile, tile_bytes, scales, matrix, row_bytes, places = arguments
        lines = [
            _load(builder, builder.add(tile, builder.mul(tile_bytes, _word(j))), _VECTOR)
            for j in range(LANES)
        ]
        for i, row in enumerate(_transpose(builder, lines)):
            address = _line(builder, matrix, places, i, row_bytes)
            scale = _spread(builder, _load(builder, builder.add(scales, _word(i * _BYTES)), _FLOAT))
            product = builder.fmul(row, scale, flags=_FUSED)
            _store(builder, builder.fadd(_load(builder, address, _VECTOR), product, flags=_FUSED), address)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(whole, whole, whole, whole, whole, whole), generate
