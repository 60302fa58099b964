"""The client and a real server: every call, by `Client` and by `AsyncClient`."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitswitch_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    ConflictError,
    InvalidRequestError,
    KeyInfo,
    NotFoundError,
    RouteAbstainedError,
    Sharing,
    UnreachableError,
)
from running import BANKING, FAR, FILMS, House, make_switches, serving

KEY = "a key of the tests"


class Waiting:
    """`AsyncClient` behind the face of `Client`, so that one test drives either."""

    def __init__(self, address: str, **options: Any) -> None:
        self._loop = asyncio.Runner()
        self._client = AsyncClient(address, **options)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        assert inspect.iscoroutinefunction(call), f"{name} is not asynchronous"
        return lambda *args, **kwargs: self._loop.run(call(*args, **kwargs))

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._client.close())
        self._loop.close()


@pytest.fixture(scope="module")
def files(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_switches(tiny_base, tmp_path_factory.mktemp("switches"))


@pytest.fixture(scope="module", params=[Client, Waiting], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> type[Client]:
    kind: type[Client] = request.param
    return kind


@pytest.fixture(scope="module")
def address(kind: type[Client], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty server of its own for each kind of client; it wants a key."""
    built = House.build(tiny_base, tmp_path_factory.mktemp("store"))
    with built.running() as house, serving(house.app(key=KEY)) as address:
        yield address


@pytest.fixture(scope="module")
def client(kind: type[Client], address: str, files: dict[str, Path]) -> Iterator[Client]:
    """A client, and on the server the switches ``topic`` and ``polarity``."""
    with kind(address, api_key=KEY) as client:
        for name in ("topic", "polarity"):
            client.publish(files[name])
        yield client


def test_a_text_is_classified(client: Client) -> None:
    answer = client.classify("topic", "please refund my card")
    (item,) = answer.data
    assert item.labels == ("bank", "film", "spam")
    assert item.label == item.labels[int(np.argmax(item.probs))]
    assert math.isclose(sum(item.probs), 1.0, abs_tol=1e-5)
    assert [(part.name, part.version, part.weight) for part in item.mix] == [("topic", 1, 1.0)]
    assert item.route is None
    assert answer.model == "topic@1"
    assert answer.tokens > 0
    assert 0 <= answer.timing.queue + answer.timing.swap + answer.timing.inference <= answer.timing.total


def test_many_texts_and_pairs_keep_their_order(client: Client) -> None:
    inputs = ["loved the film", ("who wrote hamlet", "what a plot"), "my card", "spam"]
    together = client.classify("topic*0.6+polarity*0.4", inputs)
    assert [part.name for part in together.data[0].mix] == ["topic", "polarity"]
    for text, item in zip(inputs, together.data, strict=True):
        (alone,) = client.classify("topic*0.6+polarity*0.4", [text]).data
        assert np.allclose(alone.probs, item.probs, atol=1e-5)


def test_auto_says_why_and_says_no(client: Client) -> None:
    (item,) = client.classify("auto", BANKING[0]).data
    assert item.route is not None
    assert (item.route.abstained, item.route.mix) == (False, item.mix)
    assert item.route.neighbours[0].name == "topic"
    near, far = client.route([FILMS[0], FAR]).data
    assert (near.abstained, far.abstained) == (False, True)
    assert near.mix[0].name == "polarity"
    assert far.mix == ()
    assert far.distance is not None
    assert far.threshold is not None
    assert far.distance > far.threshold
    with pytest.raises(RouteAbstainedError) as caught:
        client.classify("auto", FAR)
    assert (caught.value.status, caught.value.code) == (422, "route_abstained")
    assert caught.value.request_id


def test_a_text_is_embedded(client: Client) -> None:
    (item,) = client.embed("base", "please refund my card").data
    vector = np.asarray(item.vector)
    assert vector.dtype == np.float32
    assert vector.shape == (32,)
    assert item.mix == ()
    (short,) = client.embed("base", "please refund my card", dimensions=8).data
    assert np.allclose(short.vector, vector[:8] / np.linalg.norm(vector[:8]), atol=1e-6)
    assert not np.allclose(client.embed("topic", "please refund my card").data[0].vector, vector)


def test_models_and_switches_are_listed(client: Client) -> None:
    assert [(model.id, model.parent) for model in client.models()] == [
        ("base", None),
        ("auto", None),
        ("polarity", "base"),
        ("topic", "base"),
    ]
    assert sorted((one.name, one.version) for one in client.switches()) == [("polarity", 1), ("topic", 1)]
    topic = client.switch("topic")
    assert topic in client.switches()
    assert topic.labels == ("bank", "film", "spam")
    assert topic.created.utcoffset() is not None


def test_a_switch_comes_is_named_is_fetched_and_goes(
    client: Client, files: dict[str, Path], tmp_path: Path
) -> None:
    first = client.publish(files["topic"], "guest")
    assert (first.name, first.version, first.size) == ("guest", 1, files["topic"].stat().st_size)
    assert client.publish(files["topic"].read_bytes(), "guest") == first, "the same bytes, the same version"
    second = client.publish(files["polarity"], "guest", public=True)
    assert (second.version, second.public) == (2, True)
    assert client.sharing("guest") == Sharing("guest", True, ())
    assert client.share("guest", tenants=["zeta", "acme"]) == Sharing("guest", False, ("acme", "zeta"))
    assert not client.switch("guest").public
    assert client.share("guest") == Sharing("guest", False, ())
    assert client.alias("guest", "prod", 1).aliases == ("prod",)
    assert client.classify("guest@prod", "my card").data[0].labels == ("bank", "film", "spam")
    assert client.classify("guest", "my card").data[0].labels == ("bad", "good")

    copy = client.download("guest", tmp_path / "copy", version="prod")
    assert copy.read_bytes() == files["topic"].read_bytes()
    with pytest.raises(ConflictError):
        client.delete("guest", version=1)
    assert client.unalias("guest", "prod").aliases == ()
    assert [one.version for one in client.delete("guest", version=1)] == [1]
    assert [one.version for one in client.delete("guest")] == [2]
    with pytest.raises(NotFoundError) as caught:
        client.classify("guest", "my card")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_client_learns_who_it_is(client: Client) -> None:
    assert client.whoami() == KeyInfo(None, "default", "admin", None)


def test_the_servers_no_names_the_fault(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="Not a safetensors file") as caught:
        client.publish(b"no switch at all", "guest")
    assert caught.value.code == "invalid_switch"
    with pytest.raises(InvalidRequestError) as caught:
        client.classify("topic", [])
    assert caught.value.param == "input"


def test_the_server_proves_its_base_and_tells_its_state(client: Client) -> None:
    client.classify("topic", "my card")
    verdict = client.verify()
    assert verdict.intact
    assert verdict.differing == ()
    assert verdict.checked > 0
    assert client.ready()
    state = client.state()
    assert state.ready
    assert state.mix == (), "verifying sets the weights back to the base's"
    assert client.switch("topic").digest in state.resident


def test_without_its_key_nobody_gets_in(kind: type[Client], address: str) -> None:
    with kind(address) as stranger:
        assert stranger.ready()
        with pytest.raises(AuthenticationError):
            stranger.models()


def test_a_server_that_is_not_there_is_told_at_once(kind: type[Client]) -> None:
    with kind("http://127.0.0.1:9") as client, pytest.raises(UnreachableError, match="GET /v2/health/ready"):
        client.ready()
