"""A switch file that was checked whole, on its way into the store. Knows no name that it is put under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitswitch_store.switch import Switch
from bitswitch_store.upload import Upload


@dataclass(frozen=True, eq=False)
class Checked:
    """A switch file that may be put, wholly checked; `Store.read` makes it.

    Attributes:
        source: the file's bytes, or an upload that holds them.
        digest, size: theirs.
    """

    source: bytes | Upload
    digest: str
    size: int
    switch: Switch

    def facts(self) -> dict[str, Any]:
        """What the catalog keeps of it, whatever its name: columns of `tables.switches`."""
        return {
            "digest": self.digest,
            "size": self.size,
            "task": self.switch.task,
            "labels": self.switch.head.labels if self.switch.head else (),
            "metric": self.switch.metric,
            "base_digest": self.switch.base.digest,
        }
