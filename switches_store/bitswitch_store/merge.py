"""A base and a LoRA of it → the full fine-tune that they are together, as a checkpoint folder.

What follows need not know that it ever was a LoRA. Knows nothing of switches.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitswitch_store import container
from bitswitch_store.checkpoint import SINGLE, Checkpoint, CheckpointError, first, json_object
from bitswitch_store.lora import Lora
from bitswitch_store.match import backbone_prefix, prefixes

# The layers whose outputs are the answers, of those that transformers' classifiers have.
_LAST = ("classifier.out_proj", "classifier", "score")
_VOCABULARIES = ("tokenizer.json", "vocab.txt")


def merge(base: Checkpoint, lora: Lora, folder: Path, labels: Sequence[str] | None = None) -> Checkpoint:
    """Write the fine-tune in float32, one tensor after the other, and open it.

    Args:
        base: the base.
        lora: a LoRA of it.
        folder: an empty folder to write ``config.json`` and ``model.safetensors`` into.
        labels: of the head, by output; None takes them from a ``config.json`` beside the LoRA, and without
            one they are LABEL_0, LABEL_1 and so on, as transformers has it.

    Raises:
        CheckpointError: the LoRA is of another base, its head is none that is served, or the labels are
            not as many as the head's outputs.
    """
    ours, theirs = prefixes(base.names, lora.names)
    wanted = {
        theirs + name.removeprefix(ours) if name.startswith(ours) else name: name for name in base.names
    }
    head = sorted(lora.dense.keys() - wanted.keys())
    if head:
        # A classifier has nothing of what the base holds outside its backbone (a language-model head).
        backbone = backbone_prefix(base.names)
        wanted = {name: own for name, own in wanted.items() if own.startswith(backbone)}
        head = sorted(lora.dense.keys() - wanted.keys())
    lora.require_servable(head)
    _require_same_layers(base, lora, wanted)
    shapes = {name: base.shape(own) for name, own in wanted.items()}
    shapes |= {name: lora.dense[name].shape for name in head}

    def value(name: str) -> NDArray[np.float32]:
        whole = lora.dense[name].read() if name in lora.dense else base.tensor(wanted[name])
        product = lora.products.get(name)
        return whole if product is None else whole + product.read(whole.shape)

    config = dict(base.config)
    if head:
        # Which class it is follows from there being a head; its name is transformers' to know.
        config.pop("architectures", None)
        config |= _labelled(lora, head, labels)
    elif labels is not None:
        raise CheckpointError(f"labels are given, but {lora.folder} brings no head that they could name")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for vocabulary in _VOCABULARIES:  # it is compared with the base's
        if (lora.folder / vocabulary).is_file():
            shutil.copyfile(lora.folder / vocabulary, folder / vocabulary)
    with (folder / SINGLE).open("wb") as file:
        arrays = {name: ("F32", shape) for name, shape in shapes.items()}
        file.write(container.header({"format": "pt"}, arrays))
        for name in sorted(arrays):
            file.write(value(name).tobytes())
    return Checkpoint.open(folder)


def _require_same_layers(base: Checkpoint, lora: Lora, wanted: Mapping[str, str]) -> None:
    foreign = sorted(lora.products.keys() - wanted.keys())
    if foreign:
        raise CheckpointError(
            f"the LoRA changes {len(foreign)} of its {len(lora.products)} weights where the base has none:"
            f" {first(foreign)}. It is of another base, or of layers that are new with the task, which"
            " PEFT saves if modules_to_save names them"
        )
    wrong = [
        f"{name} is {list(stored.shape)} instead of {list(base.shape(wanted[name]))}"
        for name, stored in sorted(lora.dense.items())
        if name in wanted and stored.shape != base.shape(wanted[name])
    ]
    if wrong:
        raise CheckpointError(f"the LoRA's tensors have other shapes than the base's: {first(wrong)}")


def _labelled(lora: Lora, head: Sequence[str], labels: Sequence[str] | None) -> dict[str, Any]:
    """The configuration's entries about the head."""
    beside = lora.folder / "config.json"
    stated = json_object(beside) if beside.is_file() else {}
    told = {"problem_type": stated["problem_type"]} if stated.get("problem_type") else {}
    last = next((f"{layer}.weight" for layer in _LAST if f"{layer}.weight" in head), None)
    outputs = None if last is None else lora.dense[last].shape[0]
    if labels is None:
        named = stated.get("id2label")
        if isinstance(named, dict) and (outputs is None or len(named) == outputs):
            return {**told, "id2label": named}
        if outputs is None:
            raise CheckpointError(
                f"the LoRA's head is {first(list(head))}, of which none says how many labels it has;"
                " give the labels"
            )
        labels = [f"LABEL_{i}" for i in range(outputs)]
    elif outputs is not None and len(labels) != outputs:
        raise CheckpointError(f"{len(labels)} labels are given; the LoRA's head has {outputs} outputs")
    return {**told, "id2label": {str(i): label for i, label in enumerate(labels)}}
