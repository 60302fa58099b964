"""What one request asks. Knows no store and no router; of the engine, its door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitswitch.core import Inputs, Mix, Request, Row, Want
from bitswitch.engine.admission import Ticket
from bitswitch.errors import InputTooLongError, InvalidRequestError
from bitswitch.tenants.limits import Permit


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


def check_count(inputs: Inputs, most: int) -> None:
    """Whether there are inputs, and not more than ``most``.

    Raises:
        InvalidRequestError: there is none.
        InputTooLongError: there are more.
    """
    if not inputs:
        raise InvalidRequestError("There is no input; send one or a list of them.", param="input")
    if len(inputs) > most:
        raise InputTooLongError(
            f"There are {len(inputs)} inputs; one request holds at most {most}.", param="input"
        )
