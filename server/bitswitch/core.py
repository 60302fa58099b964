"""The plain nouns that the server's rooms hand to each other. Imports nothing heavy.

A `Mix` says what the weights shall be, a `Request` what shall be computed at them, a `Result` what
came of it and how long each part took, a `Route` what ``auto`` chose and why.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Mix(tuple[tuple[str, float], ...]):
    """What the weights shall be: ``((digest, weight), …)``, sorted by digest; ``()`` is the bare base.

    Weights are rounded to fp32, since that is what the kernels multiply with: two mixes are equal
    exactly when they set the same weights. Build one with `Mix.of`.
    """

    __slots__ = ()

    @classmethod
    def of(cls, parts: Iterable[tuple[str, float]] = ()) -> Self:
        """Merge equal digests, drop zero weights, sort.

        Args:
            parts: pairs of a switch's digest and its weight.

        Raises:
            ValueError: a weight is not finite in fp32.
        """
        total: dict[str, float] = {}
        for digest, weight in parts:
            total[digest] = total.get(digest, 0.0) + weight
        rounded = {digest: _to_fp32(digest, weight) for digest, weight in total.items()}
        return cls(sorted((digest, weight) for digest, weight in rounded.items() if weight != 0.0))

    @property
    def digests(self) -> tuple[str, ...]:
        """The switches that take part, sorted."""
        return tuple(digest for digest, _ in self)

    @property
    def heaviest(self) -> str | None:
        """The switch with the largest weight (first by digest among equals); None for the bare base."""
        return max(self, key=lambda part: part[1])[0] if self else None


def _to_fp32(digest: str, weight: float) -> float:
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", weight))[0]
    except OverflowError:
        rounded = math.inf
    if not math.isfinite(rounded):
        raise ValueError(f"the weight of {digest} is {weight}; it must be finite in fp32")
    return rounded


Inputs: TypeAlias = Sequence[str | tuple[str, str]]
"""Texts and pairs of texts; or images, each as a data URL or as base64."""


@dataclass(frozen=True)
class Row:
    """One input, ready for the model.

    Attributes:
        fields: of a text as the tokenizer names them, each (length,); of an image ``pixel_values``, float32
            (channels, height, width).
        truncated: whether the input was longer than the model reads.
        patches: tokens that the model makes of an image; None for a text, whose ids are counted.
        style: how a text is written, float32; only where features are wanted.
    """

    fields: Mapping[str, Sequence[int] | NDArray[np.float32]]
    truncated: bool = False
    patches: int | None = None
    style: NDArray[np.float32] | None = field(default=None, compare=False)  # an array has no one truth

    @property
    def length(self) -> int:
        """Tokens, special ones included."""
        return len(self.fields["input_ids"]) if self.patches is None else self.patches


@dataclass(frozen=True)
class InputLimits:
    """How large one input may be, whoever sends it.

    Attributes:
        text_chars: of one text: the tokenizer reads all of it before it cuts.
        image_bytes: of one image's file.
        image_pixels: of one image, width times height: a small file can hold very many.
        request_pixels: of all the images of one request.
    """

    text_chars: int = 65_536
    image_bytes: int = 4 * 2**20
    image_pixels: int = 2**24
    request_pixels: int = 2**26


class RouteMode(StrEnum):
    """What ``auto`` sets the weights to."""

    MIX = "mix"
    """The shares of the votes as weights: what the paper does."""
    TOP1 = "top1"
    """The switch with the most votes, alone."""


class Want(StrEnum):
    """What a request wants computed."""

    CLASSIFY = "classify"
    EMBED = "embed"
    FEATURES = "features"


@dataclass(frozen=True)
class Request:
    """One unit of work for the engine.

    Attributes:
        mix: the weights to compute at.
        rows: the tokenized inputs; at least one.
        head: digest of the switch whose head answers; needed for CLASSIFY alone.
        tenant: whose request it is.
        deadline: `time.monotonic()` seconds after which nobody waits for it any more.
    """

    mix: Mix
    want: Want
    rows: tuple[Row, ...]
    head: str | None = None
    tenant: str = "default"
    deadline: float | None = None
    id: str = ""

    @property
    def tokens(self) -> int:
        """Tokens over all rows."""
        return sum(row.length for row in self.rows)


@dataclass(frozen=True)
class Timing:
    """Where a request's time went, in seconds. ``swap`` and ``forward`` are those of its whole batch."""

    queue: float = 0.0
    swap: float = 0.0
    forward: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.queue + self.swap + self.forward

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.queue + other.queue, self.swap + other.swap, self.forward + other.forward)


@dataclass(frozen=True)
class Result:
    """What the engine answers.

    Attributes:
        values: float32. CLASSIFY: (rows, labels) probabilities (softmax, sigmoid, or the raw value
            of a regression head). EMBED: (rows, dim). FEATURES: (rows, feature dim).
        mix: the mix it was computed at.
        step: number of the engine's step that it was computed in; requests that share one share its time.
    """

    values: NDArray[np.float32]
    mix: Mix
    timing: Timing
    step: int = 0


@dataclass(frozen=True)
class Neighbour:
    """One switch among the nearest query vectors of an input."""

    digest: str
    share: float
    """Share of the K votes, 0 to 1."""
    distance: float
    """Euclidean distance of its nearest query vector, in the router's metric."""


@dataclass(frozen=True)
class Route:
    """What ``auto`` chose for one input, and why.

    Attributes:
        mix: the shares of the votes as weights, or the head alone, see `RouteMode`; ``()`` when it abstained.
        head: the heaviest switch, whose head answers; None when it abstained.
        distance: how much stranger the input is to the switch with the most votes than to inputs at large:
            a difference of squared distances, mostly below 0 for its own (inf when there is none to see).
        threshold: the largest distance that would not have been an abstention.
    """

    mix: Mix
    head: str | None
    abstained: bool
    distance: float
    threshold: float
    neighbours: tuple[Neighbour, ...] = ()

    @property
    def confidence(self) -> float:
        """How likely the switch with the most votes is the right one of those in sight: its share of them."""
        return self.neighbours[0].share if self.neighbours else 0.0
