"""A switch ⇄ one safetensors file; `docs/format.md` is this file in words.

Knows nothing of where files are kept, nor of the base's weights. Equal switches give equal bytes, and
whatever `read` accepts `write` gives back byte for byte: everything else is refused with one sentence.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import codec, container, index, knobs, metadata, query_codes
from bitswitch_store.coded import HEAD, MAX_WEIGHTS, CodedSwitch
from bitswitch_store.index import Record
from bitswitch_store.metadata import About
from bitswitch_store.switch import Switch


def write(switch: Switch) -> bytes:
    """The file of a switch; equal switches give equal bytes.

    Raises:
        SwitchError: the switch is beyond what `read` accepts, e.g. a knob above `MAX_KNOB`.
    """
    records, streams = [], []
    for tensor in switch.tensors:
        code, stream = codec.encode(tensor.activation, tensor.shape, tensor.active)
        per_row = tensor.knobs.size > 1
        records.append(Record(tensor.name, tensor.shape, tensor.active, code, per_row, len(stream)))
        streams.append(stream)
    arrays: dict[str, NDArray[Any]] = {
        "activation": np.frombuffer(b"".join(streams), np.uint8),
        "index": np.frombuffer(index.write(records), np.uint8),
        "knobs": knobs.write(
            [tensor.knobs[tensor.knobs > 0] for tensor in switch.tensors],
            [len(tensor.shape) for tensor in switch.tensors],
        ),
        "polarity": np.concatenate([np.zeros(0, np.uint8), *(t.polarity for t in switch.tensors)]),
    }
    if switch.head:
        arrays |= {HEAD + name: array for name, array in switch.head.tensors.items()}
    if switch.queries:
        arrays["queries"] = np.frombuffer(query_codes.write(switch.queries.codes.codes), np.uint8)
        arrays["query_steps"] = switch.queries.codes.steps.reshape(-1)
    data = container.write(metadata.write(About.of(switch)), arrays)
    CodedSwitch(data).check_counts()  # what could not be read is not written
    return data


def read(source: bytes | Path, *, max_weights: int = MAX_WEIGHTS) -> Switch:
    """The switch of a file, wholly checked; see `CodedSwitch` for its parts, and for what is raised."""
    return CodedSwitch(source).decode(max_weights=max_weights)


def digest(data: bytes) -> str:
    """``sha256:`` and 64 hex digits of a file's bytes: the switch's identity everywhere."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
