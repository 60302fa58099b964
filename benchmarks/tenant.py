"""One tenant of the soak: asks, publishes, moves aliases, deletes, errs and hangs up, and checks each answer.

Knows nothing of other tenants but a name that it must never see.
"""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx
import numpy as np
from numpy.typing import NDArray

from bitswitch_client import ApiError, Client, NotFoundError

CLOSE = 1e-3
"""How far two probabilities may lie apart: overlaid answers agree within rounding, others do not."""


@dataclass(frozen=True)
class Made:
    """A tenant's switch.

    Attributes:
        data: its file's bytes.
        labels: that nobody else's has.
        right: what must be answered to each text, float32 (texts, labels).
    """

    data: bytes
    labels: tuple[str, ...]
    right: NDArray[np.float32]


@dataclass(frozen=True)
class Own:
    """What a tenant has: two switches of its own, and what a mix of both must answer, .6 to .4."""

    name: str
    key: str
    switches: Mapping[str, Made]
    mixed: NDArray[np.float32]


class Tenant:
    """One tenant's calls, in a thread of its own.

    Args:
        own: what it has.
        port: of the server.
        texts: to ask with.
        foreign: another tenant's switch.
        labels: whose each label is.

    Attributes:
        counts: of what happened.
        faults: what must not have happened, in words.
    """

    def __init__(
        self, own: Own, port: int, texts: Sequence[str], *, foreign: str, labels: Mapping[str, str], seed: int
    ) -> None:
        self._own = own
        self._port = port
        self._texts = texts
        self._foreign = foreign
        self._labels = labels
        self._chance = random.Random(seed)
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {own.key}"}, timeout=60
        )
        self._client = Client(f"http://127.0.0.1:{port}", api_key=own.key, timeout=60)
        self._versions: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self, over: Callable[[], bool]) -> None:
        """Publish, then do one thing after another until it is over."""
        for name in self._own.switches:
            self._versions[name] = self._client.publish(self._own.switches[name].data, name=name).version
        ways = [
            self.by_name,
            self.by_mix,
            self.by_auto,
            self.again,
            self.foreigner,
            self.nonsense,
            self.leave,
        ]
        while not over():
            way = self._chance.choices(ways, (8, 3, 3, 1, 1, 2, 1))[0]
            try:
                way()
                self.counts[way.__name__] += 1
            except ApiError as error:
                if error.status == 429:
                    self.counts["refused"] += 1
                else:
                    self.faults.append(f"{self._own.name} {way.__name__}: {error.status} {error}")
            except Exception as error:  # noqa: BLE001 - a soak goes on and tells at its end
                self.faults.append(f"{self._own.name} {way.__name__}: {error!r}")
        self._http.close()
        self._client.close()

    def by_name(self) -> None:
        """One of its own, by name or by version."""
        name, made = self._chance.choice(list(self._own.switches.items()))
        model = self._chance.choice([name, f"{name}@{self._versions[name]}"])
        self._check(model, self._some(), made.labels, made.right)

    def by_mix(self) -> None:
        """Both, mixed."""
        (first, made), (second, _) = self._own.switches.items()
        self._check(f"{first}*0.6+{second}*0.4", self._some(), made.labels, self._own.mixed)

    def by_auto(self) -> None:
        """Whatever the router chooses is the tenant's own, and answers as the same mix does by name."""
        (number,) = self._some()[:1]
        try:
            (item,) = self._client.classify("auto", self._texts[number]).data
        except ApiError as error:
            if error.code == "route_abstained":
                return
            raise
        self._same_tenant(item.labels)
        model = "+".join(f"{part.name}*{part.weight!r}" for part in item.mix)
        (named,) = self._client.classify(model, self._texts[number]).data
        if item.label != named.label or not np.allclose(item.probs, named.probs, atol=CLOSE):
            self.counts["wrong"] += 1
            self.faults.append(f"{self._own.name} auto: {list(item.probs)} and {model}: {list(named.probs)}")
        self.counts["checked"] += 1

    def again(self) -> None:
        """Publish under a third name, alias, ask, move, delete."""
        made = self._chance.choice(list(self._own.switches.values()))
        version = self._client.publish(made.data, name="passing").version
        self._client.alias("passing", "prod", version)
        self._check("passing@prod", self._some(), made.labels, made.right)
        self._client.unalias("passing", "prod")
        self._client.delete("passing")
        try:
            self._client.classify("passing", "gone")
            self.faults.append(f"{self._own.name}: a deleted switch answers")
        except NotFoundError:
            pass

    def foreigner(self) -> None:
        """What is another's is not there."""
        tenant, _, name = self._foreign.partition("/")
        for call in (
            lambda: self._client.classify(self._foreign, "mine?"),
            lambda: self._client.switch(name, tenant=tenant),
        ):
            try:
                call()
            except NotFoundError:
                continue
            self.counts["leaks"] += 1
            self.faults.append(f"{self._own.name} sees {self._foreign}")
        for one in self._client.switches():
            if one.tenant != self._own.name:
                self.counts["leaks"] += 1

    def nonsense(self) -> None:
        """Bad input is told so, and nothing worse."""
        path, body = self._chance.choice(_NONSENSE)
        answer = self._http.post(path, content=body, headers={"content-type": "application/json"})
        if not 400 <= answer.status_code < 500:
            self.faults.append(f"{self._own.name} nonsense {path}: {answer.status_code} {answer.text[:200]}")

    def leave(self) -> None:
        """Ask, and hang up before the answer."""
        body = b'{"model": "first", "input": "who are you?"}'
        head = (
            f"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {self._own.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self._port)) as line:
            line.sendall(head.encode() + body[: self._chance.choice([10, len(body)])])

    def _some(self) -> list[int]:
        return self._chance.sample(range(len(self._texts)), self._chance.choice([1, 1, 1, 4]))

    def _check(
        self, model: str, asked: Sequence[int], labels: Sequence[str], right: NDArray[np.float32]
    ) -> None:
        answer = self._client.classify(model, [self._texts[number] for number in asked])
        for number, item in zip(asked, answer.data, strict=True):
            self.counts["checked"] += 1
            self._same_tenant(item.labels)
            if tuple(item.labels) != tuple(labels) or not np.allclose(item.probs, right[number], atol=CLOSE):
                self.counts["wrong"] += 1
                self.faults.append(f"{self._own.name} {model}: {list(item.probs)}, not {right[number]}")

    def _same_tenant(self, labels: Sequence[str]) -> None:
        if any(self._labels[label] != self._own.name for label in labels):
            self.counts["leaks"] += 1
            self.faults.append(f"{self._own.name} gets another's labels {labels}")


_NONSENSE = [
    ("/v1/classify", b"{"),
    ("/v1/classify", b'{"model": "first", "input": []}'),
    ("/v1/classify", b'{"model": "first*nan", "input": "a"}'),
    ("/v1/classify", b'{"model": "nobody-published-this", "input": "a"}'),
    ("/v1/classify", b'{"model": "base", "input": "a"}'),
    ("/v1/embeddings", b'{"model": "first", "input": 3}'),
    ("/v1/switches", b'{"file": "no form"}'),
    ("/v2/models/first/infer", b'{"inputs": []}'),
]
