"""The list of a switch file's tensors: names, shapes, counts and where each one's bits end.

Knows nothing of the bits themselves, nor of the file around them. Names are front-coded and numbers
are varints because a JSON header of 100 tensors would alone break the size promised in design.md §3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitswitch_store.container import MAX_DIMENSIONS
from bitswitch_store.switch import SwitchError
from bitswitch_store.varint import read_varint, varint

MAX_TENSORS = 100_000
MAX_NAME = 1024  # bytes of UTF-8
MAX_NUMEL = 1 << 40  # weights of one tensor
_KNOB_PER_ROW = 16  # added to the code


@dataclass(frozen=True)
class Record:
    """One tensor of the list.

    Attributes:
        name, shape, active: as in `TensorSwitch`.
        code: the code of its activation, see `codec`.
        knob_per_row: whether it has a knob for every row with active weights, or one in all.
        size: bytes of its activation stream.
    """

    name: str
    shape: tuple[int, ...]
    active: int
    code: int
    knob_per_row: bool
    size: int

    @property
    def numel(self) -> int:
        """How many weights the tensor has."""
        return math.prod(self.shape)


def write(records: Sequence[Record]) -> bytes:
    """The list as bytes; `read`'s inverse."""
    out = bytearray(varint(len(records)))
    before = b""
    for record in records:
        try:
            name = record.name.encode()
        except UnicodeEncodeError:
            raise SwitchError(f"{record.name!r} is no name: it has no UTF-8 text") from None
        shared = _shared(before, name)
        out += varint(shared) + varint(len(name) - shared) + name[shared:]
        out += varint(len(record.shape)) + b"".join(map(varint, record.shape))
        out += varint(record.active)
        out.append(record.code + _KNOB_PER_ROW * record.knob_per_row)
        out += varint(record.size)
        before = name
    return bytes(out)


def read(data: bytes) -> tuple[Record, ...]:
    """The records, names ascending, shapes and counts within limits.

    Raises:
        SwitchError: these bytes are not what `write` makes of any records.
    """
    count, at = read_varint(data, 0)
    if count > MAX_TENSORS:
        raise SwitchError(f"the index lists {count} tensors; {MAX_TENSORS} are allowed")
    records = []
    before = b""
    for _ in range(count):
        name, at = _read_name(data, at, before)
        record, at = _read_record(data, at, name.decode())
        records.append(record)
        before = name
    if at != len(data):
        raise SwitchError(f"the index has {len(data)} bytes, but its last tensor ends at {at}")
    return tuple(records)


def _shared(before: bytes, name: bytes) -> int:
    shared = 0
    while shared < min(len(before), len(name)) and before[shared] == name[shared]:
        shared += 1
    return shared


def _read_name(data: bytes, at: int, before: bytes) -> tuple[bytes, int]:
    shared, at = read_varint(data, at)
    more, at = read_varint(data, at)
    if shared > len(before) or shared + more > MAX_NAME or at + more > len(data):
        raise SwitchError(f"the index has a name that runs past its bytes, or past {MAX_NAME}")
    name = before[:shared] + data[at : at + more]
    try:
        name.decode()
    except UnicodeDecodeError:
        raise SwitchError("the index has a name that is not UTF-8 text") from None
    # The names agree in the `shared` bytes by construction: it is whether the next ones do as well.
    if name <= before or before[shared : shared + 1] == name[shared : shared + 1]:
        raise SwitchError(f"the index has {name.decode()!r} out of order, or not in its shortest form")
    return name, at + more


def _read_record(data: bytes, at: int, name: str) -> tuple[Record, int]:
    dimensions, at = read_varint(data, at)
    if not 0 < dimensions <= MAX_DIMENSIONS:
        raise SwitchError(f"{name}: {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are read")
    shape = []
    for _ in range(dimensions):
        side, at = read_varint(data, at)
        shape.append(side)
    numel = math.prod(shape)
    if not 0 < numel <= MAX_NUMEL:
        raise SwitchError(f"{name}: {numel} weights; 1 to {MAX_NUMEL} are read")
    active, at = read_varint(data, at)
    if not 0 < active <= numel:
        raise SwitchError(f"{name}: {active} of {numel} weights cannot be active")
    if at >= len(data):
        raise SwitchError("the index ends inside its last tensor")
    code, at = data[at], at + 1
    size, at = read_varint(data, at)
    return Record(name, tuple(shape), active, code & ~_KNOB_PER_ROW, bool(code & _KNOB_PER_ROW), size), at
