"""What makes rows of a request's inputs and batches of rows: one noun with two kinds, texts and images.

Knows neither of them, nothing of weights and nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch

from bitswitch.core import Inputs, Row, Want


class Encoder(Protocol):
    """Made with the base it encodes for. Safe to use from many threads at once."""

    @property
    def kind(self) -> Literal["text", "image"]:
        """What it reads."""

    def check(self, inputs: Inputs, *, want: Want) -> None:
        """Refuse at no cost what cannot be read or is larger than may be.

        Raises:
            InvalidRequestError: or one of its kinds; the message names the input and what would be right.
        """

    def guess(self, inputs: Inputs) -> int:
        """How many tokens these will have, about, at no cost."""

    def __call__(self, inputs: Inputs, *, want: Want) -> tuple[Row, ...]:
        """One row per input.

        Raises:
            InvalidRequestError: or one of its kinds, as `check`.
        """

    def samples(self) -> tuple[Row, ...]:
        """A few rows to try a pass with, of different lengths where lengths differ."""

    def pad(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """One batch of ``rows``, by the names that the model's forward takes."""
