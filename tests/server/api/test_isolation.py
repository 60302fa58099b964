"""Every route × (own, shared, public, foreign, missing) × role, over HTTP; and what leaks beside it."""

from __future__ import annotations

import io
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from estate import KINDS, NEAR_FOREIGN, SECRET, SEEN, Estate, model, opened, owner, routed, told
from fastapi.routing import APIRoute
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from bitswitch.observe.logs import configure
from bitswitch.tenants.caller import Role
from bitswitch_store.store import Sharing
from running import serving

OPEN = {"GET /health", "GET /v2/health/live", "GET /v2/health/ready"}
DOCS = {
    "GET /docs",
    "GET /docs/files/favicon-32x32.png",
    "GET /docs/files/swagger-ui-bundle.js",
    "GET /docs/files/swagger-ui.css",
    "GET /openapi.json",
}
TEXT = {"input": "who"}
INFER = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["who"]}]}

# Route → the least role, and how it is called about a switch: {model} as acme writes it, {name} and {owner}.
# The matrix covers all of them; a route that is not here fails the walk.
READING = {
    "POST /classify": {"json": {"model": "{model}", **TEXT}},
    "POST /v1/classify": {"json": {"model": "own*0.5+{model}@prod*0.5", **TEXT}},
    "POST /v1/embeddings": {"json": {"model": "{model}@{version}", **TEXT}},
    "GET /v1/models/{model:path}": {},
    "GET /v1/switches/{name}": {"params": {"tenant": "{owner}", "version": "prod"}},
    "GET /v1/switches/{name}/file": {"params": {"tenant": "{owner}"}},
    "GET /v2/models/{model:path}": {},
    "GET /v2/models/{model:path}/ready": {},
    "GET /v2/models/{model:path}/versions/{version}": {},
    "GET /v2/models/{model:path}/versions/{version}/ready": {},
    "POST /v2/models/{model:path}/infer": {"json": INFER},
    "POST /v2/models/{model:path}/versions/{version}/infer": {"json": INFER},
}
NOT_A_METHOD = "GET /v2/models/{model:path}/infer"
"""In no document: it says that the method is POST, to those who have a key."""
CHANGING = {
    "PUT /v1/switches/{name}/aliases/{alias}": {"json": {"version": "{number}"}},
    "DELETE /v1/switches/{name}/aliases/{alias}": {},
    "GET /v1/switches/{name}/sharing": {},
    "PUT /v1/switches/{name}/sharing": {"json": {"public": False, "tenants": ["zeta"]}},
    "DELETE /v1/switches/{name}": {"params": {"force": "true"}},
}
OPERATING = {
    "PUT /v1/switches/{name}/pin": {},
    "DELETE /v1/switches/{name}/pin": {},
}
OF_NO_SWITCH = {
    "POST /v1/route": Role.CALLER,
    "GET /v1/models": Role.CALLER,
    "GET /v1/switches": Role.CALLER,
    "GET /v2": Role.CALLER,
    "GET /v1/key": Role.CALLER,
    "GET /v1/usage": Role.CALLER,
    "GET /v1/audit": Role.PUBLISHER,
    "POST /v1/switches": Role.PUBLISHER,
    "GET /v1/admin/state": Role.ADMIN,
    "GET /v1/admin/verify": Role.ADMIN,
    "GET /metrics": Role.ADMIN,
}
ROLES = {
    **dict.fromkeys(READING, Role.CALLER),
    **dict.fromkeys(CHANGING, Role.PUBLISHER),
    **dict.fromkeys(OPERATING, Role.ADMIN),
    **OF_NO_SWITCH,
}


@pytest.fixture(scope="module")
def estate(tiny_base, switch_files, tmp_path_factory):
    with opened(tiny_base, switch_files, tmp_path_factory.mktemp("estate")) as estate:
        yield estate


