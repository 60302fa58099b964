"""The one error of starting: a folder that cannot be the base. Knows nothing of requests."""

from __future__ import annotations


class BaseError(ValueError):
    """The base folder, or what was asked of it at the start, will not do; one sentence says why."""
