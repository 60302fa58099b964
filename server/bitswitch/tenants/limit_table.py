"""The limits that tenants have of their own, in the store's database. Knows nothing of how they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Final

from sqlalchemy import delete, insert, select

from bitswitch.tenants.limits import Limits
from bitswitch_store import audit
from bitswitch_store.audit import COMMAND_LINE, Actor
from bitswitch_store.database import Database
from bitswitch_store.entry import check_name
from bitswitch_store.tables import limits as table

NAMES: Final = tuple(field.name for field in fields(Limits))
UNLIMITED: Final = -1
"""What a column holds where a tenant has no limit although others have: null is the default."""


def read(database: Database, default: Limits) -> dict[str, Limits]:
    """The limits of every tenant that has a row; where it says nothing, the default's.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    with database.reading() as connection:
        rows = connection.execute(select(table)).mappings().all()
    return {row["tenant"]: _over(default, {name: row[name] for name in NAMES}) for row in rows}


def stated(database: Database, tenant: str) -> dict[str, int | None]:
    """What a tenant's row says, by name: None is the default, `UNLIMITED` no limit."""
    with database.reading() as connection:
        row = connection.execute(select(table).filter_by(tenant=tenant)).mappings().first()
    return {name: None if row is None else row[name] for name in NAMES}


def change(
    database: Database, tenant: str, values: Mapping[str, int | None], *, by: Actor = COMMAND_LINE
) -> dict[str, int | None]:
    """Set some limits of a tenant, leave its others; what its row says then.

    Args:
        values: by name; None for the default again, `UNLIMITED` for no limit.

    Raises:
        InvalidName: of the tenant.
        ValueError: a limit is neither None, nor `UNLIMITED`, nor at least 1.
    """
    check_name(tenant, "tenant")
    for name, value in values.items():
        if name not in NAMES or (value is not None and value != UNLIMITED and value < 1):
            raise ValueError(f"{name} cannot be {value}; it is at least 1, 'unlimited' or 'default'")
    with database.writing() as connection:
        row = connection.execute(select(table).filter_by(tenant=tenant)).mappings().first()
        whole: dict[str, int | None] = {name: None if row is None else row[name] for name in NAMES}
        whole |= values
        connection.execute(delete(table).filter_by(tenant=tenant))
        if any(value is not None for value in whole.values()):
            connection.execute(insert(table).values(tenant=tenant, **whole))
        told = ", ".join(f"{name}={'default' if value is None else value}" for name, value in values.items())
        audit.record(connection, by, tenant, "limited", told)
    return whole


def _over(default: Limits, row: Mapping[str, int | None]) -> Limits:
    given = {name: None if value == UNLIMITED else value for name, value in row.items() if value is not None}
    return replace(default, **given)