def call(estate: Estate, route: str, kind: str, role: Role) -> httpx.Response:
    """Call a route about a switch, as acme."""
    own = estate.house.store.find("acme", "own")
    version = own.version if kind == "own" and own else 1
    method, path = route.split(" ")
    more = filled((READING | CHANGING | OPERATING)[route], kind, version)
    return estate.ask(method, filled(path, kind, version), role, **more)


def filled(given, kind, version=1):
    """``given`` with the switch's names in it."""
    if isinstance(given, dict):
        return {name: filled(value, kind, version) for name, value in given.items()}
    if isinstance(given, list):
        return [filled(value, kind, version) for value in given]
    if given == "{number}":
        return version
    if not isinstance(given, str):
        return given
    names = {"model": model(kind), "name": kind, "owner": owner(kind), "alias": "prod"} | {"version": version}
    return re.sub(r"{(\w+)(:path)?}", lambda match: str(names[match[1]]), given)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("route", READING)
def test_what_names_a_switch_answers_for_those_one_may_see(estate, route, role):
    answers = {kind: call(estate, route, kind, role) for kind in KINDS}
    assert {kind: answers[kind].status_code for kind in KINDS} == {
        kind: 200 if kind in SEEN else 404 for kind in KINDS
    }
    assert told(answers["foreign"]) == told(answers["missing"])
    assert b"does not exist or you do not have access" in answers["foreign"].content


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("route", CHANGING | OPERATING)
def test_what_changes_a_switch_takes_its_role_and_knows_ones_own_alone(estate, route, role):
    estate.renew()
    before = estate.ask("GET", "/v1/switches", Role.CALLER, "zeta").json()
    answers = {kind: call(estate, route, kind, role) for kind in KINDS}
    reached = role.reaches(ROLES[route])
    assert {kind: answers[kind].status_code for kind in KINDS} == {
        kind: (200 if kind == "own" else 404) if reached else 403 for kind in KINDS
    }
    assert told(answers["foreign"]) == told(answers["missing"])
    if not reached:
        assert told(answers["own"]) == told(answers["missing"])
        assert answers["own"].json()["error"]["code"] == "permission_denied"
    # zeta's are as they were, for all that acme tried
    if not (route == "PUT /v1/switches/{name}/sharing" and reached):
        assert estate.ask("GET", "/v1/switches", Role.CALLER, "zeta").json() == before


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("route", OF_NO_SWITCH)
def test_the_other_routes_take_their_role(estate, route, role):
    method, path = route.split(" ")
    files = {"file": b"no switch"} if route == "POST /v1/switches" else None
    response = estate.ask(method, path, role, json=TEXT if path == "/v1/route" else None, files=files)
    expected = 200 if files is None else 422
    assert response.status_code == (expected if role.reaches(OF_NO_SWITCH[route]) else 403)


def test_lists_and_routes_show_what_one_may_see_and_nothing_of_the_rest(estate):
    estate.renew()
    lists = routed(estate)
    assert [one["id"] for one in lists["models"]] == ["base", "auto", "own", "zeta/public", "zeta/shared"]
    assert [one["name"] for one in lists["switches"]] == ["own", "public", "shared"]
    # `auto` is what it was when there was no `foreign`, to which the text is nearest; the route to the bit
    assert lists["route"] == estate.before["route"]
    for now, before in zip(lists["embeddings"], estate.before["embeddings"], strict=True):
        assert now.pop("embedding") == pytest.approx(before.pop("embedding"), abs=1e-5)
        assert now == before
    body = {"input": NEAR_FOREIGN}
    (own,) = estate.ask("POST", "/v1/route", Role.CALLER, "zeta", json=body).json()["data"]
    assert own["neighbours"][0]["name"] == "foreign"


