"""A process that publishes and deletes until it is killed, and says each thing when it is done.

Arguments: the store's root, a folder of switch files.
"""

from __future__ import annotations

import sys
from itertools import cycle
from pathlib import Path

from bitswitch_store.store import Store


def main(root: Path, files: Path) -> None:
    store = Store(root, base=None)
    print("open", flush=True)
    for turn, path in enumerate(cycle(sorted(files.iterdir()))):
        entry = store.put(path, tenant="acme", name="a")
        print("put", entry.version, entry.digest, flush=True)
        if turn % 3 == 2:
            oldest = store.list("acme")[0]
            store.delete("acme", "a", oldest.version)
            print("delete", oldest.version, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
