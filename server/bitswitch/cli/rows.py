"""Example inputs from a JSON-lines file: texts, pairs of them, or images. Knows nothing of models."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

Text = str | tuple[str, str]


@dataclass(frozen=True)
class Example:
    """One line: a text, a pair of texts or an image in base64, and its label where there is one."""

    text: Text
    label: str | None = None


def read_examples(path: Path, *, labelled: bool = False) -> list[Example]:
    """The lines of a file: each a JSON text, or an object with ``text``, ``text_b``? and ``label``?.

    Instead of ``text`` there may be ``image``: a file's path, from the folder of the lines' file on, or a
    data URL.

    Args:
        path: the file; empty lines are passed over.
        labelled: whether every line needs a label.

    Raises:
        ValueError: a line is none of these, or its image cannot be read; the message names file and line.
    """
    examples = []
    # Not splitlines: JSON texts may hold the other line ends that Unicode has.
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            examples.append(_example(json.loads(line.decode()), labelled, path.parent))
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not examples:
        raise ValueError(f"{path} has no lines; one example per line is needed")
    return examples


def _example(value: object, labelled: bool, folder: Path) -> Example:
    if isinstance(value, str) and not labelled:
        return Example(value)
    wanted = '{"text": …, "text_b": …?, "label": …}' if labelled else 'a text or {"text": …, "text_b": …?}'
    if isinstance(value, dict) and isinstance(value.get("image"), str) and "text" not in value:
        value = {**value, "text": _image(value["image"], folder)}
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise ValueError(f"this is not {wanted}, nor that with an image in the place of texts")
    second, label = value.get("text_b"), value.get("label")
    if second is not None and not isinstance(second, str):
        raise ValueError("text_b is not a text")
    if labelled and not isinstance(label, str):
        raise ValueError("there is no label, or it is not a text")
    text: Text = value["text"] if second is None else (value["text"], second)
    return Example(text, label if isinstance(label, str) else None)


def _image(given: str, folder: Path) -> str:
    """An image as the base's encoder reads it: the data URL that was given, or the file's base64."""
    if given.startswith("data:"):
        return given
    return base64.b64encode((folder / given).read_bytes()).decode("ascii")
