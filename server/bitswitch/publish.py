"""A switch comes, or goes: the store, the engine and the router agree on it.

Knows nothing of HTTP or of how a request is answered.
"""

from __future__ import annotations

import logging
import threading

from bitswitch.engine.engine import Engine
from bitswitch.errors import BitswitchError
from bitswitch.router.auto import AutoSwitch
from bitswitch_store.audit import COMMAND_LINE, Actor
from bitswitch_store.room import UNBOUNDED, Room
from bitswitch_store.store import Entry, NotStored, Store, StoreError, Upload
from bitswitch_store.switch import SwitchError

_log = logging.getLogger(__name__)


class Publisher:
    """Publishes and withdraws switches while requests are served; safe from any thread, and blocking.

    Args:
        store: where they live.
        engine: says whether one fits its base, and forgets one that nobody can name any more.
        router: chooses among those that have a query set.
    """

    def __init__(self, *, store: Store, engine: Engine, router: AutoSwitch) -> None:
        self._store = store
        self._engine = engine
        self._router = router
        self._pins: dict[str, set[str]] = {}  # by digest, the tenants who want it kept in memory
        self._turn = threading.Lock()  # or a delete could take from the router what a put just added

    def resume(self) -> int:
        """Tell the router of what the store holds already, whoever's it is.

        Returns how many switches it can choose from then.

        Reads nothing but the query sets, and of these only what the router did not keep, so that ten thousand
        stored switches cost little. One that cannot be read is logged and left out: it shall not keep the
        others from being served.
        """
        with self._turn:
            for entry in self._store.everything():
                if entry.digest in self._router or self._router.recall(entry.digest):
                    continue
                try:
                    self._router.learn(entry.digest)
                except (StoreError, SwitchError, BitswitchError) as error:
                    _log.error(
                        "%s/%s@%d is not routed to: %s", entry.tenant, entry.name, entry.version, error
                    )
            self._router.resume()
            return len(self._router)

    def publish(
        self,
        source: bytes | Upload,
        *,
        tenant: str,
        name: str | None,
        public: bool,
        room: Room = UNBOUNDED,
        by: Actor = COMMAND_LINE,
    ) -> Entry:
        """Store a switch file as the next version of its name, and serve it from now on.

        Raises:
            SwitchError: it is no switch file, or one of another base.
            InvalidSwitchError: it does not fit this server's base, or its query set not this router.
            StoreError: as `Store.put`.
        """
        incoming = self._store.read(source)
        self._engine.check(incoming.switch)
        queries = incoming.switch.queries
        with self._turn:
            known = incoming.digest in self._router
            if queries is not None:
                self._router.add(incoming.digest, queries)  # first: what it refuses shall not be stored
            try:
                return self._store.put(incoming, tenant=tenant, name=name, public=public, room=room, by=by)
            except BaseException:
                if not known:
                    self._router.remove(incoming.digest)
                raise

    def withdraw(
        self, tenant: str, name: str, version: int | None, *, force: bool, by: Actor = COMMAND_LINE
    ) -> list[Entry]:
        """Delete one version, or (None) all; bytes that no other name has are forgotten everywhere.

        Raises:
            StoreError: as `Store.delete`.
        """
        with self._turn:
            gone = self._store.delete(tenant, name, version, force=force, by=by)
            kept = {entry.digest for entry in self._store.list(tenant)}
            for digest in {entry.digest for entry in gone}:
                if digest not in kept:
                    self._drop_pin(digest, tenant)
                if not self._store.names(digest):
                    self._router.remove(digest)
                    self._engine.forget(digest)
            return gone

    def pin(self, entry: Entry) -> None:
        """Keep a switch ready in memory; returns once it is. Twice is once.

        A pin is its owner's and of these bytes: it holds until `unpin`, until the owner's last version
        with them is withdrawn, or until the server ends. A new version of the name has none.

        Raises:
            ConflictError: what is pinned would not fit into the memory for ready switches.
            NotStored: it was withdrawn meanwhile.
            UnavailableError: the engine has stopped.
        """
        digest, tenant = entry.digest, entry.tenant
        with self._turn:
            self._pins.setdefault(digest, set()).add(tenant)  # first: nobody else's unpin shall undo it
        try:
            self._engine.pin(digest, tenant=tenant)
        except BaseException:
            self.unpin(entry)
            raise
        with self._turn:
            if digest not in self._pins:  # unpinned or withdrawn while it was built
                self._engine.unpin(digest)
            if not self._store.names(digest):
                self._drop_pin(digest, tenant)  # nobody has a name left to unpin it by
                raise NotStored(f"{entry.name}@{entry.version} has been deleted")

    def unpin(self, entry: Entry) -> None:
        """Let a switch go again when memory is short, unless another tenant pins the same bytes."""
        with self._turn:
            self._drop_pin(entry.digest, entry.tenant)

    def pinned(self, entry: Entry) -> bool:
        """Whether its owner has pinned it; another's pin of the same bytes does not show."""
        return entry.tenant in self._pins.get(entry.digest, ())

    def _drop_pin(self, digest: str, tenant: str) -> None:
        owners = self._pins.get(digest, set())
        owners.discard(tenant)
        if not owners and self._pins.pop(digest, None) is not None:
            self._engine.unpin(digest)