@pytest.mark.parametrize("route", [route for route in READING if route.startswith("POST")])
def test_a_request_for_a_foreign_one_leaves_what_one_for_a_missing_one_does(estate, route):
    """Neither is fetched, applied or counted; a switch in memory is no way around its owner."""
    digest = estate.house.store.find("zeta", "foreign").digest
    assert digest in estate.house.engine.state().resident
    call(estate, route, "missing", Role.CALLER)  # so that there is a counter

    def left(kind):
        state, before = estate.house.engine.state(), estate.counts()
        call(estate, route, kind, Role.CALLER)
        after = estate.counts()
        now = estate.house.engine.state()
        assert (now.transitions, now.steps, now.resident) == (state.transitions, state.steps, state.resident)
        return {name: after[name] - before[name] for name in after if after[name] != before.get(name)}

    once = {'bitswitch_request_failure_total{code="model_not_found"}': 1.0}
    assert left("foreign") == left("missing") == once


def test_taking_a_share_back_counts_from_the_next_request_on(estate):
    body = {"model": "zeta/shared", **TEXT}
    url = "/v1/switches/shared/sharing"
    assert estate.ask("POST", "/v1/classify", Role.CALLER, json=body).status_code == 200
    try:
        nobody = estate.ask("PUT", url, Role.PUBLISHER, "zeta", json={"public": False, "tenants": []})
        assert nobody.json() == {
            "object": "switch.sharing",
            "name": "shared",
            "public": False,
            "tenants": [],
        }
        assert estate.ask("POST", "/v1/classify", Role.CALLER, json=body).status_code == 404
        assert "zeta/shared" not in str(routed(estate))
    finally:
        again = {"public": False, "tenants": ["acme", "nobody-yet"]}
        back = estate.ask("PUT", url, Role.PUBLISHER, "zeta", json=again)
        assert back.json()["tenants"] == again["tenants"]
    assert estate.ask("POST", "/v1/classify", Role.CALLER, json=body).status_code == 200


@pytest.mark.parametrize("sharing", [Sharing(public=True), Sharing(tenants=("acme",))])
def test_a_name_taken_up_again_serves_nothing_old_and_is_shared_with_nobody(estate, sharing):
    house, ask = estate.house, {"model": "zeta/phoenix", **TEXT}

    def asked():
        return estate.ask("POST", "/v1/classify", Role.CALLER, json=ask)

    house.publisher.publish(estate.bytes_of["foreign"], tenant="zeta", name="phoenix", public=False)
    house.store.share("zeta", "phoenix", sharing)
    assert asked().json()["data"][0]["labels"] == ["bad", "good"]
    house.publisher.withdraw("zeta", "phoenix", None, force=True)
    assert asked().status_code == 404
    house.publisher.publish(estate.bytes_of["public"], tenant="zeta", name="phoenix", public=False)
    assert asked().status_code == 404
    house.store.share("zeta", "phoenix", sharing)
    assert asked().json()["data"][0]["labels"] == ["bank", "film", "spam"]
    house.publisher.withdraw("zeta", "phoenix", None, force=True)


@pytest.mark.parametrize("who", ["nobody", "a wrong one", "an ended one", "a revoked one"])
def test_no_path_answers_without_a_key_but_health_and_documentation(estate, who):
    """The routes of the app and those of its OpenAPI, all of them."""
    ring, header = estate.ring, {}
    match who:
        case "a wrong one":
            header = {"authorization": f"Bearer {estate.texts['acme', Role.ADMIN][:-1]}"}
        case "an ended one":
            soon = datetime.now(UTC) + timedelta(seconds=0.05)
            header = {"authorization": f"Bearer {ring.create('acme', Role.ADMIN, expires=soon)[1]}"}
            while datetime.now(UTC) <= soon:
                pass
        case "a revoked one":
            key, text = ring.create("acme", Role.ADMIN)
            ring.revoke(key.id)
            header = {"authorization": f"Bearer {text}"}
    estate.keys.refresh()
    app = estate.house.app(keys=estate.keys)
    walked = set()
    for route in walk(app):
        method, path = route.split(" ")
        response = estate.http.request(method, filled(path, "own"), headers=header)
        if route in OPEN | DOCS:
            assert response.status_code == 200, route
        else:
            walked.add(route)
            assert response.status_code == 401, route
            assert response.headers["www-authenticate"] == "Bearer"
    assert walked == {*ROLES, NOT_A_METHOD}


