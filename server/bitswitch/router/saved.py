"""The router's codes and large fits in files, so that a server with ten thousand switches starts without
them anew.

A cache: what it holds is derived, and whatever is damaged, incomplete, or made by other code is passed
over with a line in the log. What is read back says how vectors lie, never who may see what: that is the
caller's at each request.

A folder holds data files, which are mapped into memory and never changed, and manifests, which name them
with their checksums. A manifest is renamed to its place once its data are written; data that it does not
name go then. After a power cut a checksum may fail. Several processes may share a folder: whose data went
meanwhile does without. Knows nothing of views or of when to save.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bitswitch.router import fit, index, metric, moments, votes
from bitswitch.router.fit import Fit
from bitswitch.router.index import QueryIndex
from bitswitch.router.metric import Metric
from bitswitch.router.moments import Moments
from bitswitch_store import codes
from bitswitch_store.codes import Codes

_faiss: Any = faiss
_CODES = "codes"
_BLOCK = 2**20

_log = logging.getLogger(__name__)


class _StaleError(Exception):
    """A manifest or what it names cannot be used; the message says why."""


class Saved:
    """See the module.

    Args:
        folder: made when something is written.
        recipe: of the features; what was saved of another is passed over.
        quantile: of the thresholds; likewise.
    """

    def __init__(self, folder: Path, *, recipe: str, quantile: float) -> None:
        self._folder = folder
        made_by = (codes, fit, index, metric, moments, votes)
        source = b"".join(Path(str(module.__file__)).read_bytes() for module in made_by)
        versions = f"{recipe}|{quantile}|faiss {faiss.__version__}|numpy {np.__version__}|"
        self._key = hashlib.sha256(versions.encode() + source).hexdigest()

    def write_codes(self, sets: Mapping[str, Codes]) -> None:
        """Keep the codes of these switches, and no others.

        Raises:
            OSError: the folder cannot be written.
        """
        digests = sorted(sets)
        files: dict[str, Callable[[Path], None]] = {
            "codes.npy": lambda path: _stack(path, [sets[digest].codes for digest in digests]),
            "steps.npy": lambda path: _stack(path, [sets[digest].steps for digest in digests]),
        }
        self._write(_CODES, files, digests=digests, sizes=[len(sets[digest]) for digest in digests])

    def codes(self) -> dict[str, Codes]:
        """By digest, the codes that were kept, in mapped memory; none if there are none that can be used."""
        try:
            about, files = self._read(_CODES)
            values, steps = (np.load(files[name], mmap_mode="r") for name in ("codes.npy", "steps.npy"))
            ends = np.cumsum([0, *about["sizes"]]).tolist()
            if not len(values) == len(steps) == ends[-1] or values.dtype != np.int8:
                raise _StaleError("sizes disagree")
            values, steps = np.asarray(values), np.asarray(steps)
            return {
                digest: Codes(values[start:end], steps[start:end])
                for digest, (start, end) in zip(about["digests"], pairwise(ends), strict=True)
            }
        except FileNotFoundError:
            return {}
        except (_StaleError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s: saved codes are passed over, all are read anew: %s", self._folder, error)
            return {}

    def write_fit(self, caller: str, one: Fit) -> None:
        """Keep the fit of what a caller sees, in place of an earlier one.

        Raises:
            OSError: the folder cannot be written.
        """
        arrays = {name: getattr(one.moments, name) for name in ("total", "outer", "scatter")}
        arrays |= {name: getattr(one.metric, name) for name in ("axes", "gains", "origin")}
        files: dict[str, Callable[[Path], None]] = {
            "sums.npz": lambda path: _save(path, arrays),
            "index.faiss": lambda path: _faiss.write_index(one.index.vectors, str(path)),
        }
        self._write(
            _name(caller),
            files,
            caller=caller,
            digests=one.index.digests,
            sizes=one.index.sizes,
            probes=one.index.probes,
            vote_axes=one.vote_axes,
            quantile=one.quantile,
            tasks=one.moments.tasks,
            vectors=one.moments.vectors,
            freedom=one.metric.freedom,
        )

    def fits(self, sets: Mapping[str, Codes]) -> Iterator[tuple[str, Fit]]:
        """Callers and the fits kept for them, as far as these are of switches in ``sets`` alone."""
        for path in sorted(self._folder.glob("fit-*.json")):
            try:
                about, files = self._read(path.stem)
                yield about["caller"], _fit(about, files, sets)
            except (_StaleError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                _log.warning("%s: a saved fit is passed over, it is made anew: %s", path, error)

    def _write(self, name: str, files: Mapping[str, Callable[[Path], None]], **about: object) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = f"{name}-{secrets.token_hex(8)}"
        named: dict[str, tuple[str, int]] = {}
        for part, write in files.items():
            path = self._folder / f"{fresh}.{part}"
            write(path)
            named[part] = (path.name, _checksum(path))
        manifest = self._folder / f"{fresh}.new"
        manifest.write_text(json.dumps({"key": self._key, "files": named, **about}), encoding="utf-8")
        manifest.replace(self._folder / f"{name}.json")
        kept = {file for file, _ in named.values()}
        for path in self._folder.glob(f"{name}-*"):  # of earlier ones, and of who was killed
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _read(self, name: str) -> tuple[dict[str, Any], dict[str, Path]]:
        """A manifest, and its files by part, checked."""
        about = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        if about["key"] != self._key:
            raise _StaleError("other code or other features made it")
        files = {}
        for part, (file, checksum) in about["files"].items():
            path = files[part] = self._folder / Path(file).name
            if _checksum(path) != checksum:
                raise _StaleError(f"{path.name} was damaged")
        return about, files


def _name(caller: str) -> str:
    return f"fit-{hashlib.sha256(caller.encode()).hexdigest()[:24]}"


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _stack(path: Path, parts: list[NDArray[Any]]) -> None:
    """One array of all parts, without a copy of it in memory."""
    shape = (sum(map(len, parts)), parts[0].shape[1])
    with path.open("wb") as file:
        header = {"descr": parts[0].dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _fit(about: Mapping[str, Any], files: Mapping[str, Path], sets: Mapping[str, Codes]) -> Fit:
    digests, sizes = about["digests"], about["sizes"]
    for digest, size in zip(digests, sizes, strict=True):
        if digest not in sets or len(sets[digest]) != size:
            raise _StaleError(f"{digest} is not here any more")
    with np.load(files["sums.npz"]) as arrays:
        sums = Moments(about["tasks"], about["vectors"], *(arrays[n] for n in ("total", "outer", "scatter")))
        axes, gains, origin = (arrays[name] for name in ("axes", "gains", "origin"))
    fitted = Metric(axes, gains, origin, tasks=sums.tasks, freedom=about["freedom"])
    vectors = _faiss.read_index(str(files["index.faiss"]), _faiss.IO_FLAG_MMAP_IFC)
    if (vectors.ntotal, vectors.d) != (sum(sizes), about["vote_axes"]):
        raise _StaleError("the index has other vectors than its manifest")
    found = QueryIndex(digests, sizes, vectors, about["probes"])
    fitted_on = {digest: sets[digest] for digest in digests}
    return Fit(fitted_on, sums, fitted, found, about["vote_axes"], about["quantile"])
