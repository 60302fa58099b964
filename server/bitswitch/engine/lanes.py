"""What numba lacks for products of a few tokens: vectors of 16 floats, as code of LLVM's own.

Three functions over plain addresses. A *tile* is float32 (width, tokens), tokens a multiple of 16: a
weight's input lies there for all tokens side by side, so that one active weight is one vector addition.
LLVM cuts the vectors to what the machine has. Knows nothing of switches, knobs or modules.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bitswitch.engine.marks import MINUS, OFFSET

LANES = 16
"""Floats of one vector: what AVX-512 holds; elsewhere the compiler takes several registers."""

_CHAINS = 2
"""Sums of a row, so that an addition need not wait for the one before."""

WIDEST = 96 if get_host_cpu_features().get("avx512f") else 48
"""Tokens of the widest tile: as many as the processor's registers hold two sums of, up to where a tile would
outgrow its second cache.
"""

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_WORD = ir.IntType(64)
_FUSED = ("contract",)
_BYTES = 4


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, address: Any, kind: Any) -> Any:
    """Load from an address that need not be aligned to more than an offset."""
    return builder.load(_at(builder, address, kind), align=2)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, _at(builder, address, value.type), align=_BYTES)


def _spread(builder: Any, value: Any) -> Any:
    """A scalar in all lanes."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, nothing, zeros)


def _finished(builder: Any, value: Any) -> Any:
    """The same integer, as if nobody knew how it came about: it is computed once, and not again in each
    load's address, of which Intel's processors would make an instruction of its own.
    """
    return builder.asm(ir.FunctionType(_WORD, [_WORD]), "", "=r,0", [value], side_effect=False)


def _word(value: int) -> Any:
    return ir.Constant(_WORD, value)


_SIGNS = (1.0, -1.0, 0.0, 0.0)
"""What a mark's line is multiplied with, by its sign bit, or'ed with 2 to leave it out."""


