"""What a switch is: frozen values that validate themselves.

Knows nothing of files, of codes, of where a switch came from or of what it is applied to.
Words and rule: *Less is More: Efficient Model Merging with Binary Task Switch*, CVPR 2025.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch_store.codes import Codes

MAX_QUERIES = 1_000
"""Vectors of a query set, at most; the paper takes about 100."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class SwitchError(ValueError):
    """A value that is no valid part of a switch; the message is one sentence naming the fault.

    What a file calls things stands in it, so what would end a line or steer a terminal is escaped.
    """

    def __init__(self, message: str) -> None:
        shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__(message if message.isprintable() else "".join(shown))


@dataclass(frozen=True)
class BaseIdentity:
    """Which base a switch belongs to.

    Attributes:
        architecture: ``model_type`` of the base's ``config.json``.
        digest: ``sha256:`` over names, shapes, dtypes and bytes of its floating tensors.
    """

    architecture: str
    digest: str

    def __post_init__(self) -> None:
        if not self.architecture:
            raise SwitchError("the base's architecture is empty")
        if not DIGEST.fullmatch(self.digest):
            raise SwitchError(f"the base's digest {self.digest!r} is not 'sha256:' and 64 hex digits")


@dataclass(frozen=True, eq=False)
class TensorSwitch:
    """What a switch does to one tensor: ``w ← w + knob · (±1)`` at its active weights.

    Bits are packed eight to a byte, least significant first, in row-major order of the weights;
    the unused bits of the last byte are zero.

    Attributes:
        name: the tensor's name in the base checkpoint.
        shape: the tensor's shape; at least one dimension, at least one element.
        activation: uint8 (ceil(numel / 8),); bit i says whether weight i is touched.
        polarity: uint8 (ceil(active / 8),); bit j says whether the j-th active weight goes up.
        knobs: float32, (1,) for one knob per tensor or (shape[0],) for one per output row; finite;
            positive wherever the tensor (the row) has an active weight, and zero where it has none.

    Raises:
        SwitchError: any of this does not hold.
    """

    name: str
    shape: tuple[int, ...]
    activation: NDArray[np.uint8]
    polarity: NDArray[np.uint8]
    knobs: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not self.name:
            raise SwitchError("a tensor's name is empty")
        if not self.shape or any(n < 1 for n in self.shape):
            raise SwitchError(f"{self.name}: shape {self.shape} needs one dimension or more, each at least 1")
        self._check_bits("activation", self.activation, self.numel)
        if self.active == 0:
            raise SwitchError(f"{self.name}: no weight is active; leave the tensor out of the switch")
        self._check_bits("polarity", self.polarity, self.active)
        if self.knobs.dtype != np.float32 or self.knobs.shape not in ((1,), (self.rows,)):
            raise SwitchError(
                f"{self.name}: knobs are {self.knobs.dtype} {self.knobs.shape};"
                f" one per tensor is float32 (1,), one per row float32 ({self.rows},)"
            )
        if not np.isfinite(self.knobs).all():
            raise SwitchError(f"{self.name}: a knob is not finite")
        used = self._touched_rows() if self.knobs.size > 1 else np.ones(1, bool)
        if not (self.knobs[used] > 0).all():
            raise SwitchError(f"{self.name}: the knob of a row with active weights is not positive")
        if self.knobs[~used].any():
            raise SwitchError(f"{self.name}: the knob of a row without active weights is not zero")
        for array in (self.activation, self.polarity, self.knobs):
            array.flags.writeable = False

    def _check_bits(self, what: str, bits: NDArray[np.uint8], count: int) -> None:
        size = (count + 7) // 8
        if bits.dtype != np.uint8 or bits.shape != (size,):
            raise SwitchError(
                f"{self.name}: {what} is {bits.dtype} {bits.shape}; {count} bits are uint8 ({size},)"
            )
        if count % 8 and bits[-1] >> (count % 8):
            raise SwitchError(f"{self.name}: {what} has padding bits set after bit {count}")

    @property
    def numel(self) -> int:
        """How many weights the tensor has."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """How many output rows: the first dimension. In a 1-d tensor every weight is a row."""
        return self.shape[0]

    @cached_property
    def active(self) -> int:
        """How many weights the switch touches."""
        bits = np.ascontiguousarray(self.activation)
        whole = bits.size // 8 * 8  # word by word, since most of the time goes into the summing
        parts = bits[:whole].view(np.uint64), bits[whole:]
        return sum(int(np.bitwise_count(part).sum(dtype=np.int64)) for part in parts)

    @property
    def density(self) -> float:
        """Share of weights touched, 0 to 1."""
        return self.active / self.numel

    @cached_property
    def active_per_row(self) -> NDArray[np.int64]:
        """Active weights of each row, (rows,)."""
        width = self.numel // self.rows
        if width % 8 == 0:
            counted = np.bitwise_count(self.activation).reshape(self.rows, width // 8)
        else:
            bits = np.unpackbits(self.activation, count=self.numel, bitorder="little")
            counted = bits.reshape(self.rows, width)
        active: NDArray[np.int64] = counted.sum(axis=1, dtype=np.int64)
        return active

    def _touched_rows(self) -> NDArray[np.bool_]:
        """Whether each row has an active weight, (rows,)."""
        width = self.numel // self.rows
        if width % 64 == 0:
            words = np.ascontiguousarray(self.activation).view(np.uint64)
            touched: NDArray[np.bool_] = np.any(words.reshape(self.rows, -1), axis=1)
            return touched
        return self.active_per_row > 0

    @property
    def entropy_bits(self) -> float:
        """``numel · (H(d) + d)``: the entropy bound of activation and polarity, in bits."""
        d = self.density
        h = 0.0 if d in (0.0, 1.0) else -d * math.log2(d) - (1 - d) * math.log2(1 - d)
        return self.numel * (h + d)


@dataclass(frozen=True, eq=False)
class Head:
    """The task's own last layers, kept dense, and what their outputs mean.

    Attributes:
        tensors: float32 or float16 arrays by their names in the fine-tune's checkpoint.
        config: the fine-tune's ``config.json`` without its label maps; JSON values only.
        labels: label names in the order of the outputs.
    """

    tensors: Mapping[str, NDArray[Any]]
    config: Mapping[str, Any]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.tensors:
            raise SwitchError("the head has no tensors; a switch without a head has head=None")
        if not self.labels:
            raise SwitchError("the head has no labels")
        if len(set(self.labels)) != len(self.labels):
            raise SwitchError("two labels of the head have the same name")
        for name, array in self.tensors.items():
            if array.dtype not in (np.float32, np.float16):
                raise SwitchError(f"head tensor {name} is {array.dtype}; float32 and float16 are read")
            if not np.isfinite(array).all():
                raise SwitchError(f"head tensor {name} has a value that is not finite")

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(array.nbytes for array in self.tensors.values())


@dataclass(frozen=True, eq=False)
class QuerySet:
    """A few unlabelled example inputs of the task, as feature vectors of the bare base.

    Attributes:
        codes: the vectors, (queries, dim), in small whole numbers.
        recipe: which features they are, e.g. ``hidden:3|mean+last|l2|style:0.4``; only equal recipes compare.
    """

    codes: Codes
    recipe: str

    @classmethod
    def of(cls, vectors: NDArray[np.floating[Any]], recipe: str) -> QuerySet:
        """Of feature vectors, (queries, dim), finite."""
        if not np.isfinite(vectors).all():
            raise SwitchError("a query feature is not finite")
        return cls(Codes.of(vectors), recipe)

    def __post_init__(self) -> None:
        codes, steps = self.codes.codes, self.codes.steps
        if codes.dtype != np.int8 or codes.ndim != 2 or 0 in codes.shape:
            raise SwitchError(f"query features are {codes.dtype} {codes.shape}; int8 (queries, dim) is read")
        if steps.dtype != np.float32 or steps.shape != (len(codes), 1):
            raise SwitchError(f"query steps are {steps.dtype} {steps.shape}; float32 (queries, 1) is read")
        if len(self.codes) > MAX_QUERIES:
            raise SwitchError(f"the query set has {len(self.codes)} vectors; {MAX_QUERIES} at most are read")
        if fault := self.codes.fault():
            raise SwitchError(f"the query set: {fault}")
        if not self.recipe:
            raise SwitchError("the query set does not say which features it holds")


@dataclass(frozen=True)
class Rule:
    """How the switch was made: ``paper`` or ``budget``, and the parameters given to it."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Switch:
    """A fine-tune as the difference it makes to a base.

    Attributes:
        base: the base it belongs to.
        tensors: sorted by name, names unique; at least one, or a head.
        task: the task's name, and the name it is published under unless another is given.
        metric: figures of the fine-tune or the switch on the task's test set, by name.
        created: ISO 8601 date and time, UTC.
    """

    base: BaseIdentity
    rule: Rule
    tensors: tuple[TensorSwitch, ...]
    task: str
    head: Head | None = None
    queries: QuerySet | None = None
    metric: Mapping[str, float] = field(default_factory=dict)
    licence: str | None = None
    created: str = ""

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if names != sorted(set(names)):
            raise SwitchError("the tensors of a switch are unique and sorted by name")
        if not self.tensors and self.head is None:
            raise SwitchError("the switch changes nothing: no active weight and no head")
        if not self.task:
            raise SwitchError("the switch has no task name")

    @property
    def active(self) -> int:
        """Weights touched, over all tensors."""
        return sum(tensor.active for tensor in self.tensors)

    @property
    def entropy_bits(self) -> float:
        """The entropy bound of all activations and polarities, in bits."""
        return sum(tensor.entropy_bits for tensor in self.tensors)
