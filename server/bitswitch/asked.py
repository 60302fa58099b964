"""What one request asks, and the bounds of asking. Knows no store and no router; of the engine, its door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitswitch.core import Mix, Request, Row, Want
from bitswitch.engine.admission import Ticket
from bitswitch.errors import InputTooLongError, InvalidRequestError
from bitswitch.tenants.limits import Permit

Inputs = Sequence[str | tuple[str, str]]


@dataclass(frozen=True)
class Asked:
    """One request on its way.

    Attributes:
        deadline: `time.monotonic()` seconds.
        ticket: by which the engine let it in.
        permit: the tenant's; None where nobody has limits.
    """

    tenant: str
    model: str
    inputs: Inputs
    want: Want
    id: str
    deadline: float
    ticket: Ticket
    permit: Permit | None = None

    def request(self, mix: Mix, rows: Sequence[Row], *, want: Want, head: str | None = None) -> Request:
        """A piece of it, for the engine."""
        return Request(mix, want, tuple(rows), head, self.tenant, self.deadline, self.id)

    def charge(self, rows: Sequence[Row]) -> None:
        """Say how many tokens its inputs are, and use the tenant's. Raises as `Permit.charge` does."""
        self.ticket.tokens = sum(row.length for row in rows)
        if self.permit is not None:
            self.permit.charge([row.length for row in rows])


@dataclass(frozen=True)
class Bounds:
    """How much one request may ask, whoever sends it.

    Attributes:
        inputs: texts or pairs of them.
        text_chars: of one text: the tokenizer reads all of it before it cuts.
    """

    inputs: int
    text_chars: int

    def check(self, inputs: Inputs) -> None:
        """Whether these are not too many, and none too long.

        Raises:
            InvalidRequestError: there is none.
            InputTooLongError: there is more than may be.
        """
        if not inputs:
            raise InvalidRequestError("There is no input; send one text or a list of them.", param="input")
        if len(inputs) > self.inputs:
            raise InputTooLongError(
                f"There are {len(inputs)} inputs; one request holds at most {self.inputs}.", param="input"
            )
        for index, one in enumerate(inputs):
            longest = max(map(len, (one,) if isinstance(one, str) else one))
            if longest > self.text_chars:
                raise InputTooLongError(
                    f"Input {index} has a text of {longest} characters;"
                    f" one text has at most {self.text_chars}.",
                    param=f"input.{index}",
                )