class _Rows:
    """The loops over a matrix's rows and over each one's active weights, in LLVM's terms; see `add_rows`.

    Marks are taken two at a time, an odd one first, without a branch. Signs come out of a table: taken from
    registers they would cost two moves between the processor's halves.
    """

    def __init__(self, builder: Any, vectors: int, arguments: Any) -> None:
        self.builder, self.vectors = builder, vectors
        self.tile, self.apart, self.offsets, self.sizes, self.scales, self.rows, self.total = arguments
        kind = ir.ArrayType(_FLOAT, len(_SIGNS))
        self.signs = cgutils.global_constant(builder, "signs", ir.Constant(kind, list(_SIGNS)))

    def generate(self) -> None:
        builder = self.builder
        before = builder.block
        names = ("row", "marks", "next", "end")
        head, marks, following, end = (builder.append_basic_block(name) for name in names)
        builder.cbranch(builder.icmp_signed("<", _word(0), self.rows), head, end)
        builder.position_at_end(head)
        row, tile, offsets, total = (builder.phi(_WORD) for _ in range(4))
        size = _load(builder, builder.add(self.sizes, builder.shl(row, _word(1))), ir.IntType(16))
        count = builder.zext(size, _WORD)
        builder.cbranch(builder.icmp_signed("<", _word(0), count), marks, following)
        builder.position_at_end(marks)
        scale = _load(builder, builder.add(self.scales, builder.shl(row, _word(2))), _FLOAT)
        self._row(tile, offsets, count, scale, total)
        builder.branch(following)
        builder.position_at_end(following)
        steps = (
            (row, _word(0), builder.add(row, _word(1))),
            (tile, self.tile, builder.sub(tile, self.apart)),
            (offsets, self.offsets, builder.add(offsets, builder.shl(count, _word(1)))),
            (total, self.total, builder.add(total, _word(self.vectors * LANES * _BYTES))),
        )
        for phi, start, then in steps:
            phi.add_incoming(start, before)
            phi.add_incoming(then, following)
        builder.cbranch(builder.icmp_signed("<", steps[0][2], self.rows), head, end)
        builder.position_at_end(end)

    def _row(self, tile: Any, offsets: Any, count: Any, scale: Any, total: Any) -> None:
        """One row's, which has a mark at least."""
        builder = self.builder
        zero = ir.Constant(_VECTOR, [ir.Constant(_FLOAT, 0.0)] * LANES)
        odd = builder.and_(count, _word(1))
        first = [zero] * (self.vectors * _CHAINS)
        self._add(tile, offsets, first, 0, left_out=builder.xor(odd, _word(1)))
        before = builder.block
        body, after = (builder.append_basic_block(name) for name in ("body", "after"))
        builder.cbranch(builder.icmp_signed("<", odd, count), body, after)
        builder.position_at_end(body)
        position = builder.phi(_WORD)
        sums = [builder.phi(_VECTOR) for _ in first]
        added = list(sums)
        for chain in range(_CHAINS):
            at = builder.add(offsets, builder.shl(builder.add(position, _word(chain)), _word(1)))
            self._add(tile, at, added, chain)
        following = builder.add(position, _word(_CHAINS))
        for phi, start, then in zip([position, *sums], [odd, *first], [following, *added], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(then, body)
        builder.cbranch(builder.icmp_signed("<", following, count), body, after)
        builder.position_at_end(after)
        ended = [builder.phi(_VECTOR) for _ in first]
        for phi, start, then in zip(ended, first, added, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(then, body)
        scales = _spread(builder, scale)
        for v in range(self.vectors):
            both = builder.fadd(ended[v], ended[v + self.vectors])
            address = builder.add(total, _word(v * LANES * _BYTES))
            product = builder.fmul(both, scales, flags=_FUSED)
            _store(builder, builder.fadd(_load(builder, address, _VECTOR), product, flags=_FUSED), address)

    def _add(self, tile: Any, address: Any, sums: list[Any], chain: int, left_out: Any = None) -> None:
        """Add the line of the mark at an address, with its sign, to a chain of sums; nothing if it is to be
        left out.
        """
        builder = self.builder
        offset = builder.zext(_load(builder, address, ir.IntType(16)), _WORD)
        kind = builder.lshr(offset, _word(MINUS.bit_length() - 1))
        if left_out is not None:
            kind = builder.or_(kind, builder.shl(left_out, _word(1)))
        sign = _spread(builder, builder.load(builder.gep(self.signs, [_word(0), kind], inbounds=True)))
        place = builder.and_(offset, _word(OFFSET))
        line = builder.add(tile, builder.mul(place, _word(self.vectors * LANES * _BYTES)))
        if self.vectors > 1:
            line = _finished(builder, line)
        for v in range(self.vectors):
            value = _load(builder, builder.add(line, _word(v * LANES * _BYTES)), _VECTOR)
            i = chain * self.vectors + v
            sums[i] = builder.fadd(sums[i], builder.fmul(value, sign, flags=_FUSED), flags=_FUSED)


@intrinsic
def add_rows(
    context: Any,
    width: Any,
    tile: Any,
    apart: Any,
    offsets: Any,
    sizes: Any,
    scales: Any,
    rows: Any,
    total: Any,
) -> Any:
    """Add rows of a matrix, times a tile of ``width`` tokens, to lines of ``total``, float32 (rows, width).

    The rows' marks lie behind one another, uint16 at ``offsets``, as many as the uint16 at ``sizes`` say; a
    row's line gets its float32 at ``scales`` times Σ ± tile[offset]. ``tile`` is where offset 0's line would
    begin for the first row; for each row after it, that lies ``apart`` bytes before.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        width, *others = arguments
        done = builder.append_basic_block("done")
        choice = builder.switch(width, done)
        for vectors in range(1, WIDEST // LANES + 1):
            case = builder.append_basic_block(f"vectors_{vectors}")
            choice.add_case(_word(vectors * LANES), case)
            builder.position_at_end(case)
            _Rows(builder, vectors, others).generate()
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(whole, whole, whole, whole, whole, whole, whole, whole), generate


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
