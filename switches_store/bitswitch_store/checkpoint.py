"""A Hugging Face checkpoint folder, read lazily from its safetensors files.

Knows nothing of switches, of what the weights are for, or of torch: bytes, float32 arrays and a digest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from bitswitch_store.switch import BaseIdentity

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = {"F32": 4, "F16": 2, "BF16": 2}
# Position ids and masks: no fine-tune moves them.
_BUFFERS = frozenset({"BOOL", "U8", "I16", "U16", "I32", "U32", "I64", "U64"})
_LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class CheckpointError(ValueError):
    """A folder that is no readable checkpoint, or two that do not belong together; one sentence says why."""


@dataclass(frozen=True)
class Stored:
    """Where one tensor's bytes are: ``[start, stop)`` of a mapped file."""

    file: NDArray[np.uint8]
    start: int
    stop: int
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> NDArray[np.float32]:
        """A fresh float32 copy in the tensor's shape; F16 and BF16 are widened exactly. Others are none."""
        data = self.file[self.start : self.stop]
        if self.dtype == "BF16":
            values = (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            values = data.view("<f4" if self.dtype == "F32" else "<f2").astype(np.float32)
        return values.reshape(self.shape)


class Checkpoint:
    """The floating tensors of a checkpoint folder, by name. Build one with `Checkpoint.open`.

    Nothing is read before it is asked for: the files are mapped into memory. Integer buffers such as
    ``position_ids`` are no parameters and are left out.

    Attributes:
        folder: the folder it was opened from.
        config: ``config.json``.
        architecture: ``model_type`` of the configuration.
        names: sorted; the legacy endings ``LayerNorm.gamma`` and ``LayerNorm.beta`` are renamed to
            ``LayerNorm.weight`` and ``LayerNorm.bias``, as transformers does when it loads them.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Stored]) -> None:
        self.folder = folder
        self.config = MappingProxyType(dict(config))
        self.architecture: str = config["model_type"]
        self.names = tuple(sorted(tensors))
        self._tensors = dict(tensors)
        self._identity: BaseIdentity | None = None

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Open a folder with ``config.json`` and ``model.safetensors``, whole or in shards with an index.

        Raises:
            CheckpointError: the folder is not one, a shard or a tensor is missing, a file is damaged,
                or the weights are stored in a type other than F32, F16 and BF16.
        """
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is not a folder; a Hugging Face checkpoint folder is read")
        config = json_object(folder / "config.json")
        if not isinstance(config.get("model_type"), str) or not config["model_type"]:
            raise CheckpointError(f"{folder / 'config.json'} has no model_type; transformers writes one")
        if config.get("quantization_config"):
            raise CheckpointError(f"{folder} is quantised; the weights must be stored in F32, F16 or BF16")
        tensors: dict[str, Stored] = {}
        for path in _files(folder):
            for stored_name, stored in tensors_in(path).items():
                name = _renamed(stored_name)
                if name in tensors:
                    raise CheckpointError(f"{folder} holds the tensor {name} twice")
                tensors[name] = stored
        parameters = {name: stored for name, stored in tensors.items() if _is_parameter(folder, name, stored)}
        if not parameters:
            raise CheckpointError(f"{folder} holds no floating tensor")
        return cls(folder, config, parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape; () for a scalar."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        """How the tensor is stored: ``F32``, ``F16`` or ``BF16``."""
        return self._tensors[name].dtype

    def numel(self, name: str) -> int:
        """How many weights the tensor has."""
        return math.prod(self.shape(name))

    def raw(self, name: str) -> memoryview:
        """The tensor's stored bytes: little-endian, row-major, read-only."""
        stored = self._tensors[name]
        return stored.file[stored.start : stored.stop].data

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A fresh float32 copy in the tensor's shape; F16 and BF16 are widened exactly."""
        return self._tensors[name].read()

    def identity(self) -> BaseIdentity:
        """Which base this is: its architecture and a digest over all its floating tensors.

        The digest is the SHA-256 of one line per tensor, sorted by the name's UTF-8 bytes::

            name TAB dtype TAB shape TAB hex LF

        ``name`` as in `names`, ``dtype`` ``F32``, ``F16`` or ``BF16``, ``shape`` decimal sizes joined by
        commas (empty for a scalar), ``hex`` the lower-case SHA-256 of the tensor's stored bytes. Which
        shard a tensor lies in, integer buffers and the configuration do not enter.
        """
        if self._identity is None:
            names = sorted(self.names, key=lambda name: name.encode())
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                digests = pool.map(lambda name: hashlib.sha256(self.raw(name)).hexdigest(), names)
                whole = hashlib.sha256()
                for name, digest in zip(names, digests, strict=True):
                    shape = ",".join(map(str, self.shape(name)))
                    whole.update(f"{name}\t{self.dtype(name)}\t{shape}\t{digest}\n".encode())
            self._identity = BaseIdentity(self.architecture, f"sha256:{whole.hexdigest()}")
        return self._identity


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; a checkpoint folder has it") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, each there and together holding all that the index names."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        if pickled:
            raise CheckpointError(
                f"{folder} holds {pickled[0]}, a pickle, which can run code when it is read;"
                " save the model again with save_pretrained to get model.safetensors"
            )
        raise CheckpointError(f"{folder} has no {SINGLE} and no {INDEX}")
    weights = json_object(folder / INDEX).get("weight_map")
    if not isinstance(weights, dict) or not weights or not all(map(_is_file_name, weights.values())):
        raise CheckpointError(f"{folder / INDEX} has no weight_map of tensor names to shard file names")
    shards = sorted(set(weights.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names")
    held = {shard: tensors_in(folder / shard).keys() for shard in shards}
    lost = sorted(name for name, shard in weights.items() if name not in held[shard])
    if lost:
        raise CheckpointError(f"the shards in {folder} lack {first(lost)}, which {INDEX} names")
    return [folder / shard for shard in shards]


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value.endswith(".safetensors") and Path(value).name == value


def tensors_in(path: Path) -> dict[str, Stored]:
    """Where each tensor of one file lies. The library checks the header; the bytes are then mapped."""
    try:
        with safe_open(str(path), framework="np"):
            file = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    start = 8 + int.from_bytes(file[:8].tobytes(), "little")
    header = json.loads(file[8:start].tobytes())
    header.pop("__metadata__", None)
    result = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        result[name] = Stored(file, start + begin, start + end, entry["dtype"], tuple(entry["shape"]))
    return result


def _renamed(name: str) -> str:
    for old, new in _LEGACY.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _is_parameter(folder: Path, name: str, stored: Stored) -> bool:
    """Whether a tensor is a parameter; integer buffers are none."""
    if not name.isprintable():
        raise CheckpointError(f"{folder} holds a tensor whose name {name!r} is not printable")
    if stored.dtype in FLOATS:
        return stored.start < stored.stop
    if stored.dtype in _BUFFERS and not name.endswith("weight"):
        return False
    raise CheckpointError(
        f"{folder}: {name} is stored as {stored.dtype}; weights are read in F32, F16 or BF16"
    )


def first(items: list[str], limit: int = 5) -> str:
    """The first few of many, and how many more there are."""
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown
