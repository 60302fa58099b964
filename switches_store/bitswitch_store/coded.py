"""A switch file, opened: its header is checked, its parts are decoded when they are asked for.

Knows nothing of where files are kept, nor of the base's weights. A file that `file.write` did not make is
refused with one sentence; the bits are looked at in `CodedSwitch.decode` alone.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import codec, container, index, knobs, metadata, planes, query_codes
from bitswitch_store.codes import Codes
from bitswitch_store.container import Container
from bitswitch_store.index import Record
from bitswitch_store.metadata import About
from bitswitch_store.switch import Head, QuerySet, Switch, SwitchError, TensorSwitch
from bitswitch_store.varint import read_varint
from bitswitch_store.words import Words

MAX_WEIGHTS = 1 << 34  # over all tensors: 2 GiB of activation bits once decoded
MAX_ROWS = 1 << 26  # over all tensors with a knob per row: 256 MiB of knobs once decoded
MAX_INDEX = 1 << 24  # bytes
MAX_HEAD = 1 << 28  # bytes; 65,536 labels of 1,024 features in F32

HEAD = "head."


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


class CodedSwitch:
    """One switch file.

    Args:
        source: the file's bytes, or where it lies (it is mapped, not loaded: what is not asked for is
            not read).

    Attributes:
        about: what the file says of its switch.

    Raises:
        SwitchError: the header is not one that `file.write` makes.
        OSError: the path cannot be read.
    """

    def __init__(self, source: bytes | Path) -> None:
        self._file = container.read(_view(source))
        self.about: About = metadata.read(self._file.metadata)
        _check_entries(self._file, self.about)

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The list of tensors. SwitchError if it is not a valid one."""
        return index.read(self._file.array("index").tobytes())

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Whether every tensor is one of the base's; a list that is longer than the base's is not even read.

        Raises:
            SwitchError: one is not, or has another shape.
        """
        count, _ = read_varint(self._file.array("index").data, 0)
        if count > len(shapes):
            raise SwitchError(f"the index lists {count} tensors; this base has {len(shapes)}")
        for record in self.records:
            shape = shapes.get(record.name)
            if shape is None:
                raise SwitchError(f"{record.name} is no parameter of this base")
            if shape != record.shape:
                raise SwitchError(f"{record.name} has the shape {record.shape}; the base's is {shape}")

    @property
    def sizes(self) -> Sizes:
        """Where the file's bytes go."""
        parts = {name: self._file.size(name) for name in ("activation", "polarity", "knobs", "queries")}
        parts["queries"] += self._file.size("query_steps")
        head = sum(self._file.size(name) for name in self._file.entries if name.startswith(HEAD))
        return Sizes(**parts, head=head, other=len(self._file.data) - head - sum(parts.values()))

    def queries(self, *, vouched: bool = False) -> QuerySet | None:
        """The query set, if there is one; nothing else is read. SwitchError if it is not a valid one."""
        if self.about.query_recipe is None:
            return None
        codes = query_codes.read(self._file.array("queries").data, vouched=vouched)
        steps = self._file.array("query_steps").copy()
        return QuerySet(Codes(codes, steps.reshape(-1, 1)), self.about.query_recipe)

    def decode(self, *, max_weights: int = MAX_WEIGHTS, vouched: bool = False) -> Switch:
        """All of it.

        Args:
            max_weights: refuse a file whose tensors have more weights in all, before decoding any. A
                caller who knows the base gives its number of weights.
            vouched: a file of this very digest has been decoded before with every check, and these bytes
                have that digest. Then nobody searches again for an encoding that is shorter than the
                file's, which is a quarter of the work. Nothing that is unsafe to be wrong about rests on
                it: any bytes at all are refused, or are a switch.

        Raises:
            SwitchError: this is not a file that `file.write` makes.
        """
        self.check_counts(max_weights)
        about = self.about
        return Switch(
            base=about.base,
            rule=about.rule,
            tensors=self._tensors(vouched),
            task=about.task,
            head=self._head(),
            queries=self.queries(vouched=vouched),
            metric=about.metric,
            licence=about.licence,
            created=about.created,
        )

    def check_counts(self, max_weights: int = MAX_WEIGHTS) -> None:
        """SwitchError if the tensors have too many weights, too many knobs, or other sizes than the parts."""
        weights = sum(record.numel for record in self.records)
        if weights > max_weights:
            raise SwitchError(f"the tensors have {weights} weights in all; {max_weights} are allowed")
        rows = sum(record.shape[0] for record in self.records if record.knob_per_row)
        if rows > MAX_ROWS:
            raise SwitchError(f"the tensors have {rows} rows with a knob each; {MAX_ROWS} are allowed")
        room = sum(record.shape[0] if record.knob_per_row else 1 for record in self.records)
        held = self._file.entries["knobs"]
        if held.dtype != "U8" and held.shape[0] > room:  # those of 8 bits are coded, and bytes
            raise SwitchError(f"the file has {held.shape[0]} knobs, but its tensors have room for {room}")
        activation = sum(record.size for record in self.records)
        polarity = sum((record.active + 7) // 8 for record in self.records)
        for name, needed in (("activation", activation), ("polarity", polarity)):
            if self._file.size(name) != needed:
                raise SwitchError(
                    f"entry {name!r} has {self._file.size(name)} bytes; the index counts {needed}"
                )

    def _head(self) -> Head | None:
        if self.about.labels is None:
            return None
        names = sorted(name for name in self._file.entries if name.startswith(HEAD))
        arrays = {name.removeprefix(HEAD): self._file.array(name).copy() for name in names}
        return Head(arrays, self.about.head_config or {}, self.about.labels)

    def _tensors(self, vouched: bool) -> tuple[TensorSwitch, ...]:
        activation = self._file.array("activation").data
        polarity = self._file.array("polarity")
        decoded = []
        bits = 0
        for record in self.records:
            stream = activation[bits : bits + record.size]
            try:
                plane = codec.decode(record.code, stream, record.shape, record.active, vouched=vouched)
            except SwitchError as error:
                raise SwitchError(f"{record.name}: {error}") from None
            decoded.append((record, plane, _rows_used(record, plane)))
            bits += record.size
        sizes = [used.size for *_, used in decoded]
        dimensions = [len(record.shape) for record in self.records]
        found = knobs.read(self._file.array("knobs"), sizes, dimensions, vouched=vouched)
        tensors = []
        signs = scales = 0
        for record, plane, used in decoded:
            spread = np.zeros(record.shape[0] if record.knob_per_row else 1, np.float32)
            spread[used] = found[scales : scales + used.size]
            size = (record.active + 7) // 8
            tensors.append(
                TensorSwitch(
                    name=record.name,
                    shape=record.shape,
                    activation=planes.packed(plane, record.numel),
                    polarity=polarity[signs : signs + size].copy(),
                    knobs=spread,
                )
            )
            signs, scales = signs + size, scales + used.size
        return tuple(tensors)


def _view(source: bytes | Path) -> memoryview:
    if not isinstance(source, Path):
        return memoryview(source)
    with source.open("rb") as file:
        if source.stat().st_size == 0:  # which cannot be mapped
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _check_entries(file: Container, about: About) -> None:
    """Which arrays there are, of which types; their sizes against each other are the index's to say."""
    wanted = {"activation": ("U8",), "index": ("U8",), "knobs": ("U8", "F16", "F32"), "polarity": ("U8",)}
    if about.query_recipe is not None:
        wanted |= {"queries": ("U8",), "query_steps": ("F32",)}
    for name, dtypes in wanted.items():
        entry = file.entries.get(name)
        if entry is None:
            raise SwitchError(f"the file has no entry {name!r}")
        if entry.dtype not in dtypes or len(entry.shape) != 1:
            raise SwitchError(f"entry {name!r} is {entry.dtype} {entry.shape}; {' or '.join(dtypes)} is read")
    if file.size("index") > MAX_INDEX:
        raise SwitchError(f"the index has {file.size('index')} bytes; {MAX_INDEX} are allowed")
    head = sum(file.size(name) for name in file.entries if name.startswith(HEAD))
    if head > MAX_HEAD:
        raise SwitchError(f"the head has {head} bytes; {MAX_HEAD} are allowed")
    for name, entry in file.entries.items():
        if name in wanted:
            continue
        if about.labels is None or not name.startswith(HEAD):
            raise SwitchError(f"the file has the unknown entry {name!r}")
        if entry.dtype not in ("F32", "F16"):
            raise SwitchError(f"entry {name!r} is {entry.dtype}; F32 or F16 is read")
    if about.query_recipe is not None:
        _check_queries(file)


def _check_queries(file: Container) -> None:
    count, *_ = query_codes.counts(file.array("queries").data)
    (steps,) = file.entries["query_steps"].shape
    if steps != count:
        raise SwitchError(f"the query set has {count} vectors, but {steps} steps")


def _rows_used(record: Record, plane: Words) -> NDArray[np.int64]:
    """The rows of a tensor that have a knob of their own, ascending; the first where all share one."""
    if not record.knob_per_row:
        return np.zeros(1, np.int64)
    rows = record.shape[0]
    if rows == 1:
        raise SwitchError(f"{record.name}: one row has one knob, not one per row")
    return planes.touched_rows(plane, rows, record.numel // rows, record.active)
