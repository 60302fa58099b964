"""Prints constraints.txt: the installed versions of everything that ``bitswitch[dev]`` needs, and no more.

Run by ``make constraints`` in the project's own ``.venv``. Names and versions only: where packages come
from (an index, a CPU or a CUDA build of torch) is the installing machine's business.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def closure(root: str, extras: tuple[str, ...]) -> dict[str, str]:
    """Name → version of all installed packages that ``root[extras]`` leads to, itself left out."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(root, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found = distribution(name)
        except PackageNotFoundError:  # wanted on another platform or Python alone
            continue
        versions[name] = Version(found.version).public
        for line in found.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), e) for e in ("", *needed.extras)]
    del versions[root]
    versions.pop("triton", None)  # a CUDA build of torch asks for the one that it was built for, and no other
    return versions


if __name__ == "__main__":
    print("# Written by `make constraints`. The versions that `make test` passed with, on Python 3.11.")
    for name, version in sorted(closure("bitswitch", ("dev",)).items()):
        print(f"{name}=={version}")
