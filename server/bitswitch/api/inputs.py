"""The ``input`` of a request: a text, or a list of texts and of pairs of texts; images are texts here too."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


def _check(value: Any) -> Any:  # noqa: ANN401 - what came, whatever it is
    """One sentence for the first fault, where pydantic's union would give one per alternative."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _fault(f"is {_kind(value)}; it is a text or a list of texts")
    if not value:
        raise _fault("is an empty list; it holds at least one text")
    for index, one in enumerate(value):
        if isinstance(one, str):
            continue
        if isinstance(one, int) and not isinstance(one, bool):
            raise _fault("is a list of token ids; send the text itself, this server tokenizes it")
        if not isinstance(one, list):
            raise _fault(f"has {_kind(one)} at {index}; each is a text or a pair of texts")
        if one and all(isinstance(token, int) and not isinstance(token, bool) for token in one):
            raise _fault(
                f"has a list of token ids at {index}; send the text itself, this server tokenizes it"
            )
        if len(one) != 2 or not all(isinstance(text, str) for text in one):
            raise _fault(f"has a list at {index} that is no pair of two texts")
    return value


def _kind(value: Any) -> str:  # noqa: ANN401
    names = {dict: "an object", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "null")


def _fault(sentence: str) -> PydanticCustomError:
    # As a value, for the braces that a template would trip over.
    return PydanticCustomError("input", "{fault}", {"fault": sentence})


Input = Annotated[
    str | list[str | Pair],
    BeforeValidator(_check),
    Field(
        description="A text; or a list of texts, and of pairs of texts for tasks on two (`[[a, b], …]`)."
        " Where the server's base reads images: an image or a list of them, each a data URL"
        " (`data:image/png;base64,…`) or plain base64, of a PNG, JPEG or WebP file.",
        examples=[
            "Who wrote Hamlet?",
            ["Who wrote Hamlet?", "I was charged twice"],
            [["A man sleeps.", "He rests."]],
        ],
    ),
]


def listed(given: str | list[str | list[str]]) -> list[str | tuple[str, str]]:
    """The inputs as `Answers` takes them."""
    if isinstance(given, str):
        return [given]
    return [one if isinstance(one, str) else (one[0], one[1]) for one in given]
