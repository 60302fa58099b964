"""The shapes of the Open Inference Protocol v2, as far as inputs as texts and probabilities out need them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from bitswitch.api.wire import Incoming, Outgoing

PROBS, LABEL = "probs", "label"


def _texts(value: Any) -> Any:  # noqa: ANN401
    """Flatten one level, as the protocol allows data to be nested by its shape."""
    if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        value = [one for row in value for one in row]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise PydanticCustomError("data", "{fault}", {"fault": "is no list of texts"})
    return value


class InputTensor(Incoming):
    """The one input: texts or pairs of texts; images where the server's base reads images."""

    name: Literal["text", "image"] = Field(description="As the model's metadata says.")
    shape: list[Annotated[int, Field(ge=0, le=1_000_000)]] = Field(
        min_length=1,
        max_length=2,
        description="[n] texts or images, or [n, 2] for pairs of texts.",
        examples=[[2]],
    )
    datatype: Literal["BYTES"]
    data: Annotated[list[str], BeforeValidator(_texts)] = Field(
        description="Texts; or images as data URLs or base64.",
        examples=[["Who wrote Hamlet?", "I was charged twice"]],
    )
    parameters: dict[str, Any] | None = Field(None, description="The protocol's field; not read.")


class RequestedOutput(Incoming):
    """An output that the caller wants."""

    name: Literal["probs", "label"]
    parameters: dict[str, Any] | None = Field(None, description="The protocol's field; not read.")


def _once_each(outputs: list[RequestedOutput]) -> list[RequestedOutput]:
    if len({output.name for output in outputs}) < len(outputs):
        raise PydanticCustomError("data", "{fault}", {"fault": "names an output more than once"})
    return outputs


Outputs = Annotated[list[RequestedOutput], Field(max_length=2), AfterValidator(_once_each)]


class InferRequest(Incoming):
    """What to infer."""

    id: str | None = Field(None, max_length=128, description="Comes back in the answer.")
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: Outputs | None = Field(None, description="Both if not given.")
    parameters: dict[str, Any] | None = Field(None, description="The protocol's field; not read.")


class OutputTensor(Outgoing):
    """One output."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float] | list[str]


class InferResponse(Outgoing):
    """What was inferred."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


class TensorMetadata(Outgoing):
    """What a tensor is; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Outgoing):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(Outgoing):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(Outgoing):
    """Whether a model takes requests."""

    name: str
    ready: bool


class ProtocolFault(Outgoing):
    """The protocol's shape of an error."""

    error: str
