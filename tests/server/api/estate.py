"""Two tenants on one server, for the tests of who may see and do what.

``acme`` asks. It has ``own``; ``zeta`` has ``shared`` (with acme), ``public`` and ``foreign``, each with an
alias ``prod``; ``missing`` nobody has. The last two are as long as each other, so that answers can be
compared byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from bitswitch.tenants.caller import Role
from bitswitch.tenants.key_ring import KeyRing
from bitswitch.tenants.keys import Keys
from bitswitch_store import file
from bitswitch_store.store import Sharing
from running import BANKING, FILMS, House, serving

SECRET = b"the secret of this test's server"
KINDS = ("own", "shared", "public", "foreign", "missing")
SEEN = ("own", "shared", "public")
NEAR_FOREIGN = FILMS[0]
_TASKS = {"own": "entail", "shared": "topic", "public": "topic", "foreign": "polarity"}


def owner(kind: str) -> str:
    return "acme" if kind == "own" else "zeta"


def model(kind: str) -> str:
    """What acme writes for it."""
    return "own" if kind == "own" else f"zeta/{kind}"


@dataclass
class Estate:
    """The server, a key for each tenant and role, and what acme was answered before there was ``foreign``."""

    house: House
    keys: Keys
    ring: KeyRing
    http: httpx.Client
    texts: Mapping[tuple[str, Role], str]
    bytes_of: Mapping[str, bytes]
    before: Mapping[str, Any]
    root: Path

    def header(self, role: Role, tenant: str = "acme") -> dict[str, str]:
        return {"authorization": f"Bearer {self.texts[tenant, role]}", "x-request-id": "the-same"}

    def ask(self, method: str, url: str, role: Role, tenant: str = "acme", **more: Any) -> httpx.Response:
        return self.http.request(method, url, headers=self.header(role, tenant), **more)

    def counts(self) -> dict[str, float]:
        """The counters, once all that was answered is in them: a request is counted after its answer went."""
        self.ask("GET", "/v1/models", Role.CALLER)  # by when the loop has come to the end of those before
        text = self.house.metrics.render().decode()
        lines = re.findall(r"^(bitswitch_\S+?(?:{[^}]*})?) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in lines if "_created" not in name}

    def renew(self) -> None:
        """Acme's own as it was at first, whatever a test did with it."""
        if self.house.store.find("acme", "own") is not None:
            self.house.publisher.withdraw("acme", "own", None, force=True)
        self.publish("own")

    def publish(self, kind: str) -> None:
        store, tenant = self.house.store, owner(kind)
        entry = self.house.publisher.publish(self.bytes_of[kind], tenant=tenant, name=kind, public=False)
        store.set_alias(tenant, kind, "prod", entry.version)


@contextmanager
def opened(base: Path, files: Mapping[str, Path], root: Path) -> Iterator[Estate]:
    house = House.build(base, root)
    house.engine.start()
    ring = KeyRing(house.store.database, SECRET)
    texts = {(tenant, role): ring.create(tenant, role)[1] for tenant in ("acme", "zeta") for role in Role}
    keys = Keys(ring=ring, secret=SECRET)
    # Each other bytes, so that no digest is of two names.
    bytes_of = {
        kind: file.write(replace(file.read(files[task].read_bytes()), licence=f"of {kind}"))
        for kind, task in _TASKS.items()
    }
    with serving(house.app(keys=keys)) as address, httpx.Client(base_url=address, timeout=30) as http:
        estate = Estate(house, keys, ring, http, texts, bytes_of, {}, root)
        for kind in ("own", "shared", "public"):
            estate.publish(kind)
        house.store.share("zeta", "shared", Sharing(tenants=("acme",)))
        house.store.share("zeta", "public", Sharing(public=True))
        estate.before = routed(estate)
        estate.publish("foreign")
        # Zeta calls all it has: it is resident, whoever asks next.
        for kind in ("shared", "public", "foreign"):
            body = {"model": kind, "input": NEAR_FOREIGN}
            estate.ask("POST", "/v1/classify", Role.CALLER, "zeta", json=body).raise_for_status()
        yield estate
    house.engine.stop(10)
    house.store.close()


def routed(estate: Estate) -> dict[str, Any]:
    """What ``auto`` and the lists answer acme."""
    texts = [NEAR_FOREIGN, BANKING[0]]
    answers = {
        "route": estate.ask("POST", "/v1/route", Role.CALLER, json={"input": texts}),
        "embeddings": estate.ask(
            "POST", "/v1/embeddings", Role.CALLER, json={"model": "auto", "input": texts}
        ),
        "models": estate.ask("GET", "/v1/models", Role.CALLER),
        "switches": estate.ask("GET", "/v1/switches", Role.CALLER),
    }
    return {name: answer.json()["data"] for name, answer in answers.items()}


def told(response: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """All that a caller gets, but for the clock and the name that they sent themselves."""
    headers = [(name, value) for name, value in response.headers.multi_items() if name != "date"]
    return response.status_code, headers, re.sub(rb"foreign|missing", b"<name>", response.content)
