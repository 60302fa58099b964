"""Classification, in vLLM's shape."""

from __future__ import annotations

from fastapi import APIRouter, Request

from bitswitch.answer import Item
from bitswitch.api.door import Guarded
from bitswitch.api.inputs import listed
from bitswitch.api.parts import House, Who, permit_of
from bitswitch.api.serve import answered, common_mix, head, item_fields, note, request_id
from bitswitch.api.wire import ClassifyDatum, ClassifyRequest, ClassifyResponse
from bitswitch.core import Want

router = APIRouter(route_class=Guarded, tags=["inference"])


@router.post("/classify", summary="Classify texts or images (vLLM's path)", operation_id="classify_vllm")
@router.post("/v1/classify", summary="Classify texts or images", operation_id="classify")
async def classify(body: ClassifyRequest, request: Request, house: House, who: Who) -> ClassifyResponse:
    """Probabilities of each label, by the head of the model's heaviest switch.

    With `auto`, each input goes to the tasks it is near to, and `route` says why. An input that is
    near to none is refused: 422 `route_abstained`.
    """
    answer = await house.answers.classify(
        who.tenant, body.model, listed(body.input), request_id=request_id(request), permit=permit_of(request)
    )
    note(request, answered(answer, Want.CLASSIFY, who.tenant))
    return ClassifyResponse(
        **head(request, "classify", answer.model, answer.tokens),
        mix=common_mix(answer.items),
        data=[_datum(index, item) for index, item in enumerate(answer.items)],
    )


def _datum(index: int, item: Item) -> ClassifyDatum:
    return ClassifyDatum(
        **item_fields(index, item),
        label=item.labels[int(item.values.argmax())],
        labels=list(item.labels),
        probs=item.values.tolist(),
        num_classes=len(item.labels),
    )
