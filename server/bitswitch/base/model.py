"""The resident model: rows in, hidden states out. Knows nothing of switches or of who writes weights.

``Base.forward`` belongs to one thread at a time, the engine's; ``Base.encode`` to any.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from bitswitch.base.encode import Encoder
from bitswitch.base.pooling import Pooling
from bitswitch.core import Row, Want
from bitswitch_store.switch import BaseIdentity


@dataclass(frozen=True, eq=False)
class Hidden:
    """What the backbone made of a batch.

    Attributes:
        fields: the padded inputs, int64 (rows, length) by name, ``attention_mask`` among them.
        output: the backbone's own output class: ``last_hidden_state`` (rows, length, dim),
            ``hidden_states`` (one such per layer, the embeddings first), perhaps ``pooler_output``.
    """

    fields: Mapping[str, torch.Tensor]
    output: ModelOutput

    def rows(self, start: int, stop: int) -> Hidden:
        """The rows ``start:stop``; views, nothing is copied."""
        share = {name: _slice(value, start, stop) for name, value in self.output.items()}
        return Hidden(
            fields={name: value[start:stop] for name, value in self.fields.items()},
            output=type(self.output)(**share),
        )


def _slice(
    value: torch.Tensor | tuple[torch.Tensor, ...], start: int, stop: int
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    if isinstance(value, tuple):
        return tuple(part[start:stop] for part in value)
    return value[start:stop]


@dataclass(frozen=True, eq=False)
class Base:
    """The resident base model; build one with `load`.

    Attributes:
        identity: of the checkpoint folder, whatever dtype the weights are held in.
        model: transformers' bare backbone, in eval mode, without gradients.
        parameters: the resident weights by their names in the checkpoint's files, tied ones once:
            all that a switch can touch. A parameter that the files lack is not among them.
    """

    identity: BaseIdentity
    folder: Path
    model: PreTrainedModel
    encoder: Encoder
    pooling: Pooling
    parameters: Mapping[str, torch.Tensor]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.model.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the weights held."""
        return sum(parameter.nbytes for parameter in self.model.parameters())

    def encode(self, inputs: Sequence[str | tuple[str, str]], *, want: Want) -> tuple[Row, ...]:
        """Tokenize texts or pairs of texts, cut to what the model reads; from any thread. See `Encoder`."""
        return self.encoder(inputs, want=want)

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> Hidden:
        """Run the backbone over ``rows`` as one batch, at the weights as they are; at least one row."""
        fields = {name: value.to(self.device) for name, value in self.encoder.pad(rows).items()}
        # Rows of one length need no mask, and attention without one is faster.
        alike = len({row.length for row in rows}) == 1
        used = {name: value for name, value in fields.items() if not (alike and name == "attention_mask")}
        return Hidden(fields, self.model(**used, output_hidden_states=True, return_dict=True))

    @torch.inference_mode()
    def embed(self, hidden: Hidden) -> torch.Tensor:
        """Embeddings by the folder's own pooling: float32 (rows, dim)."""
        return self.pooling(hidden.output["last_hidden_state"], hidden.fields["attention_mask"])

    def digest(self) -> Mapping[str, str]:
        """``sha256:…`` of each parameter's bytes as they are in memory now."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(self.parameters, pool.map(_sha256, self.parameters.values()), strict=True))


def _sha256(tensor: torch.Tensor) -> str:
    # bf16 has no numpy dtype: the bytes are taken in torch.
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return "sha256:" + hashlib.sha256(flat.numpy().data).hexdigest()
