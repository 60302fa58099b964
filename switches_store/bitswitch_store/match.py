"""Which tensor of a fine-tune belongs to which tensor of its base, and which are the task's head.

Knows nothing of the rules that turn their difference into a switch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bitswitch_store.checkpoint import Checkpoint, CheckpointError, first
from bitswitch_store.likeness import require_same_kind
from bitswitch_store.switch import Head

# The classes whose heads are served, and the names by which an embedding is told.
_CLASSIFIER = re.compile(r".*For(Sequence|Image|Audio|Video)Classification")
_EMBEDDING = re.compile(r"embed|^wte$|^wpe$|^shared$")
# Float buffers that older transformers saved among the weights and newer ones do not.
_BUFFER = re.compile(r"\.(rotary_emb\.inv_freq|masked_bias|attn\.bias|attention\.bias)$")
_LABEL_MAPS = ("id2label", "label2id")


@dataclass(frozen=True)
class Match:
    """How the tensors of a fine-tune relate to those of its base.

    Attributes:
        tensors: (name in the base, name in the fine-tune), sorted.
        head: names in the fine-tune that the base's backbone has no tensor for, sorted.
    """

    tensors: tuple[tuple[str, str], ...]
    head: tuple[str, ...]


def match(base: Checkpoint, finetuned: Checkpoint) -> Match:
    """Pair the tensors by name, with or without one leading part on either side (``bert.``, ``model.``).

    A base tensor without a partner is left as it is if the fine-tune lacks the whole part it belongs to
    (``pooler``, ``cls``, ``lm_head``). If the fine-tune is a classifier, what the base holds outside its
    backbone (a language-model head) is not paired: the fine-tune's tensors of such names are its head.

    Raises:
        CheckpointError: the fine-tune is none of this base; the first differences are named.
    """
    require_same_kind(base, finetuned)
    theirs = set(finetuned.names)
    ours_prefix, theirs_prefix = prefixes(base.names, finetuned.names)
    backbone = backbone_prefix(base.names) if _is_classifier(finetuned) else ""
    partner: dict[str, str] = {}
    missing: list[str] = []
    for name in base.names:
        if not name.startswith(backbone):
            continue
        wanted = theirs_prefix + name.removeprefix(ours_prefix) if name.startswith(ours_prefix) else name
        if name.startswith(ours_prefix) and wanted in theirs:
            partner[name] = wanted
        else:
            missing.append(name)
    _require_whole(base, partner, missing)
    wrong = [
        f"{name} is {list(finetuned.shape(other))} instead of {list(base.shape(name))}"
        for name, other in partner.items()
        if finetuned.shape(other) != base.shape(name)
    ]
    if wrong:
        raise CheckpointError(f"the fine-tune's tensors have other shapes than the base's: {first(wrong)}")
    head = tuple(sorted(theirs - set(partner.values())))
    if head and not _is_classifier(finetuned):
        raise CheckpointError(
            f"the fine-tune is a {_class(finetuned)} with tensors that the base lacks: {first(list(head))};"
            " heads of sequence and image classification models are read"
        )
    return Match(tuple(sorted(partner.items())), head)


def head_of(
    finetuned: Checkpoint, names: Iterable[str], labels: tuple[str, ...] | None = None
) -> Head | None:
    """The fine-tune's tensors ``names``, dense, with its configuration and labels; None without names.

    Args:
        finetuned: the fine-tune.
        names: its tensors; F16 stays float16, F32 and BF16 become float32.
        labels: in the order of the outputs; None takes those of the configuration.

    Raises:
        CheckpointError: labels without a head, or another number of them than the configuration has.
        SwitchError: a tensor holds a value that is not finite, or two labels are equal.
    """
    names = tuple(names)
    if not names:
        if labels is not None:
            raise CheckpointError("labels are given, but the fine-tune has no head that they could name")
        return None
    stated = _labels(finetuned)
    if labels is not None and len(labels) != len(stated):
        raise CheckpointError(f"{len(labels)} labels are given; the fine-tune's head has {len(stated)}")
    tensors = {
        name: finetuned.tensor(name).astype(np.float16 if finetuned.dtype(name) == "F16" else np.float32)
        for name in names
    }
    config = {key: value for key, value in finetuned.config.items() if key not in _LABEL_MAPS}
    return Head(tensors, config, stated if labels is None else labels)


def prefixes(base: tuple[str, ...], finetuned: tuple[str, ...]) -> tuple[str, str]:
    """The pair of leading parts by which most names match; the shortest among equals."""
    theirs = set(finetuned)

    def score(pair: tuple[str, str]) -> tuple[int, int]:
        ours_prefix, theirs_prefix = pair
        stripped = (name.removeprefix(ours_prefix) for name in base if name.startswith(ours_prefix))
        return sum(theirs_prefix + name in theirs for name in stripped), -len(ours_prefix + theirs_prefix)

    return max(((a, b) for a in _parts(base) for b in _parts(finetuned)), key=score)


def _parts(names: Iterable[str]) -> list[str]:
    """The empty prefix, and every first part of a name with its dot."""
    return ["", *sorted({name.split(".", 1)[0] + "." for name in names if "." in name})]


def backbone_prefix(names: Iterable[str]) -> str:
    """The leading part (``bert.``) that holds all the embeddings; empty where they lie at the top."""
    embeddings = [name.split(".") for name in names if any(map(_EMBEDDING.search, name.split(".")))]
    tops = {parts[0] for parts in embeddings if len(parts) > 1}
    if len(tops) != 1 or any(map(_EMBEDDING.search, tops)) or any(len(parts) == 1 for parts in embeddings):
        return ""
    return tops.pop() + "."


def _require_whole(base: Checkpoint, partner: dict[str, str], missing: list[str]) -> None:
    backbone = backbone_prefix(base.names)

    def part(name: str) -> str:
        return name.removeprefix(backbone).split(".", 1)[0]

    if len(partner) * 2 < len(partner) + len(missing):
        raise CheckpointError(
            f"the fine-tune has {len(partner)} of the base's {len(partner) + len(missing)} tensors;"
            f" it lacks {first(missing)}"
        )
    kept = {part(name) for name in partner}
    lost = [
        name
        for name in missing
        if not _BUFFER.search(name) and (part(name) in kept or any(map(_EMBEDDING.search, name.split("."))))
    ]
    if lost:
        raise CheckpointError(f"the fine-tune lacks tensors of the base: {first(lost)}")


def _class(checkpoint: Checkpoint) -> str:
    """The model class that saved the checkpoint, or "" where the configuration does not say."""
    classes = checkpoint.config.get("architectures")
    return str(classes[0]) if isinstance(classes, list) and classes else ""


def _is_classifier(checkpoint: Checkpoint) -> bool:
    name = _class(checkpoint)
    return not name or _CLASSIFIER.fullmatch(name) is not None


def _labels(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The label names by output; transformers leaves them out where they are LABEL_0, LABEL_1."""
    named = checkpoint.config.get("id2label")
    if named is None:
        count = checkpoint.config.get("num_labels", 2)
        if not isinstance(count, int) or count < 1:
            raise CheckpointError(
                f"num_labels of {checkpoint.folder / 'config.json'} is {count!r}, no number"
            )
        return tuple(f"LABEL_{i}" for i in range(count))
    if not isinstance(named, dict) or sorted(named) != sorted(map(str, range(len(named)))):
        raise CheckpointError(f"id2label of {checkpoint.folder / 'config.json'} does not count from 0")
    return tuple(str(named[str(i)]) for i in range(len(named)))
