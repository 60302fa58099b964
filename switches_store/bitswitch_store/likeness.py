"""Whether a fine-tune is a fine-tune of this base at all: same architecture, configuration and vocabulary.

Knows nothing of tensors; which of them belong together is `bitswitch_store.match`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bitswitch_store.checkpoint import Checkpoint, CheckpointError, first

# Keys that differ between a base and its fine-tunes without a difference to the backbone's forward pass:
# book-keeping, labels and the head's own shape, training-time settings, defaults of generation.
IGNORED = re.compile(
    r"_.*|architectures|transformers_version|torch_dtype|dtype|auto_map|name_or_path"
    r"|id2label|label2id|num_labels|problem_type|finetuning_task|task_specific_params"
    r"|classifier_.*|summary_.*|pooler_.*|decoder_bias|tie_.*|sparse_pred.*"
    r"|.*dropout.*|.*layerdrop|drop_path.*|initializer_.*|label_smoothing|gradient_checkpointing"
    r"|tokenizer_class|processor_class|use_cache|output_.*|return_dict|use_return_dict|torchscript|chunk_size_.*"
    r"|reference_compile|deterministic_flash_attn|repad_.*|attn_implementation"
    r"|(bos|eos|cls|sep|mask|unk|decoder_start|forced_bos|forced_eos)_token_id"
)


PREPROCESSING = "preprocessor_config.json"
"""What images become before a model reads them; no folder of a model of texts has it."""

# Of it, what changes the pixels; the rest names classes.
_PIXELS = re.compile(r"do_(?!convert_rgb|pad).*|image_mean|image_std|size|crop_size|resample|rescale_factor")


def require_same_kind(base: Checkpoint, finetuned: Checkpoint) -> None:
    """Refuse a fine-tune that cannot be one of ``base``, with the first differences named.

    Compared are ``model_type``, every configuration key that both have and that is not `IGNORED`, the
    preprocessing of images, and the vocabulary where both folders hold one. Truncation and padding in
    ``tokenizer.json`` are not: transformers rewrites them at save.

    Raises:
        CheckpointError: they differ.
    """
    if base.architecture != finetuned.architecture:
        raise CheckpointError(
            f"the fine-tune's architecture is {finetuned.architecture}, the base's {base.architecture}"
        )
    different = list(_differences(base.config, finetuned.config))
    if different:
        raise CheckpointError(f"the fine-tune's configuration is not the base's: {first(different)}")
    different = list(_differences(_preprocessing(base.folder), _preprocessing(finetuned.folder)))
    if different:
        raise CheckpointError(f"the fine-tune's preprocessing is not the base's: {first(different)}")
    ours, theirs = vocabulary(base.folder), vocabulary(finetuned.folder)
    if ours is None or theirs is None or ours == theirs:
        return
    tokens = [
        f"{token!r} is {theirs.get(token, 'absent')} instead of {ours.get(token, 'absent')}"
        for token in sorted(
            ours.keys() | theirs.keys(), key=lambda token: (ours.get(token, len(ours)), token)
        )
        if ours.get(token) != theirs.get(token)
    ]
    raise CheckpointError(f"the fine-tune's vocabulary is not the base's: {first(tokens)}")


def _differences(base: Mapping[str, Any], finetuned: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key in sorted(base.keys() & finetuned.keys()):
        ours, theirs = base[key], finetuned[key]
        # Causal models have no padding token until a classifier needs one.
        if IGNORED.fullmatch(key) or (key == "pad_token_id" and None in (ours, theirs)):
            continue
        if key == "pos_att_type":  # DeBERTa's older spelling is "p2c|c2p"
            ours, theirs = (v.split("|") if isinstance(v, str) else v for v in (ours, theirs))
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(ours, theirs, f"{path}{key}.")
        elif ours != theirs:
            yield f"{path}{key} is {theirs!r} instead of {ours!r}"


def _preprocessing(folder: Path) -> dict[str, Any]:
    """What of a folder's preprocessing changes pixels; a size that is one number is that of both sides."""
    path = folder / PREPROCESSING
    try:
        config = json.loads(path.read_bytes()) if path.is_file() else {}
        found = {key: value for key, value in config.items() if _PIXELS.fullmatch(key)}
    except (ValueError, AttributeError, OSError) as error:
        raise CheckpointError(f"{path} is no image processor's: {error}") from error
    for key in ("size", "crop_size"):
        if isinstance(found.get(key), int):
            found[key] = {"height": found[key], "width": found[key]}
    return found


def vocabulary(folder: Path) -> dict[str, int] | None:
    """Token ids of a folder's tokenizer, from ``tokenizer.json`` or ``vocab.txt``; None if it has neither.

    Raises:
        CheckpointError: the file is there but is no tokenizer.
    """
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            entries = json.loads(path.read_bytes())["model"]["vocab"]
            if isinstance(entries, dict):
                return entries
            # Unigram models list [token, score]; the position is the id.
            return {entry[0]: i for i, entry in enumerate(entries)}
        path = folder / "vocab.txt"
        if path.is_file():
            return {token: i for i, token in enumerate(path.read_text("utf-8").rstrip("\n").split("\n"))}
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise CheckpointError(f"{path} is not a tokenizer: {error}") from error
    return None
