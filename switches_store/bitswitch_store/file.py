"""A switch ⇄ one safetensors file; `docs/format.md` is this file in words.

Knows nothing of where files are kept, nor of the base's weights. Equal switches give equal bytes, and
whatever `read` accepts `write` gives back byte for byte: everything else is refused with one sentence.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import codec, container, index, metadata, planes
from bitswitch_store.container import Container
from bitswitch_store.index import Record
from bitswitch_store.metadata import About
from bitswitch_store.switch import Head, QuerySet, Switch, SwitchError, TensorSwitch

FORMAT_VERSION = metadata.FORMAT_VERSION
MAX_WEIGHTS = 1 << 34  # over all tensors: 2 GiB of activation bits once decoded
MAX_ROWS = 1 << 26  # over all tensors with a knob per row: 256 MiB of knobs once decoded
# No fine-tuning moves a weight this far; and below it, base + knob stays finite in fp16 (65504).
MAX_KNOB = 1e4

_HEAD = "head."


@dataclass(frozen=True)
class Sizes:
    """Where a file's bytes go; ``other`` is the header with its metadata, and the list of tensors."""

    activation: int
    polarity: int
    knobs: int
    head: int
    queries: int
    other: int

    @property
    def total(self) -> int:
        """The file's size."""
        return self.activation + self.polarity + self.knobs + self.head + self.queries + self.other


@dataclass(frozen=True)
class FileHeader:
    """What a file says of itself, its bits not yet looked at."""

    about: About
    records: tuple[Record, ...]
    sizes: Sizes


def write(switch: Switch) -> bytes:
    """The file of a switch; equal switches give equal bytes.

    Raises:
        SwitchError: the switch is beyond what `read` accepts, e.g. a knob above `MAX_KNOB`.
    """
    records, streams, knobs = [], [], []
    for tensor in switch.tensors:
        code, stream = codec.encode(tensor.activation, tensor.shape, tensor.active)
        per_row = tensor.knobs.size > 1
        records.append(Record(tensor.name, tensor.shape, tensor.active, code, per_row, len(stream)))
        streams.append(stream)
        knobs.append(tensor.knobs[tensor.knobs > 0])
    arrays: dict[str, NDArray[Any]] = {
        "activation": np.frombuffer(b"".join(streams), np.uint8),
        "index": np.frombuffer(index.write(records), np.uint8),
        "knobs": _narrowest(np.concatenate(knobs) if knobs else np.zeros(0, np.float32)),
        "polarity": np.concatenate([np.zeros(0, np.uint8), *(t.polarity for t in switch.tensors)]),
    }
    _check_knobs(arrays["knobs"])
    if switch.head:
        arrays |= {_HEAD + name: array for name, array in switch.head.tensors.items()}
    if switch.queries:
        arrays["queries"] = switch.queries.features
    data = container.write(metadata.write(About.of(switch)), arrays)
    _checked(container.read(memoryview(data)), MAX_WEIGHTS)  # what could not be read is not written
    return data


def read(source: bytes | Path, *, max_weights: int = MAX_WEIGHTS) -> Switch:
    """The switch of a file, wholly checked.

    Args:
        source: the file's bytes, or where it lies (it is mapped, not loaded).
        max_weights: refuse a file whose tensors have more weights in all, before decoding any. A
            caller who knows the base gives its number of weights.

    Raises:
        SwitchError: this is not a file that `write` makes.
        OSError: the path cannot be read.
    """
    file = container.read(_view(source))
    about, records = _checked(file, max_weights)
    tensors = _tensors(file, records)
    head = None
    if about.labels is not None:
        names = sorted(name for name in file.entries if name.startswith(_HEAD))
        arrays = {name.removeprefix(_HEAD): file.array(name).copy() for name in names}
        head = Head(arrays, about.head_config or {}, about.labels)
    queries = None
    if about.query_recipe is not None:
        queries = QuerySet(file.array("queries").copy(), about.query_recipe)
    return Switch(
        base=about.base,
        rule=about.rule,
        tensors=tensors,
        task=about.task,
        head=head,
        queries=queries,
        metric=about.metric,
        licence=about.licence,
        created=about.created,
    )


def header(source: bytes | Path, *, max_weights: int = MAX_WEIGHTS) -> FileHeader:
    """What a file says of itself: cheap, the bits are not decoded. Raises as `read` does."""
    file = container.read(_view(source))
    about, records = _checked(file, max_weights)
    parts = {name: file.size(name) for name in ("activation", "polarity", "knobs", "queries")}
    head = sum(file.size(name) for name in file.entries if name.startswith(_HEAD))
    other = len(file.data) - head - sum(parts.values())
    return FileHeader(about, records, Sizes(**parts, head=head, other=other))


