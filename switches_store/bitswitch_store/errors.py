"""What the store refuses, and why. A file that is no switch is a `SwitchError`, not one of these.

Knows nothing of HTTP: whoever answers a caller gives these their status.
"""

from __future__ import annotations


class StoreError(Exception):
    """Something the store will not or cannot do; the message says what was wrong and what would be right."""


class NotStored(StoreError):  # noqa: N818 - reads as what it says at every `except`
    """There is no such switch, version, alias or blob."""


class Conflict(StoreError):  # noqa: N818
    """It cannot be done as things stand: something else still points there."""


class InvalidName(StoreError):  # noqa: N818
    """A name, alias or tenant that the rule for names does not allow."""


class TooLarge(StoreError):  # noqa: N818
    """A file larger than may be stored."""


class QuotaExceeded(StoreError):  # noqa: N818
    """The tenant has as much as it may have; the message names the limit."""


class CorruptBlob(StoreError):  # noqa: N818
    """The stored bytes are no longer the bytes that were put."""


class StoreUnavailable(StoreError):  # noqa: N818
    """The database or the place of the blobs does not answer now; later it may."""
