"""Whose turn it is: whose last one is the longest ago goes first. Knows nothing of what a turn is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

REMEMBERED = 1024
"""Tenants whose last turn is known; to have had none for so long is as good as never."""


class Turns:
    """Who had a turn, and in which order. Not thread-safe."""

    def __init__(self) -> None:
        self._had: OrderedDict[str, None] = OrderedDict()  # the latest turn last

    def order(self, tenants: Collection[str]) -> list[str]:
        """These tenants, the next one first. Who had no turn yet comes before all who had, as they came."""
        had = [tenant for tenant in self._had if tenant in tenants]
        return [*(tenant for tenant in tenants if tenant not in self._had), *had]

    def over(self, tenant: str) -> None:
        """This tenant has had its turn."""
        self._had[tenant] = None
        self._had.move_to_end(tenant)
        if len(self._had) > REMEMBERED:
            self._had.popitem(last=False)
