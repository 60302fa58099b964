"""What the tests of this room share: heads cut from fine-tunes, and the plain library's answers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bitswitch.base.model import Base
from bitswitch_store.checkpoint import Checkpoint
from bitswitch_store.switch import Head

TEXTS = (
    "who wrote hamlet",
    "please refund my card, it was charged twice and i did not like it",
    ("is it a city?", "it is a country of many people"),
    "",
    "free prize call now win cash money bank account spam " * 20,
)


def head_of(base: Path, finetune: Path, **config: object) -> Head:
    """The fine-tune's own last layers: every tensor of its file that the base's file lacks."""
    ours, theirs = Checkpoint.open(base), Checkpoint.open(finetune)
    with torch.device("meta"):
        prefix = AutoModelForSequenceClassification.from_config(_config(finetune)).base_model_prefix + "."
    tensors = {n: theirs.tensor(n) for n in theirs.names if n.removeprefix(prefix) not in ours}
    labels = tuple(theirs.config["id2label"][str(i)] for i in range(len(theirs.config["id2label"])))
    own = {key: value for key, value in theirs.config.items() if key not in ("id2label", "label2id")}
    return Head(tensors, {**own, **config}, labels)


def become(base: Base, finetune: Path) -> None:
    """Set the resident weights to the fine-tune's: what the engine would do with an exact switch."""
    theirs = Checkpoint.open(finetune)
    prefix = base.model.base_model_prefix + "."
    with torch.no_grad():
        for name, parameter in base.parameters.items():
            if prefix + name in theirs:  # a fine-tune without a pooler keeps the base's
                parameter.copy_(torch.from_numpy(theirs.tensor(prefix + name)))


@torch.inference_mode()
def plain_logits(finetune: Path, texts: tuple[str | tuple[str, str], ...], limit: int) -> torch.Tensor:
    """The library's own logits, one text at a time, without any of our code."""
    model = AutoModelForSequenceClassification.from_pretrained(finetune).eval()
    tokenizer = AutoTokenizer.from_pretrained(finetune)
    answers = []
    for text in texts:
        single, pair = (text, None) if isinstance(text, str) else text
        inputs = tokenizer(single, pair, truncation=True, max_length=limit, return_tensors="pt")
        answers.append(model(**inputs).logits[0])
    return torch.stack(answers).float()


def rewrite(folder: Path, name: str, **changes: object) -> None:
    """Change keys of a JSON file in a folder; None takes a key away."""
    path = folder / name
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: each for key, each in value.items() if each is not None}))


def drop_tensors(folder: Path, ending: str) -> None:
    """Take the tensors whose name contains ``ending`` out of a checkpoint's file."""
    path = folder / "model.safetensors"
    kept = {name: tensor.clone() for name, tensor in load_file(path).items() if ending not in name}
    save_file(kept, path, {"format": "pt"})


def _config(folder: Path) -> object:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)