def sizes(source: bytes | Path) -> Sizes:
    """Where a file's bytes go. Raises as `read` does."""
    return header(source).sizes


def digest(data: bytes) -> str:
    """``sha256:`` and 64 hex digits of a file's bytes: the switch's identity everywhere."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _view(source: bytes | Path) -> memoryview:
    if not isinstance(source, Path):
        return memoryview(source)
    with source.open("rb") as file:
        if source.stat().st_size == 0:  # which cannot be mapped
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _checked(file: Container, max_weights: int) -> tuple[About, tuple[Record, ...]]:
    """Everything that can be known without decoding."""
    about = metadata.read(file.metadata)
    wanted = {"activation": ("U8",), "index": ("U8",), "knobs": ("F16", "F32"), "polarity": ("U8",)}
    if about.query_recipe is not None:
        wanted["queries"] = ("F16",)
    for name, dtypes in wanted.items():
        entry = file.entries.get(name)
        if entry is None:
            raise SwitchError(f"the file has no entry {name!r}")
        if entry.dtype not in dtypes or len(entry.shape) != (2 if name == "queries" else 1):
            raise SwitchError(f"entry {name!r} is {entry.dtype} {entry.shape}; {' or '.join(dtypes)} is read")
    for name, entry in file.entries.items():
        if name in wanted:
            continue
        if about.labels is None or not name.startswith(_HEAD):
            raise SwitchError(f"the file has the unknown entry {name!r}")
        if entry.dtype == "U8":
            raise SwitchError(f"entry {name!r} is U8; F32 or F16 is read")
    records = index.read(file.array("index").tobytes())
    _check_limits(records, max_weights)
    activation = sum(record.size for record in records)
    polarity = sum((record.active + 7) // 8 for record in records)
    for name, needed in (("activation", activation), ("polarity", polarity)):
        if file.size(name) != needed:
            raise SwitchError(f"entry {name!r} has {file.size(name)} bytes; the index counts {needed}")
    return about, records


def _check_limits(records: Sequence[Record], max_weights: int) -> None:
    weights = sum(record.numel for record in records)
    if weights > max_weights:
        raise SwitchError(f"the tensors have {weights} weights in all; {max_weights} are allowed")
    rows = sum(record.shape[0] for record in records if record.knob_per_row)
    if rows > MAX_ROWS:
        raise SwitchError(f"the tensors have {rows} rows with a knob each; {MAX_ROWS} are allowed")


def _check_knobs(knobs: NDArray[Any]) -> None:
    if not np.isfinite(knobs).all():
        raise SwitchError("a knob is not finite")
    if (knobs > MAX_KNOB).any():
        raise SwitchError(f"a knob is {knobs.max()}; above {MAX_KNOB:g} it is no fine-tuning")


def _narrowest(knobs: NDArray[np.float32]) -> NDArray[Any]:
    """Float16 if that holds every knob exactly, else as given."""
    with np.errstate(over="ignore"):
        narrow = knobs.astype(np.float16)
    return narrow if (narrow.astype(np.float32) == knobs).all() else knobs


def _tensors(file: Container, records: Sequence[Record]) -> tuple[TensorSwitch, ...]:
    activation = file.array("activation").data
    polarity = file.array("polarity")
    stored = file.array("knobs")
    _check_knobs(stored)
    knobs = stored.astype(np.float32)
    if _narrowest(knobs).dtype != stored.dtype:
        raise SwitchError("the knobs are F32, but F16 holds each of them exactly")
    tensors = []
    bits = signs = scales = 0
    for record in records:
        try:
            plane = codec.decode(
                record.code, activation[bits : bits + record.size], record.shape, record.active
            )
        except SwitchError as error:
            raise SwitchError(f"{record.name}: {error}") from None
        used = np.zeros(1, np.int64)
        if record.knob_per_row:
            if record.shape[0] == 1:
                raise SwitchError(f"{record.name}: one row has one knob, not one per row")
            used = planes.touched_rows(
                planes.words(plane), record.shape[0], record.numel // record.shape[0], record.active
            )
        needed = used.size
        if scales + needed > knobs.size:
            raise SwitchError(f"{record.name}: {needed} knobs are needed, {knobs.size - scales} are left")
        spread = np.zeros(record.shape[0] if record.knob_per_row else 1, np.float32)
        spread[used] = knobs[scales : scales + needed]
        size = (record.active + 7) // 8
        tensors.append(
            TensorSwitch(record.name, record.shape, plane, polarity[signs : signs + size].copy(), spread)
        )
        bits, signs, scales = bits + record.size, signs + size, scales + needed
    if scales != knobs.size:
        raise SwitchError(f"the file has {knobs.size} knobs, but its tensors use {scales}")
    return tuple(tensors)
