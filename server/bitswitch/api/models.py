"""The models a caller may name, in OpenAI's shape."""

from __future__ import annotations

from fastapi import APIRouter

from bitswitch.api.door import Guarded
from bitswitch.api.parts import House, Parts, Who
from bitswitch.api.wire import ModelOut, ModelsResponse
from bitswitch.errors import ModelNotFoundError
from bitswitch.model_ref import AUTO, BASE, parse
from bitswitch.selection import find, latest, name_of
from bitswitch_store.store import Entry

router = APIRouter(route_class=Guarded, tags=["models"])
_OWNER = "bitswitch"


@router.get("/v1/models", summary="List models")
def models(house: House, who: Who) -> ModelsResponse:
    """`base`, `auto`, and every switch of yours or shared with you, once."""
    entries = latest(house.store.visible(who.tenant, base=house.base_identity.digest))
    own = [_model(house, BASE), _model(house, AUTO)]
    return ModelsResponse(data=own + [_switch(house, entry, name_of(entry, who.tenant)) for entry in entries])


@router.get("/v1/models/{model:path}", summary="Get one model")
def model(model: str, house: House, who: Who) -> ModelOut:
    """One model by its name; a version or an alias may be named."""
    ref = parse(model)
    if not ref.terms:
        return _model(house, str(ref))
    if len(ref.terms) > 1 or ref.terms[0].weight != 1.0:
        raise ModelNotFoundError(model)  # a mix can be asked for, but is no thing of its own
    entry = find(house.store, who.tenant, ref.terms[0], base=house.base_identity.digest)
    return _switch(house, entry, model)


def _model(house: Parts, name: str) -> ModelOut:
    return ModelOut(id=name, created=house.started, owned_by=_OWNER, root=house.base_name, parent=None)


def _switch(house: Parts, entry: Entry, name: str) -> ModelOut:
    created = int(entry.created.timestamp())
    return ModelOut(id=name, created=created, owned_by=entry.tenant, root=house.base_name, parent=BASE)
