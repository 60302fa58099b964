"""Embeddings, in OpenAI's shape."""

from __future__ import annotations

import base64

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray

from bitswitch.api.door import Guarded
from bitswitch.api.inputs import listed
from bitswitch.api.parts import House, Who, permit_of
from bitswitch.api.serve import answered, common_mix, head, item_fields, note, request_id
from bitswitch.api.wire import EmbeddingDatum, EmbeddingsRequest, EmbeddingsResponse
from bitswitch.core import Want
from bitswitch.errors import InvalidRequestError

router = APIRouter(route_class=Guarded, tags=["inference"])


@router.post("/v1/embeddings", summary="Embed texts")
async def embeddings(body: EmbeddingsRequest, request: Request, house: House, who: Who) -> EmbeddingsResponse:
    """One vector per text, by the base's own pooling. Where `auto` is near to no task, the base's vector.

    OpenAI's shape is of texts: where the server's base reads images, this is refused.
    """
    answer = await house.answers.embed(
        who.tenant, body.model, listed(body.input), request_id=request_id(request), permit=permit_of(request)
    )
    note(request, answered(answer, Want.EMBED, who.tenant))
    vectors = (shortened(item.values, body.dimensions) for item in answer.items)
    return EmbeddingsResponse(
        **head(request, "embed", answer.model, answer.tokens),
        mix=common_mix(answer.items),
        data=[
            EmbeddingDatum(
                **item_fields(index, item),
                embedding=vector.tolist() if body.encoding_format == "float" else encoded(vector),
            )
            for index, (item, vector) in enumerate(zip(answer.items, vectors, strict=True))
        ],
    )


def shortened(vector: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """The first ``dimensions`` values at unit length; all of them as they are if None.

    Raises:
        InvalidRequestError: there are not so many.
    """
    if dimensions is None:
        return vector
    if dimensions > vector.size:
        raise InvalidRequestError(
            f"dimensions is {dimensions}; this model's embeddings have {vector.size}.", param="dimensions"
        )
    kept = vector[:dimensions]
    length = float(np.linalg.norm(kept))
    return kept / np.float32(length) if length > 0 else kept


def encoded(vector: NDArray[np.float32]) -> str:
    """Base64 of the values as little-endian float32."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
