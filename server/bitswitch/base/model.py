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

from bitswitch.base.encoder import Encoder
from bitswitch.base.pooling import Pooling
from bitswitch.core import Inputs, Row, Want
from bitswitch_store.switch import BaseIdentity


@dataclass(frozen=True, eq=False)
class Hidden:
    """What the backbone made of a batch.

    Attributes:
        fields: the padded inputs by name: of texts int64 (rows, length), ``attention_mask`` among them; of
            images ``pixel_values``.
        output: the backbone's own output class: ``last_hidden_state`` (rows, length, dim),
            ``hidden_states`` (one such per layer, the embeddings first; not of a lower pass), perhaps
            ``pooler_output``.
    """

    fields: Mapping[str, torch.Tensor]
    output: ModelOutput

    @property
    def mask(self) -> torch.Tensor:
        """(rows, length), 1 for a token and 0 for padding, which images have none of."""
        own = self.fields.get("attention_mask")
        if own is not None:
            return own
        state: torch.Tensor = self.output["last_hidden_state"]
        return torch.ones(state.shape[:2], dtype=torch.int64, device=state.device)

    def layer(self, number: int) -> torch.Tensor:
        """The hidden state after one of the layers, (rows, length, dim); 0 is the embeddings'."""
        states = self.output.get("hidden_states")
        # Without all of them, a lower pass ended here.
        state: torch.Tensor = self.output["last_hidden_state"] if states is None else states[number]
        return state

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
        lower: the layers that features are read from and those below, as a model; None where that is
            not to be had.
        ragged: whether rows of different lengths may share a pass, as padding changes nothing. It does in
            FNet, MobileBERT, ConvBERT and others, which look at it somewhere.
    """

    identity: BaseIdentity
    folder: Path
    model: PreTrainedModel
    encoder: Encoder
    pooling: Pooling
    parameters: Mapping[str, torch.Tensor]
    lower: PreTrainedModel | None = None
    ragged: bool = True

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

    def encode(self, inputs: Inputs, *, want: Want) -> tuple[Row, ...]:
        """Texts, pairs of texts or images as the model reads them; from any thread. See `Encoder`."""
        return self.encoder(inputs, want=want)

    def pad(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """One batch of rows where the weights are; see `Encoder.pad`."""
        return {name: value.to(self.device) for name, value in self.encoder.pad(rows).items()}

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> Hidden:
        """Run the backbone over ``rows`` as one batch, at the weights as they are; at least one row."""
        fields = self.pad(rows)
        return Hidden(
            fields, self.model(**_needed(fields, rows), output_hidden_states=True, return_dict=True)
        )

    @torch.inference_mode()
    def forward_lower(self, rows: Sequence[Row]) -> Hidden:
        """`forward` as far as features need it: half of the time, where the model can be cut."""
        if self.lower is None:
            return self.forward(rows)
        fields = self.pad(rows)
        return Hidden(fields, self.lower(**_needed(fields, rows), return_dict=True))

    def wait(self) -> None:
        """Until the device has done what it was given; on the CPU a pass that has returned is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.inference_mode()
    def embed(self, hidden: Hidden) -> torch.Tensor:
        """Embeddings by the folder's own pooling: float32 (rows, dim)."""
        return self.pooling(hidden.output["last_hidden_state"], hidden.mask)

    def digest(self) -> Mapping[str, str]:
        """``sha256:…`` of each parameter's bytes as they are in memory now."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(self.parameters, pool.map(_sha256, self.parameters.values()), strict=True))


def _needed(fields: Mapping[str, torch.Tensor], rows: Sequence[Row]) -> Mapping[str, torch.Tensor]:
    """Without the mask where all rows are of one length: attention is faster then."""
    if len({row.length for row in rows}) > 1:
        return fields
    return {name: value for name, value in fields.items() if name != "attention_mask"}


def _sha256(tensor: torch.Tensor) -> str:
    # bf16 has no numpy dtype: the bytes are taken in torch.
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return "sha256:" + hashlib.sha256(flat.numpy().data).hexdigest()
