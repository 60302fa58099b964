"""The Open Inference Protocol v2 (KServe, Triton): the server, its models, inference."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Path, Request

from bitswitch.answer import Answer
from bitswitch.api.door import Guarded
from bitswitch.api.oip_wire import (
    LABEL,
    PROBS,
    InferRequest,
    InferResponse,
    InputTensor,
    ModelMetadata,
    ModelReady,
    OutputTensor,
    ProtocolFault,
    ServerMetadata,
    TensorMetadata,
)
from bitswitch.api.parts import House, Parts, Who, permit_of
from bitswitch.api.serve import answered, note, request_id
from bitswitch.core import Mix, Want
from bitswitch.errors import InvalidModelError, InvalidRequestError
from bitswitch.model_ref import Term, parse
from bitswitch.selection import Selection, select

_FAULTS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ProtocolFault, "description": "The request's fault."},
    "5XX": {"model": ProtocolFault, "description": "The server's fault."},
}
router = APIRouter(route_class=Guarded, prefix="/v2", tags=["open inference protocol"], responses=_FAULTS)

Model = Annotated[str, Path(max_length=4096, description="As `model` elsewhere.", examples=["trec6"])]
Version = Annotated[int, Path(ge=1, le=999_999_999)]


@router.get("", summary="Get the server's metadata")
def server(who: Who) -> ServerMetadata:
    """Name and version; no extension of the protocol is spoken."""
    return ServerMetadata(name="bitswitch", version=installed_version("bitswitch"), extensions=[])


# The longer paths stand first: a model's name may hold a '/', so `{model:path}` takes all it can.
@router.get("/models/{model:path}/versions/{version}/ready", summary="Whether a version is ready")
def version_ready(model: Model, version: Version, house: House, who: Who) -> ModelReady:
    """Known and served."""
    return _ready(_at(model, version), model, house, who.tenant)


@router.get("/models/{model:path}/ready", summary="Whether a model is ready")
def model_ready(model: Model, house: House, who: Who) -> ModelReady:
    """Known and served."""
    return _ready(model, model, house, who.tenant)


@router.post("/models/{model:path}/versions/{version}/infer", summary="Infer by a version")
async def version_infer(
    model: Model, version: Version, body: InferRequest, *, request: Request, house: House, who: Who
) -> InferResponse:
    """Classify texts or images by one version of a switch."""
    return await _infer(_at(model, version), body, request, house, who.tenant, name=model)


@router.post("/models/{model:path}/infer", summary="Infer")
async def model_infer(
    model: Model, body: InferRequest, request: Request, house: House, who: Who
) -> InferResponse:
    """Classify texts or images. `auto` works as long as it chooses one head for all of them."""
    return await _infer(model, body, request, house, who.tenant, name=model)


@router.get("/models/{model:path}/infer", include_in_schema=False)
async def not_inferred(model: Model) -> None:
    """Or the path would be taken for a model's name."""
    raise HTTPException(405, headers={"allow": "POST"})


@router.get("/models/{model:path}/versions/{version}", summary="Get a version's metadata")
def version_metadata(model: Model, version: Version, house: House, who: Who) -> ModelMetadata:
    """What it takes and gives."""
    return _metadata(_at(model, version), model, house, who.tenant)


@router.get("/models/{model:path}", summary="Get a model's metadata")
def model_metadata(model: Model, house: House, who: Who) -> ModelMetadata:
    """What it takes and gives."""
    return _metadata(model, model, house, who.tenant)


def _resolve(model: str, house: Parts, tenant: str) -> Selection:
    """The bare base for ``auto``: what it would choose depends on the input."""
    ref = parse(model)
    if ref.auto:
        return Selection(Mix.of())
    return select(house.store, tenant, ref, base=house.base_identity.digest)


def _at(model: str, version: int) -> str:
    """One version of a model.

    Raises:
        InvalidModelError: the model is no plain name of a switch.
    """
    match parse(model).terms:
        case (Term(selector=None) as term,) if str(term) == model and term.weight == 1.0:
            return str(replace(term, selector=str(version)))
    raise InvalidModelError(
        f"{model[:100]!r} has no versions of its own; name one switch, such as 'trec6', before '/versions/'.",
        param="model",
    )


def _ready(model: str, name: str, house: Parts, tenant: str) -> ModelReady:
    _resolve(model, house, tenant)
    return ModelReady(name=name, ready=house.state().ready)


def _metadata(model: str, name: str, house: Parts, tenant: str) -> ModelMetadata:
    selection = _resolve(model, house, tenant)
    width = len(selection.head.labels) if selection.head else -1
    return ModelMetadata(
        name=name,
        versions=[str(part.version) for part in selection.parts],
        platform="bitswitch",
        inputs=[TensorMetadata(name=house.answers.reads, datatype="BYTES", shape=[-1])],
        outputs=[
            TensorMetadata(name=PROBS, datatype="FP32", shape=[-1, width]),
            TensorMetadata(name=LABEL, datatype="BYTES", shape=[-1]),
        ],
    )


async def _infer(
    model: str, body: InferRequest, request: Request, house: Parts, tenant: str, *, name: str
) -> InferResponse:
    answer = await house.answers.classify(
        tenant,
        model,
        _inputs(body.inputs[0], house.answers.reads),
        request_id=request_id(request),
        permit=permit_of(request),
    )
    note(request, answered(answer, Want.CLASSIFY, tenant))
    outputs = {one.name: one for one in _outputs(answer)}
    wanted = [output.name for output in body.outputs] if body.outputs else list(outputs)
    parts = answer.items[0].selection.parts
    return InferResponse(
        model_name=name,
        model_version=str(parts[0].version) if len(parts) == 1 else answer.model,
        id=body.id if body.id is not None else request_id(request),
        outputs=[outputs[name] for name in wanted],
    )


def _inputs(tensor: InputTensor, reads: str) -> list[str | tuple[str, str]]:
    """Texts or images for shape [n] or [n, 1], pairs for [n, 2].

    Raises:
        InvalidRequestError: the shape is another, or has no room for the data; or the server's base reads
            something else.
    """
    if tensor.name != reads:
        raise InvalidRequestError(
            f"The input is {tensor.name!r}; this server's base reads {reads!r}.", param="inputs.0.name"
        )
    count, width = (*tensor.shape, 1)[:2]
    if width not in (1, 2) or count * width != len(tensor.data):
        raise InvalidRequestError(
            f"The shape {tensor.shape} does not fit {len(tensor.data)} texts;"
            " it is [n] for n texts, or [n, 2] for n pairs of them.",
            param="inputs.0.shape",
        )
    if width == 1:
        return list(tensor.data)
    return list(zip(tensor.data[::2], tensor.data[1::2], strict=True))


def _outputs(answer: Answer) -> tuple[OutputTensor, OutputTensor]:
    labels = answer.items[0].labels
    if any(item.labels != labels for item in answer.items):
        raise InvalidRequestError(
            "'auto' chose heads with different labels, which no one tensor holds;"
            " send one text per request, or use /v1/classify.",
            param="inputs.0.data",
        )
    probs = np.stack([item.values for item in answer.items])
    best = [labels[index] for index in probs.argmax(axis=1)]
    return (
        OutputTensor(name=PROBS, shape=list(probs.shape), datatype="FP32", data=probs.ravel().tolist()),
        OutputTensor(name=LABEL, shape=[len(best)], datatype="BYTES", data=best),
    )
