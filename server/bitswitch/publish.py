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
from bitswitch_store.store import Entry, Store, StoreError, Upload
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
        self._turn = threading.Lock()  # or a delete could take from the router what a put just added

    def resume(self) -> int:
        """Tell the router of what the store holds already, whoever's it is.

        Returns how many switches it can choose from then.

        Reads nothing but the query sets, so that a thousand stored switches cost little. One that cannot be
        read is logged and left out: it shall not keep the others from being served.
        """
        with self._turn:
            for entry in self._store.everything():
                if entry.digest in self._router:
                    continue
                try:
                    queries = self._store.queries(entry.digest)
                    if queries is not None:
                        self._router.add(entry.digest, queries)
                except (StoreError, SwitchError, BitswitchError) as error:
                    _log.error(
                        "%s/%s@%d is not routed to: %s", entry.tenant, entry.name, entry.version, error
                    )
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
            for digest in {entry.digest for entry in gone}:
                if not self._store.names(digest):
                    self._router.remove(digest)
                    self._engine.forget(digest)
            return gone
