"""A safetensors file, byte for byte: a header of names, types and offsets, then the arrays.

Knows nothing of switches. The `safetensors` library reads what `write` makes; it does not write it
here because its metadata come out in no fixed order, and does not read it because the header is to
be checked before anything is believed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bitswitch_store.switch import SwitchError

MAX_HEADER = 1 << 20  # bytes; far above any switch's, far below what costs time to parse
MAX_FILE = 1 << 36  # bytes
MAX_DIMENSIONS = 8
MAX_DEPTH = 32  # of JSON inside JSON; a config has two or three

TYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in TYPES.items()}


@dataclass(frozen=True)
class Entry:
    """Where one array lies: ``dtype`` a key of `TYPES`, bytes ``[begin, end)`` after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Container:
    """A file whose header has been checked; arrays are views of ``data``, read-only."""

    data: memoryview
    start: int
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]

    def array(self, name: str) -> NDArray[Any]:
        """The array of that name, read-only; KeyError if there is none."""
        entry = self.entries[name]
        part = self.data[self.start + entry.begin : self.start + entry.end]
        array: NDArray[Any] = np.frombuffer(part, TYPES[entry.dtype]).reshape(entry.shape)
        array.flags.writeable = False
        return array

    def size(self, name: str) -> int:
        """Bytes of the array of that name, 0 if there is none."""
        return self.entries[name].end - self.entries[name].begin if name in self.entries else 0


def header(metadata: Mapping[str, str], arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """The one valid header of these arrays, with its length before it.

    Arrays lie wider types first, so that each is aligned, then by name.

    Args:
        metadata: strings by key.
        arrays: dtype (a key of `TYPES`) and shape by name.
    """
    out: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in _order(arrays):
        dtype, shape = arrays[name]
        end = at + math.prod(shape) * TYPES[dtype].itemsize
        out[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = to_json(out).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise SwitchError(f"the header would take {len(text)} bytes; {MAX_HEADER} are allowed")
    return len(text).to_bytes(8, "little") + text


def write(metadata: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The file of these arrays; equal arguments give equal bytes."""
    front = header(metadata, {name: (_NAMES[a.dtype], a.shape) for name, a in arrays.items()})
    order = _order({name: (_NAMES[a.dtype], a.shape) for name, a in arrays.items()})
    return b"".join([front, *(arrays[name].tobytes() for name in order)])


def read(data: memoryview) -> Container:
    """Check the header against the file's size.

    Raises:
        SwitchError: this is no safetensors file of known types with one valid header.
    """
    if len(data) > MAX_FILE:
        raise SwitchError(f"the file has {len(data)} bytes; {MAX_FILE} are allowed")
    if len(data) < 8:
        raise SwitchError(f"the file has {len(data)} bytes; a safetensors file starts with a length of 8")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise SwitchError(
            f"not a safetensors file of a switch: a header of {length} bytes (limit {MAX_HEADER})"
        )
    if 8 + length > len(data):
        raise SwitchError(f"the file ends inside its header: {len(data)} bytes, {8 + length} needed")
    try:
        text = bytes(data[8 : 8 + length]).decode("utf-8")
    except UnicodeDecodeError:
        raise SwitchError("the header is not UTF-8 text") from None
    raw = from_json(text, "the header")
    if not isinstance(raw, dict):
        raise SwitchError("the header is not a JSON object")
    metadata = raw.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise SwitchError("the header's __metadata__ is not an object of strings")
    entries = {name: _entry(name, value) for name, value in raw.items()}
    _check_offsets(entries, len(data) - 8 - length)
    found = Container(data, 8 + length, metadata, entries)
    if header(metadata, {n: (e.dtype, e.shape) for n, e in entries.items()}) != data[: 8 + length]:
        raise SwitchError("the header is not in canonical form: sorted keys, no spaces, wider types first")
    return found


def to_json(value: object) -> str:
    """The one valid text of a JSON value: keys sorted, nothing escaped that need not be, no spaces.

    Raises:
        SwitchError: the value has no JSON text, or none in UTF-8.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise SwitchError(f"a value cannot be written as JSON: {error}") from None
    return text


def from_json(text: str, what: str) -> object:
    """A JSON value without duplicate keys, NaN or infinities; SwitchError naming ``what`` if it is none."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise SwitchError(f"{what} has a key twice")
        return found

    def refuse(constant: str) -> NoReturn:
        raise SwitchError(f"{what} has the value {constant}, which is not JSON")

    try:
        found: object = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except SwitchError:
        raise
    except (ValueError, RecursionError) as error:
        raise SwitchError(f"{what} is not JSON: {error}") from None
    if _deeper(found, MAX_DEPTH):
        raise SwitchError(f"{what} is nested deeper than {MAX_DEPTH} levels")
    return found


def _deeper(value: object, most: int) -> bool:
    """Whether lists and objects lie more than ``most`` deep in each other; without recursion."""
    level = [value]
    for _ in range(most + 1):
        lists = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        ]
        if not lists:
            return False
        level = [one for inner in lists for one in inner]
    return True


def _order(arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[str]:
    return sorted(arrays, key=lambda name: (-TYPES[arrays[name][0]].itemsize, name))


def _entry(name: str, value: object) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise SwitchError(f"entry {name!r} is not an object of dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise SwitchError(f"entry {name!r} has dtype {dtype!r}; {', '.join(TYPES)} are read")
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise SwitchError(f"entry {name!r} has a shape that is not up to {MAX_DIMENSIONS} whole numbers")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise SwitchError(f"entry {name!r} has data_offsets that are not a beginning and an end")
    if math.prod(filter(None, shape)) > MAX_FILE:  # where one is 0, nothing else bounds the others
        raise SwitchError(f"entry {name!r} has the shape {shape}; its sizes are too large together")
    needed = math.prod(shape) * TYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needed:
        raise SwitchError(f"entry {name!r} has {offsets[1] - offsets[0]} bytes; its shape needs {needed}")
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= MAX_FILE for n in value)


def _check_offsets(entries: Mapping[str, Entry], size: int) -> None:
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            kind = "overlaps the entry before it" if entry.begin < at else "leaves a hole before it"
            raise SwitchError(f"entry {name!r} begins at byte {entry.begin} and {kind}, which ends at {at}")
        at = entry.end
    if at != size:
        raise SwitchError(f"the entries take {at} bytes, but {size} follow the header")