def walk(app) -> set[str]:
    """Method and path of all routes there are, included routers' and the files of folders."""
    found = set()

    def visit(routes):
        for route in routes:
            if included := getattr(route, "original_router", None):
                assert not route.include_context.prefix
                visit(included.routes)
            elif isinstance(route, Mount):
                found.update(f"GET {route.path}/{name}" for name in files(route.app))
            else:  # one of another kind has no methods, and fails here
                found.update(f"{method} {route.path}" for method in route.methods - {"HEAD"})

    visit(app.routes)
    plain = {re.sub(r":path}", "}", route) for route in found}
    said = {f"{verb.upper()} {path}" for path, verbs in app.openapi()["paths"].items() for verb in verbs}
    assert said | DOCS == plain - {NOT_A_METHOD.replace(":path", "")} | DOCS
    return found


def files(mounted) -> list[str]:
    """Every file that a mounted folder serves, but for Python modules; another kind of mount fails."""
    return [
        str(path.relative_to(folder))
        for folder in mounted.all_directories
        for path in Path(folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]


def test_the_walk_finds_what_was_forgotten(estate, tmp_path):
    app = estate.house.app(keys=estate.keys)
    app.router.routes.append(APIRoute("/v1/forgotten", lambda: None))
    assert "GET /v1/forgotten" in walk(app)
    (tmp_path / "notes.txt").write_text("private")
    app.mount("/files", StaticFiles(directory=tmp_path))
    with pytest.raises(AssertionError):
        walk(app)


def test_the_settings_open_metrics_and_close_the_documentation(estate):
    app = estate.house.app(keys=estate.keys, docs=False, metrics_public=True)
    with serving(app) as address:
        assert httpx.get(f"{address}/metrics").status_code == 200
        assert httpx.get(f"{address}/v1/models").status_code == 401
        for route in DOCS:
            assert httpx.get(address + route.removeprefix("GET ")).status_code == 404
    for secret in ("zeta", "acme", "foreign"):
        assert secret not in estate.house.metrics.render().decode()


def test_a_key_tells_its_holder_whose_it_is(estate):
    for (tenant, role), text in estate.texts.items():
        told = estate.ask("GET", "/v1/key", role, tenant).json()
        assert told == {
            "object": "key",
            "id": text.split("_")[1],
            "tenant": tenant,
            "role": role.value,
            "expires": None,
        }


def test_keys_are_in_nothing_that_the_server_writes(estate):
    log, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure("debug", json=True, stream=log)
    seen = [SECRET.decode(), *(text.split("_", 2)[2] for text in estate.texts.values())]
    answers = []
    try:
        for text in estate.texts.values():
            for shown in (text, text[:-1], text + "x", f"x{text}"):
                for scheme in ("Bearer", "bearer", "Basic", "x"):
                    header = {"authorization": f"{scheme} {shown}", "x-api-key": shown}
                    answers.append(estate.http.get("/v1/key", headers=header))
                header = {"authorization": f"Bearer {shown}"}
                answers.append(estate.http.post("/v1/classify", headers=header, content=b"{"))
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)
    metrics = estate.ask("GET", "/metrics", Role.ADMIN)
    state = estate.ask("GET", "/v1/admin/state", Role.ADMIN)
    files = [path for path in estate.root.rglob("*") if path.is_file()]
    assert {"catalog.sqlite3", "catalog.sqlite3-wal"} <= {path.name for path in files}
    assert log.getvalue()
    assert {answer.status_code for answer in answers} >= {200, 400, 401}
    written = [log.getvalue().encode(), *(path.read_bytes() for path in files)]
    for answer in (*answers, metrics, state):
        written += [answer.content, str(answer.headers).encode()]
    for secret in seen:
        # half of it would be too much
        pieces = (secret[:20], secret[-20:])
        assert not [one[:80] for one in written for piece in pieces if piece.encode() in one]
