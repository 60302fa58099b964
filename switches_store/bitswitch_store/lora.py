"""A LoRA as PEFT saves it: what its two small matrices add to each layer, read with safetensors alone.

Knows the file's names and the arithmetic (Hu et al. 2021; Kalajdzievski 2023 for the rank-stabilised scale).
Knows nothing of the base, and neither imports PEFT nor opens a pickle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch_store.checkpoint import FLOATS, CheckpointError, Stored, first, json_object, tensors_in

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.weight)?")
# With bias="all" the layer that modules_to_save has replaced comes along; nothing runs it.
_REPLACED = ".original_module."
# What PEFT puts between a wrapped layer and its own tensors.
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save)(?=\.)")

# Keys under which PEFT has LoRA add something else than scale·B·A, or to something else than a weight.
_MORE = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "trainable_token_indices"),
    *("target_parameters", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config"),
    "velora_config",
)
# Initialisations that leave the base's weights as they are. The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA)
# train beside a base that they have changed: what they save is no difference to ours.
_INITIAL = (True, False, "gaussian", "eva", "orthogonal")
# Tasks whose head is none that can be served.
_OTHER_HEADS = ("TOKEN_CLS", "QUESTION_ANS", "CAUSAL_LM", "SEQ_2_SEQ_LM")


@dataclass(frozen=True)
class Product:
    """What one layer gains: ``scale · B·A``.

    Attributes:
        name: of the weight, as in the model it was trained in.
        a: (r, inputs), or (r, inputs, …) of a convolution.
        b: (outputs, r), or (outputs, r, 1, …).
        scale: α/r, or α/√r.
        transposed: whether the weight is stored (inputs, outputs): embeddings, GPT-2's Conv1D.
    """

    name: str
    a: Stored
    b: Stored
    scale: float
    transposed: bool

    def read(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The product in float32, in a weight's shape.

        Raises:
            CheckpointError: a weight of this shape is not of the layer that was trained, or the product is
                not finite.
        """
        a, b = (factor.read().reshape(factor.shape[0], -1) for factor in (self.a, self.b))
        own = (b.shape[0], *self.a.shape[1:])
        if self.transposed:
            own = own[::-1]
        if own != shape:
            raise CheckpointError(
                f"the LoRA is of another base: its {self.name} is {list(own)}, the base's {list(shape)}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            product = np.float32(self.scale) * (b @ a)
        if not np.isfinite(product).all():
            raise CheckpointError(f"what the LoRA adds to {self.name} is not finite in float32")
        return product.T if self.transposed else product.reshape(shape)


@dataclass(frozen=True)
class Lora:
    """A LoRA's folder. Build one with `Lora.open`.

    Attributes:
        folder: the folder it was opened from.
        products: by the weight's name in the model that was trained, without PEFT's prefix.
        dense: tensors kept whole (``modules_to_save``, biases), named likewise.
        task: PEFT's ``task_type``, or "".
    """

    folder: Path
    products: Mapping[str, Product]
    dense: Mapping[str, Stored]
    task: str

    @classmethod
    def open(cls, folder: Path) -> Lora:
        """Open a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.

        Raises:
            CheckpointError: it is none, it is not plain LoRA, or a tensor does not belong to one.
        """
        config = _config(folder)
        factors: dict[str, dict[str, Stored]] = {}
        embeddings: set[str] = set()
        dense: dict[str, Stored] = {}
        for stored_name, stored in tensors_in(folder / WEIGHTS).items():
            if stored.dtype not in FLOATS:
                raise CheckpointError(
                    f"{folder}: {stored_name} is stored as {stored.dtype}; F32, F16 and BF16 are read"
                )
            name = stored_name.removeprefix(_PREFIX)
            found = _FACTOR.fullmatch(name)
            if found is not None:
                layer = _WRAPPED.sub("", found[1])
                factors.setdefault(layer, {})[found[3]] = stored
                embeddings.update([layer] if found[2] else [])
            elif ".lora_" in name:
                raise CheckpointError(
                    f"{folder}: {stored_name} is no part of plain LoRA, which has lora_A and lora_B alone"
                )
            elif _REPLACED not in name:
                dense[_WRAPPED.sub("", name)] = stored
        lone = sorted(layer for layer, pair in factors.items() if set(pair) != {"A", "B"})
        if lone:
            raise CheckpointError(f"{folder} lacks lora_A or lora_B of {first(lone)}")
        if not factors and not dense:
            raise CheckpointError(f"{folder / WEIGHTS} holds no tensor")
        products = {
            f"{layer}.weight": _product(folder, config, layer, pair, embedding=layer in embeddings)
            for layer, pair in factors.items()
        }
        return cls(folder, products, dense, str(config.get("task_type") or ""))

    @property
    def names(self) -> tuple[str, ...]:
        """Every weight that it changes or brings, sorted."""
        return tuple(sorted(self.products.keys() | self.dense.keys()))

    def require_servable(self, head: list[str]) -> None:
        """Refuse a head of another task than classification, told by the names of its tensors."""
        if head and self.task in _OTHER_HEADS:
            raise CheckpointError(
                f"the LoRA was trained for {self.task} and brings a head: {first(head)};"
                " heads of sequence classification (SEQ_CLS) are read"
            )


def _config(folder: Path) -> dict[str, Any]:
    """``adapter_config.json`` of plain LoRA, with its weights beside it."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; one that PEFT's save_pretrained wrote is read")
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder} has no {CONFIG}"
            + (
                ": it is a full checkpoint; give it as a fine-tune"
                if (folder / "config.json").is_file()
                else "; a folder that PEFT's save_pretrained wrote is read"
            )
        )
    config = json_object(folder / CONFIG)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{folder} is of PEFT's type {kind!r}; plain LoRA ('LORA') is read. Merge it into the base with"
            " PEFT's merge_and_unload and give the result as a fine-tune, if its type can be merged"
        )
    more = [key for key in _MORE if config.get(key)]
    if more:
        raise CheckpointError(
            f"{folder} is not plain LoRA: its {CONFIG} sets {first(more)}."
            " Merge it into the base with PEFT's merge_and_unload and give the result as a fine-tune"
        )
    initial = config.get("init_lora_weights", True)
    if initial not in _INITIAL:
        raise CheckpointError(
            f"{folder} was trained beside a changed base (init_lora_weights {initial!r}); save it with"
            " path_initial_model_for_weight_conversion, which makes it a LoRA of the base itself"
        )
    if not (folder / WEIGHTS).is_file():
        if (folder / _PICKLE).is_file():
            raise CheckpointError(
                f"{folder} holds {_PICKLE}, a pickle, which can run code when it is read;"
                " save it again with save_pretrained(…, safe_serialization=True)"
            )
        raise CheckpointError(f"{folder} has no {WEIGHTS}")
    return config


def _product(
    folder: Path, config: Mapping[str, Any], layer: str, pair: Mapping[str, Stored], *, embedding: bool
) -> Product:
    a, b = pair["A"], pair["B"]
    if len(a.shape) < 2 or len(b.shape) != len(a.shape) or math.prod(b.shape) != b.shape[0] * a.shape[0]:
        raise CheckpointError(
            f"{folder}: lora_A of {layer} is {list(a.shape)} and lora_B {list(b.shape)}; they do not multiply"
        )
    rank = _of_layer(folder, config, "r", layer)
    if rank != a.shape[0]:
        raise CheckpointError(f"{folder}: lora_A of {layer} has rank {a.shape[0]}; {CONFIG} says {rank:g}")
    alpha = _of_layer(folder, config, "lora_alpha", layer)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Product(f"{layer}.weight", a, b, scale, embedding or bool(config.get("fan_in_fan_out")))


def _of_layer(folder: Path, config: Mapping[str, Any], key: str, layer: str) -> float:
    """``r`` or ``lora_alpha`` of a layer: by the first pattern that its name ends with, as PEFT has it."""
    patterns = config.get({"r": "rank_pattern", "lora_alpha": "alpha_pattern"}[key]) or {}
    value = config.get(key, 8)
    try:
        value = next((v for p, v in patterns.items() if re.match(rf"(.*\.)?({p})$", layer)), value)
    except (AttributeError, re.error) as error:
        raise CheckpointError(f"{folder / CONFIG}: a pattern for {key} is none: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(f"{folder / CONFIG}: {key} of {layer} is {value!r}, no number above 0")
    return float(value)
