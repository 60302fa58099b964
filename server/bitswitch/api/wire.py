"""The shapes on the wire: what clients of OpenAI and vLLM speak, and our additions to it.

What comes in is taken strictly: no unknown field, no number for a text. Knows no endpoint.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from bitswitch.api.inputs import Input
from bitswitch.selection import Choice, Part
from bitswitch_store.store import Entry

ModelText = Annotated[
    str,
    Field(
        max_length=8192,
        description="`name`, `name@version`, `name@alias`, `tenant/name`, a mix `a*0.6+b*0.4`,"
        " `base` or `auto`.",
        examples=["trec6", "trec6@prod", "trec6*0.6+subj*0.4", "auto"],
    ),
]


MAX_FIELDS = 64
"""Of one object in a body; far more than any request has."""


class Incoming(BaseModel):
    """A request's body, or an object in one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _not_too_wide(cls, value: Any) -> Any:  # noqa: ANN401 - what came, whatever it is
        """One sentence at once, where a fault for each of 100 000 unknown fields takes seconds."""
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise PydanticCustomError(
                "fields",
                "has {count} fields; at most {most} are read",
                {"count": len(value), "most": MAX_FIELDS},
            )
        return value


class Outgoing(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(frozen=True)


class ClassifyRequest(Incoming):
    """What to classify, and by which model."""

    model: ModelText
    input: Input


class EmbeddingsRequest(Incoming):
    """What to embed, and by which model."""

    model: ModelText
    input: Input
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="`base64` is of the little-endian float32 values."
    )
    dimensions: int | None = Field(
        None, ge=1, le=1_000_000, description="Keep the first so many values, normalized again."
    )
    user: str | None = Field(None, max_length=1024, description="OpenAI's field; not read.")


class RouteRequest(Incoming):
    """What to route."""

    model: Literal["auto"] = "auto"
    input: Input


class AliasRequest(Incoming):
    """Where an alias shall point."""

    version: int = Field(ge=1, le=999_999_999)


class MixPart(Outgoing):
    """One switch of a mix."""

    name: str
    version: int
    weight: float

    @classmethod
    def of(cls, parts: tuple[Part, ...]) -> list[Self]:
        """A mix."""
        return [cls(name=part.name, version=part.version, weight=part.weight) for part in parts]


class Neighbour(Outgoing):
    """One switch among the nearest query vectors of an input."""

    name: str
    version: int
    share: float = Field(description="Share of the votes, 0 to 1.")
    distance: float = Field(description="Of its nearest query vector, in the router's metric.")


class RouteOut(Outgoing):
    """What `auto` chose for an input, and why."""

    mix: list[MixPart] = Field(description="The chosen switches and their weights; empty for the bare base.")
    abstained: bool = Field(description="Whether the input is too strange to every task.")
    distance: float | None = Field(
        description="How much stranger the input is to the switch with the most votes than to inputs at"
        " large, mostly below 0 for its own; null if there is none to see."
    )
    threshold: float | None = Field(description="The largest distance that is no abstention; null for any.")
    confidence: float = Field(
        description="How likely the switch with the most votes is the right one of those in sight: its"
        " share of the votes, 0 to 1. Whether any is right is what `distance` tells."
    )
    neighbours: list[Neighbour]

    @classmethod
    def fields_of(cls, choice: Choice) -> dict[str, Any]:
        """The values of these fields for ``choice``."""
        return {
            "mix": MixPart.of(choice.selection.parts),
            "abstained": choice.abstained,
            "distance": _finite(choice.distance),
            "threshold": _finite(choice.threshold),
            "confidence": choice.confidence,
            "neighbours": [
                Neighbour(name=part.name, version=part.version, share=share, distance=distance)
                for part, share, distance in choice.neighbours
            ],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class RouteDatum(RouteOut):
    """The route of one input."""

    index: int


class Usage(Outgoing):
    """Tokens read; nothing is written, so there are no others."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class ListOut(Outgoing):
    """What all lists over inputs have."""

    id: str
    object: Literal["list"] = "list"
    created: int = Field(description="Unix time.")
    model: str = Field(description="The model, versions resolved; may be asked again as it is.")
    usage: Usage


class ClassifyDatum(Outgoing):
    """The answer to one input."""

    index: int
    label: str = Field(description="The likeliest label.")
    probs: list[float] = Field(description="In the order of `labels`; a regression's raw value.")
    num_classes: int
    labels: list[str]
    mix: list[MixPart] = Field(description="The switches the weights were set to.")
    route: RouteOut | None = Field(description="Why these, if `auto` chose them.")
    truncated: bool = Field(description="Whether the input was longer than the model reads.")


class ClassifyResponse(ListOut):
    """vLLM's shape, and `mix`, `labels`, `route`, `truncated`."""

    mix: list[MixPart] | None = Field(description="The mix of all inputs; null if `auto` chose several.")
    data: list[ClassifyDatum]


class EmbeddingDatum(Outgoing):
    """The embedding of one input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="Values, or base64 of little-endian float32.")
    mix: list[MixPart]
    route: RouteOut | None
    truncated: bool


class EmbeddingsResponse(ListOut):
    """OpenAI's shape, and `mix`, `route`, `truncated`."""

    mix: list[MixPart] | None
    data: list[EmbeddingDatum]


class RouteResponse(ListOut):
    """What `auto` would do."""

    data: list[RouteDatum]


class ModelOut(Outgoing):
    """OpenAI's shape of a model; `root` and `parent` as vLLM has them for adapters."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str = Field(description="The resident base model.")
    parent: str | None = Field(description="`base` for a switch; null for `base` and `auto`.")


class ModelsResponse(Outgoing):
    """All models the caller may name."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


class SwitchOut(Outgoing):
    """One version of a switch."""

    object: Literal["switch"] = "switch"
    tenant: str
    name: str
    version: int
    digest: str
    size: int = Field(description="Bytes of its file.")
    task: str
    labels: list[str]
    aliases: list[str]
    public: bool
    pinned: bool = Field(description="Whether it stays ready in memory.")
    metric: dict[str, float]
    base_digest: str
    created: datetime

    @classmethod
    def of(cls, entry: Entry, *, pinned: bool) -> Self:
        """As the store has it."""
        return cls.model_validate({**vars(entry), "pinned": pinned})


class SwitchesResponse(Outgoing):
    """Switches, by tenant, name and version."""

    object: Literal["list"] = "list"
    data: list[SwitchOut]


class DeletedResponse(Outgoing):
    """What was deleted."""

    object: Literal["switch.deleted"] = "switch.deleted"
    deleted: Literal[True] = True
    data: list[SwitchOut]


class Fault(Outgoing):
    """What was wrong, and what would be right."""

    message: str
    type: str
    param: str | None = Field(description="The field of the request the fault lies in.")
    code: str


class FaultResponse(Outgoing):
    """OpenAI's shape of an error."""

    error: Fault
