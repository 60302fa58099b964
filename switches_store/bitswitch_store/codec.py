"""The activation bits of one tensor ⇄ bytes near the entropy bound.

Knows nothing of names, polarities, knobs or files. `docs/format.md` describes the codes; there are no
probability tables, and decoding takes time in proportion to the active weights at the densities where
that matters. For given bits exactly one encoding is valid: the smallest, of equal ones the lowest code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import gaps, kernels, planes, words
from bitswitch_store.switch import SwitchError
from bitswitch_store.varint import read_varint, varint
from bitswitch_store.words import Words

FULL = 0  # every bit is set: no bytes
RAW = 1  # the packed bits
GAPS = 2  # Golomb code of the zeros before each set bit
GAPS_OF_REST = 3  # the same of the inverted bits
TRIPLES = 4  # prefix code of three bits at a time
TRIPLES_OF_REST = 5  # the same of the inverted bits
ROWS = 8  # added to one of the above: rows without a set bit are left out

_OF_REST = (GAPS_OF_REST, TRIPLES_OF_REST)


def encode(activation: NDArray[np.uint8], shape: Sequence[int], active: int) -> tuple[int, bytes]:
    """The one valid encoding of a tensor's activation.

    Args:
        activation: packed bits as in `TensorSwitch`, padding zero.
        shape: of the tensor.
        active: how many bits are set; at least one.

    Returns:
        the code (0 to 5, with or without `ROWS`) and the stream.
    """
    plane = planes.words(activation)
    numel = math.prod(shape)
    code, rows = _choose(plane, shape, numel, active)
    if rows is None:
        return code, _encode(code, plane, numel, active)
    inner = rows.size * (numel // shape[0])
    mask = planes.of_places(rows, shape[0])
    mask_code = _cheapest(mask, shape[0], rows.size)
    mask_stream = _encode(mask_code, mask, shape[0], rows.size)
    front = bytes([mask_code]) + varint(rows.size) + varint(len(mask_stream))
    stream = _encode(code & ~ROWS, _gathered(plane, rows, numel // shape[0]), inner, active)
    return code, front + mask_stream + stream


def decode(
    code: int, stream: bytes | memoryview, shape: Sequence[int], active: int, *, vouched: bool = False
) -> Words:
    """The activation bits of `encode`'s result, as words; `planes.packed` gives their bytes.

    Args:
        code, stream, shape, active: what `encode` took and gave.
        vouched: these very bytes have been decoded before with every check. Whether a smaller encoding
            exists is not asked again then. Whatever the bytes, what comes out has exactly ``active`` bits
            of this shape set, and nothing is read or written outside of the arrays.

    Raises:
        SwitchError: these bytes are not what `encode` writes for any bits of this shape and count.
    """
    numel = math.prod(shape)
    if not 0 < active <= numel:
        raise SwitchError(f"{active} of {numel} weights cannot be active")
    if code & ROWS:
        plane = _decode_rows(code & ~ROWS, stream, shape, active)
    else:
        plane = _decode(code, stream, numel, active)
    if not vouched:
        _require_smallest(code, stream, plane, shape, active)
    return plane


def golomb(numel: int, count: int) -> int:
    """The parameter m of the Golomb code of ``count`` set bits among ``numel``.

    ``max(1, floor(ln 2 · numel / count + .1534))`` in 16-bit fixed point: the smallest m with
    (1−d)^m + (1−d)^(m+1) ≤ 1 (Gallager and Van Voorhis 1975), to first order in d = count / numel.
    """
    return max(1, (45426 * numel + 10053 * count) // (65536 * count))


def _choose(
    plane: Words, shape: Sequence[int], numel: int, active: int
) -> tuple[int, NDArray[np.int64] | None]:
    """The code of the smallest encoding, and the rows it keeps if it leaves some out."""
    code = _cheapest(plane, numel, active)
    rows, width = shape[0], numel // shape[0]
    if width == 1 or active == numel:
        return code, None
    kept = planes.touched_rows(plane, rows, width, active)
    if kept.size == rows:
        return code, None
    inner = _gathered(plane, kept, width)
    inner_code = _cheapest(inner, kept.size * width, active)
    mask = planes.of_places(kept, rows)
    mask_size = _size(_cheapest(mask, rows, kept.size), mask, rows, kept.size)
    front = 1 + len(varint(kept.size)) + len(varint(mask_size))
    size = front + mask_size + _size(inner_code, inner, kept.size * width, active)
    if size < _size(code, plane, numel, active):
        return inner_code | ROWS, kept
    return code, None


def _require_smallest(
    code: int, stream: bytes | memoryview, plane: Words, shape: Sequence[int], active: int
) -> None:
    """Refuse what decodes well and is not what `encode` writes."""
    expected, kept = _choose(plane, shape, math.prod(shape), active)
    if kept is not None and code & ROWS:
        if read_varint(stream, 1)[0] > kept.size:
            raise SwitchError("a row without an active weight is listed as having one")
        if stream[0] != _cheapest(planes.of_places(kept, shape[0]), shape[0], kept.size):
            raise SwitchError(f"the list of rows has code {stream[0]}, which is not its shortest encoding")
    if code != expected:
        raise SwitchError(f"the activation has code {code}; its shortest encoding has code {expected}")


def _cheapest(plane: Words, numel: int, count: int) -> int:
    """The code without rows whose stream is the shortest; only what could be is measured."""
    if count == numel:
        return FULL
    bounds = {code: _bounds(code, numel, count) for code in range(RAW, TRIPLES_OF_REST + 1)}
    reachable = min(most for _, most in bounds.values())
    close = [code for code, (least, _) in bounds.items() if least <= reachable]
    if len(close) == 1:
        return close[0]
    best = _bounds(RAW, numel, count)[0], RAW
    for code in sorted(close, key=lambda code: bounds[code][1]):
        if bounds[code][0] <= best[0]:
            best = min(best, (_size(code, plane, numel, count), code))
    return best[1]


def _bounds(code: int, numel: int, count: int) -> tuple[int, int]:
    """The fewest and the most bytes that a stream of ``count`` set bits among ``numel`` can take."""
    if code in _OF_REST:
        count = numel - count
    if code in (GAPS, GAPS_OF_REST):
        m = golomb(numel, count)
        least = count * m.bit_length()
        most = least + (count if m & (m - 1) else 0) + (numel - count) // m
    elif code in (TRIPLES, TRIPLES_OF_REST):
        # Two bits a group; a set bit adds half a bit (two in a group) to one (alone in it).
        groups = (numel + 2) // 3
        least, most = 2 * groups + (count + 1) // 2, 2 * groups + count
    else:
        least = most = numel if code == RAW else 0
    return (least + 7) // 8, (most + 7) // 8


def _size(code: int, plane: Words, numel: int, count: int) -> int:
    """The exact bytes of a stream."""
    if code in (FULL, RAW):
        return _bounds(code, numel, count)[0]
    if code in _OF_REST:
        plane, count = planes.inverted(plane, numel), numel - count
    if code in (GAPS, GAPS_OF_REST):
        bits = gaps.size(plane, golomb(numel, count))
    else:
        bits = kernels.triples_size(plane, numel)
    return (int(bits) + 7) // 8


def _encode(code: int, plane: Words, numel: int, count: int) -> bytes:
    if code == FULL:
        return b""
    if code == RAW:
        return planes.packed(plane, numel).tobytes()
    stream = planes.zeros(8 * _bounds(code, numel, count)[1])
    if code in _OF_REST:
        plane, count = planes.inverted(plane, numel), numel - count
    if code in (GAPS, GAPS_OF_REST):
        bits = gaps.encode(plane, golomb(numel, count), stream)
    else:
        bits = kernels.triples_encode(plane, numel, stream)
    return planes.packed(stream, int(bits)).tobytes()


def _decode(code: int, stream: bytes | memoryview, numel: int, count: int) -> Words:
    """A plane of exactly ``count`` set bits from exactly this stream."""
    if code not in range(TRIPLES_OF_REST + 1):
        raise SwitchError(f"the activation has the unknown code {code}")
    if (code == FULL) != (count == numel):
        raise SwitchError(f"{count} of {numel} weights are active, which code {code} cannot say")
    least, most = _bounds(code, numel, count)
    # Before the plane is allocated: a few bytes must not claim many bits.
    if not least <= len(stream) <= most:
        raise SwitchError(
            f"the stream of {count} active among {numel} weights has {len(stream)} bytes;"
            f" code {code} needs {least} to {most}"
        )
    if code == FULL:
        return planes.inverted(planes.zeros(numel), numel)
    plane, used = _filled(code, planes.words(np.frombuffer(stream, np.uint8)), len(stream), numel, count)
    if used == words.TOO_SHORT:
        raise SwitchError("the stream ends before its last active weight")
    # A last group of three may reach over the end, even into the next word.
    if used == words.PAST_THE_END or int(plane[numel // 64]) >> (numel % 64) or plane[numel // 64 + 1]:
        raise SwitchError(f"the stream sets a bit after the last of {numel} weights")
    if (used + 7) // 8 != len(stream):
        raise SwitchError(f"the stream has {len(stream)} bytes, but its code ends in byte {(used + 7) // 8}")
    if used % 8 and stream[-1] >> (used % 8):
        raise SwitchError("the stream has padding bits set after its last code")
    if code in _OF_REST:
        plane = planes.inverted(plane, numel)
    if planes.count(plane) != count:
        raise SwitchError(f"the stream has {planes.count(plane)} active weights, but {count} are counted")
    return plane


def _filled(code: int, source: Words, size: int, numel: int, count: int) -> tuple[Words, int]:
    """The plane as coded, not yet inverted, and the bits read for it, or what was wrong with them."""
    plane = planes.zeros(numel)
    if code == RAW:
        plane[:] = source[: plane.size]
        return plane, numel
    if code in _OF_REST:
        count = numel - count
    if code in (GAPS, GAPS_OF_REST):
        return plane, int(gaps.decode(source, 8 * size, count, golomb(numel, count), numel, plane))
    return plane, int(kernels.triples_decode(source, 8 * size, numel, plane))


def _decode_rows(code: int, stream: bytes | memoryview, shape: Sequence[int], active: int) -> Words:
    """A plane from a stream that leaves out the rows without a set bit."""
    rows, width = shape[0], math.prod(shape) // shape[0]
    kept_count, at = read_varint(stream, 1)
    mask_size, at = read_varint(stream, at)
    if not 0 < kept_count < rows or active > kept_count * width:
        raise SwitchError(f"{active} active weights cannot lie in {kept_count} of {rows} rows of {width}")
    if at + mask_size > len(stream):
        raise SwitchError("the list of rows runs past the end of the stream")
    mask = _decode(stream[0], stream[at : at + mask_size], rows, kept_count)
    inner = _decode(code, stream[at + mask_size :], kept_count * width, active)
    kept = planes.touched_rows(mask, rows, 1, kept_count)
    plane = planes.zeros(rows * width)
    kernels.copy_rows(inner, plane, width, kept, False)
    return plane


def _gathered(plane: Words, rows: NDArray[np.int64], width: int) -> Words:
    target = planes.zeros(rows.size * width)
    kernels.copy_rows(plane, target, width, rows, True)
    return target
