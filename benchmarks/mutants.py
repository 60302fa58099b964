"""Inputs for the fuzz: valid switch files and models, and what becomes of them when they are bent.

Structurally: a header, a list of tensors or a stream is changed inside an otherwise valid file, so that the
change comes through to whoever reads that part. Knows nothing of how what comes out is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import container, file, index
from bitswitch_store.coded import CodedSwitch
from bitswitch_store.switch import BaseIdentity, Head, QuerySet, Rule, Switch, SwitchError, TensorSwitch

NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    63,
    64,
    127,
    128,
    255,
    2**15,
    2**16,
    2**20,
    2**31,
    2**32,
    2**36,
    2**40,
    2**62,
    2**63,
)
TOKENS = (
    *("base", "auto", "a", "acme/a", "trec6", "a@1", "a@prod", "a@", "@1", "+", "*", "*0.5", "*-1", "*1e-3"),
    *(
        "*10",
        "*11",
        "*nan",
        "*inf",
        "*1e308",
        " ",
        "\t",
        "\n",
        "\0",
        "/",
        "//",
        ".",
        "-",
        "_",
        "A",
        "é",
        "\ud800",
    ),
    *("0", "1", "999999999999", "a" * 64, "a" * 65),
)


def seeds() -> tuple[bytes, ...]:
    """Valid files; among them every code of the codec, both kinds of knob, heads and query sets or none."""
    chance = np.random.default_rng(0)
    whole = []
    for number, density in enumerate((0.01, 0.05, 0.38, 0.5, 0.62, 0.95, 1.0)):
        made = [
            _tensor(f"layer.{i}", shape, density, chance) for i, shape in enumerate([(9,), (40, 12), (5, 64)])
        ]
        rows = np.zeros((60, 12), bool)
        rows[[3, 40]] = chance.random((2, 12)) < max(density, 0.1)
        rows[3, 0] = True
        made.append(_of_bits("layer.rows", rows, chance, per_row=bool(number % 2)))
        head = Head(
            {"classifier.weight": np.ones((2, 3), np.float32)}, {"size": 3, "deep": {"x": [1]}}, ("no", "é")
        )
        whole.append(
            file.write(
                Switch(
                    BaseIdentity("bert", "sha256:" + "ab" * 32),
                    Rule("budget", {"budget": 0.02}),
                    tuple(made),
                    f"task-{number}",
                    head=head if number % 2 else None,
                    queries=QuerySet.of(chance.normal(size=(9, 7)), "hidden:1|mean|l2")
                    if number % 3
                    else None,
                    metric={"accuracy": 0.9},
                    created="2026-01-31T12:00:00Z",
                )
            )
        )
    return tuple(whole)


def _tensor(name: str, shape: tuple[int, ...], density: float, chance: np.random.Generator) -> TensorSwitch:
    bits = chance.random(shape) < density
    bits.flat[0] = True
    return _of_bits(name, bits, chance, per_row=len(shape) > 1)


def _of_bits(
    name: str, bits: NDArray[np.bool_], chance: np.random.Generator, *, per_row: bool
) -> TensorSwitch:
    signs = chance.random(int(bits.sum())) < 0.5
    used = bits.reshape(bits.shape[0], -1).any(axis=1) if per_row else np.ones(1, bool)
    knobs = np.where(used, 0.25, 0.0).astype(np.float32)
    packed = np.packbits(bits.reshape(-1), bitorder="little"), np.packbits(signs, bitorder="little")
    return TensorSwitch(name, bits.shape, *packed, knobs)


def bent_bytes(data: bytes, chance: random.Random, most: int = 4) -> bytes:
    """A few bytes changed, put in, taken out or doubled."""
    out = bytearray(data)
    for _ in range(chance.randint(1, most)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(5):
            case 0 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(out):
                out[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                out[at:at] = chance.randbytes(chance.randint(1, 9))
            case 3:
                del out[at : at + chance.randint(1, 9)]
            case _:
                out[at:at] = out[at : at + chance.randint(1, 64)]
    return bytes(out)


def bent_file(data: bytes, chance: random.Random) -> bytes:
    """A valid file, bent somewhere."""
    try:
        return chance.choice(_BENDS)(data, chance)
    except (SwitchError, ValueError, OverflowError):  # no file can be written that is bent so far
        return bent_bytes(data, chance)


def _anywhere(data: bytes, chance: random.Random) -> bytes:
    return bent_bytes(data, chance)


def _nothing_but_chance(_data: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(0, 300))


def _header_text(data: bytes, chance: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    text = bent_bytes(data[8 : 8 + length], chance, 2)
    stated = chance.choice((len(text), len(text), len(text), *NUMBERS)) % 2**64
    return stated.to_bytes(8, "little") + text + data[8 + length :]


def _header_values(data: bytes, chance: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    value: Any = container.from_json(data[8 : 8 + length].decode(), "the header")
    for _ in range(chance.randint(1, 2)):
        name = chance.choice(sorted(value))
        match chance.randrange(4):
            case 0:
                value[name] = chance.choice((None, [], {}, 1, "x", [[[[]]]], {"dtype": "F16"}))
            case 1:
                value[chance.choice(("head.x", "knobs", "é", "index"))] = value.pop(name)
            case _ if isinstance(value[name], dict) and "shape" in value[name]:
                numbers = value[name][chance.choice(("shape", "data_offsets"))]
                if numbers:
                    numbers[chance.randrange(len(numbers))] = chance.choice(NUMBERS)
            case _:
                value[name] = chance.choice(
                    ([0], "F32", {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]})
                )
    text = container.to_json(value).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _metadata(data: bytes, chance: random.Random) -> bytes:
    def change(strings: dict[str, str], _: dict[str, NDArray[Any]]) -> None:
        key = chance.choice(sorted(strings))
        deep = chance.choice(
            ("[" * 500 + "]" * 500, '{"a":' * 60 + "1" + "}" * 60, "1e999", "-0.0", "9" * 400, "")
        )
        bent = bent_bytes(strings[key].encode(), chance, 2).decode("utf-8", "replace")
        strings[key] = chance.choice((deep, bent, bent))

    return _rebuilt(data, change)


def _array(data: bytes, chance: random.Random) -> bytes:
    def change(_: dict[str, str], arrays: dict[str, NDArray[Any]]) -> None:
        name = chance.choice(sorted(arrays))
        array = arrays[name]
        bent = np.frombuffer(bent_bytes(array.tobytes(), chance), np.uint8)
        whole = bent[: bent.size // array.itemsize * array.itemsize].view(array.dtype)
        arrays[name] = whole if array.ndim == 1 else whole[: array.size].reshape(-1, 1)

    return _rebuilt(data, change)


def _records(data: bytes, chance: random.Random) -> bytes:
    """The list of tensors says something else, or a stream does, and the sizes agree again."""
    records = list(CodedSwitch(data).records)
    at = chance.randrange(len(records))
    begin = sum(record.size for record in records[:at])
    streams = container.read(memoryview(data)).array("activation").tobytes()
    stream = streams[begin : begin + records[at].size]
    if chance.random() < 0.6:
        stream = bent_bytes(stream, chance)
    field = chance.choice(("shape", "active", "code", "knob_per_row", "none"))
    shape = list(records[at].shape)
    shape[chance.randrange(len(shape))] = chance.choice((1, 2, 3, 60, 64, 65, 1000, 2**14, *NUMBERS))
    values: Mapping[str, object] = {
        "shape": tuple(shape),
        "active": chance.choice((1, 2, 3, records[at].active + 1, max(1, records[at].active - 1), *NUMBERS)),
        "code": chance.randrange(16),
        "knob_per_row": not records[at].knob_per_row,
    }
    changed = {field: values[field]} if field in values else {}
    records[at] = replace(records[at], **changed, size=len(stream))  # type: ignore[arg-type]

    def change(_: dict[str, str], arrays: dict[str, NDArray[Any]]) -> None:
        listed = index.write(records)
        arrays["index"] = np.frombuffer(listed, np.uint8)
        joined = streams[:begin] + stream + streams[begin + CodedSwitch(data).records[at].size :]
        arrays["activation"] = np.frombuffer(joined, np.uint8)
        signs = sum((record.active + 7) // 8 for record in records)
        if signs < 2**20:
            arrays["polarity"] = np.resize(arrays["polarity"], signs)

    return _rebuilt(data, change)


def _rebuilt(data: bytes, change: Callable[[dict[str, str], dict[str, NDArray[Any]]], None]) -> bytes:
    found = container.read(memoryview(data))
    strings = dict(found.metadata)
    arrays = {name: found.array(name) for name in found.entries}
    change(strings, arrays)
    return container.write(strings, arrays)


_BENDS = (
    _anywhere,
    _nothing_but_chance,
    _header_text,
    _header_values,
    _metadata,
    _array,
    _array,
    _records,
    _records,
    _records,
)


def model(chance: random.Random) -> str:
    """Something like a ``model``: words of the grammar, or nearly."""
    if chance.random() < 0.1:
        return "".join(chr(chance.choice((32, 42, 43, 47, 64, chance.randrange(0x3000)))) for _ in range(9))
    return "".join(chance.choice(TOKENS) for _ in range(chance.randint(0, 9)))
