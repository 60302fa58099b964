"""From a checkpoint folder to the resident base. Knows nothing of switches; asks no model hub."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from bitswitch.base.depth import lower
from bitswitch.base.encoder import Encoder
from bitswitch.base.faults import BaseError
from bitswitch.base.features import layer
from bitswitch.base.model import Base
from bitswitch.base.pooling import Pooling
from bitswitch.base.source import STORED
from bitswitch.base.text_encoder import TextEncoder
from bitswitch.core import InputLimits
from bitswitch_store.checkpoint import Checkpoint, CheckpointError

_ASKED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1}
"""How much of the largest value rounding may change; padding that is looked at changes far more."""


def load(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    limits: InputLimits = InputLimits(),  # noqa: B008 - frozen
) -> Base:
    """Load a base.

    Args:
        folder: an ordinary Hugging Face folder: config, safetensors, and ``tokenizer.json`` or, of a vision
            transformer, ``preprocessor_config.json``.
        device: as torch names it.
        dtype: ``float32``, ``float16`` or ``bfloat16``; None for the one the file is stored in
            (float32, which holds all of them, where several are mixed).
        limits: of the inputs it will encode.

    Raises:
        BaseError: the folder is no such checkpoint, or device or dtype cannot be had.
    """
    if dtype is not None and dtype not in _ASKED:
        raise BaseError(f"dtype {dtype!r} is not known; use {', '.join(_ASKED)}")
    where = _device(device)
    with _read(folder):
        checkpoint = Checkpoint.open(folder)
        # The folder's own code is never run: only architectures that transformers knows load.
        model = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            dtype=_ASKED[dtype] if dtype else _stored(checkpoint),
        )
    pooling = Pooling.read(folder)
    model.eval().requires_grad_(False)
    model.config.use_cache = False  # a decoder's keys and values: a row is read once
    _own_memory(model)
    parameters = _parameters(checkpoint, model)
    model.to(where)
    images = model.main_input_name == "pixel_values"
    make = _image_encoder if images else partial(_text_encoder, pooling=pooling)
    base = Base(
        identity=checkpoint.identity(),
        folder=folder,
        model=model,
        encoder=make(folder, model, limits),
        pooling=pooling,
        parameters=parameters,
    )
    cut = lower(model, layer(base), base.pad(base.encoder.samples()[-1:]))
    return replace(base, lower=cut, ragged=_ignores_padding(base))


def _ignores_padding(base: Base) -> bool:
    """Whether samples of different lengths are answered in one pass as each is alone."""
    rows = base.encoder.samples()
    together: torch.Tensor = base.forward(rows).output["last_hidden_state"]
    for row, beside in zip(rows, together, strict=True):
        alone: torch.Tensor = base.forward([row]).output["last_hidden_state"][0]
        apart = (beside[: len(alone)] - alone).abs().max()
        if not apart <= _TOLERANCE[base.dtype] * alone.abs().max():
            return False
    return True


@contextmanager
def _read(folder: Path) -> Iterator[None]:
    """Errors of the library at a folder as ours, and no word of its own."""
    try:
        with quiet():
            yield
    except CheckpointError as error:
        raise BaseError(str(error)) from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise BaseError(f"{folder} does not load as a base: {error}") from error


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BaseError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _stored(checkpoint: Checkpoint) -> torch.dtype:
    dtypes = {checkpoint.dtype(name) for name in checkpoint.names}
    return STORED[dtypes.pop()] if len(dtypes) == 1 else torch.float32


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' load report and progress bars; both are as before afterwards."""
    logging: Any = transformers_logging  # in part untyped
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _own_memory(model: PreTrainedModel) -> None:
    """Copy the weights out of the file: they come as a mapping of it, and a file changes underfoot."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _parameters(checkpoint: Checkpoint, model: PreTrainedModel) -> Mapping[str, torch.Tensor]:
    """The backbone's parameters by the file's names.

    A pooler that the file lacks would have random weights: it is taken out of the model.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    stored = {**_stored_names(model, own), **own}
    prefix = model.base_model_prefix + "."
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name in checkpoint.names:
        parameter = stored.get(name, stored.get(name.removeprefix(prefix)))
        if (
            parameter is not None
            and tuple(parameter.shape) == checkpoint.shape(name)
            and id(parameter) not in seen
        ):
            found[name] = parameter
            seen.add(id(parameter))
    missing = [name for name, parameter in own.items() if id(parameter) not in seen]
    unexpected = [name for name in missing if not name.startswith("pooler.")]
    if unexpected:
        raise BaseError(
            f"{checkpoint.folder} has no weights for {', '.join(unexpected[:5])} of its own architecture"
        )
    if missing:
        model.register_module("pooler", None)
    return found


def _stored_names(model: PreTrainedModel, own: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Parameters by the names they are saved under, where a model's code has renamed its parts since."""
    try:
        from transformers.core_model_loading import revert_weight_conversion  # noqa: PLC0415 - not before 5.0
    except ImportError:
        return {}
    ids = {id(parameter) for parameter in own.values()}
    saved: Mapping[str, torch.Tensor] = revert_weight_conversion(model, dict(own))
    return {name: tensor for name, tensor in saved.items() if id(tensor) in ids}


def _image_encoder(folder: Path, model: PreTrainedModel, limits: InputLimits) -> Encoder:
    try:
        from bitswitch.base.image_encoder import ImageEncoder  # noqa: PLC0415 - Pillow is an extra
    except ImportError as error:
        raise BaseError(
            f"{folder} is a base for images, which needs Pillow: pip install 'bitswitch[vision]'"
        ) from error
    with _read(folder):
        of_images: Any = AutoImageProcessor  # untyped
        processor = of_images.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    return ImageEncoder(processor, model, limits=limits)


def _text_encoder(folder: Path, model: PreTrainedModel, limits: InputLimits, *, pooling: Pooling) -> Encoder:
    with _read(folder):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    limit = min(tokenizer.model_max_length, _positions(model))
    return TextEncoder(
        tokenizer,
        accepted=inspect.signature(model.forward).parameters.keys(),
        limit=limit,
        embed_limit=limit if pooling.max_length is None else min(pooling.max_length, _positions(model)),
        embed_lowercase=pooling.lowercase,
        limits=limits,
    )


def _positions(model: PreTrainedModel) -> int:
    """How many tokens the model has positions for.

    RoBERTa and its kin count from behind the padding id, and so lose as many rows of their table;
    torch's ``padding_idx`` on that table is what tells them apart.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    stated: int | None = getattr(model.config, "max_position_embeddings", None)
    if stated is None:
        raise BaseError(
            f"{model.config.model_type} states no max_position_embeddings: its longest input is unknown"
        )
    return stated
