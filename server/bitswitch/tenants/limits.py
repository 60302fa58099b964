"""What a tenant may use, and how much of it is left: requests and tokens by the minute, requests at once.

Knows nothing of HTTP, nor of where a tenant's limits are written down. Counts live in this process alone:
several servers over one store each grant the whole. A minute is a sliding one: what was used in the minute
before counts less the longer ago it is (`limits.strategies.SlidingWindowCounterRateLimiter`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from bitswitch.errors import InputTooLongError, RateLimitedError
from bitswitch_store.room import Room

_MINUTE = 60.0


@dataclass(frozen=True)
class Limits:
    """What one tenant may have and use; None is no limit.

    Attributes:
        concurrent_requests: requests that are being answered at the same time.
        stored_bytes: of all its versions' files.
        stored_switches: versions of all its names.
        batch_inputs: inputs of one request.
        input_tokens: tokens of one input, special ones included.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    stored_bytes: int | None = None
    stored_switches: int | None = None
    batch_inputs: int | None = None
    input_tokens: int | None = None

    @property
    def room(self) -> Room:
        """What it may have stored."""
        return Room(self.stored_bytes, self.stored_switches)


class Rate:
    """So many of something in a minute, for each tenant; from any thread."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._storage = MemoryStorage()
        self._strategy = SlidingWindowCounterRateLimiter(self._storage)
        self._lock = threading.Lock()  # the storage counts wrongly where two threads meet at a new window

    def take(self, tenant: str, most: int, count: int) -> None:
        """Use ``count``, or nothing.

        Raises:
            RateLimitedError: so many are not left; it says when they will be.
            InputTooLongError: so many never will be.
        """
        if count > most:
            raise InputTooLongError(
                f"The request takes {count} {self.what}; tenant {tenant!r} has {most} per minute:"
                " send fewer inputs at a time."
            )
        item = RateLimitItemPerMinute(most)
        with self._lock:
            if not self._strategy.hit(item, tenant, cost=count):
                raise self._exceeded(item, tenant, count)

    def check(self, tenant: str, most: int) -> None:
        """Whether any is left, using none. Raises as `take` does."""
        item = RateLimitItemPerMinute(most)
        with self._lock:
            if not self._strategy.test(item, tenant):
                raise self._exceeded(item, tenant, 1)

    def headers(self, tenant: str, most: int) -> dict[str, str]:
        """How it stands, under OpenAI's names."""
        item = RateLimitItemPerMinute(most)
        with self._lock:
            left = self._strategy.get_window_stats(item, tenant).remaining
            before, before_left, now, now_left = self._window(item, tenant)
        reset = now_left if now else before_left if before else 0.0
        return {
            f"x-ratelimit-limit-{self.what}": str(most),
            f"x-ratelimit-remaining-{self.what}": str(left),
            f"x-ratelimit-reset-{self.what}": f"{reset:.3f}s",
        }

    def _exceeded(self, item: RateLimitItemPerMinute, tenant: str, count: int) -> RateLimitedError:
        wait = self._wait(item, tenant, count)
        return RateLimitedError(
            f"Rate limit: tenant {tenant!r} has {item.amount} {self.what} per minute, and {count} more are"
            f" too many now; try again in {wait:.1f} s.",
            retry_after=wait,
        )

    def _wait(self, item: RateLimitItemPerMinute, tenant: str, count: int) -> float:
        """Seconds until ``count`` are left, if nobody uses any meanwhile."""
        before, before_left, now, now_left = self._window(item, tenant)
        room = item.amount - count + 1  # what counts has to be less: the library rounds it down
        if now < room:  # once the minute before counts little enough
            wait = before_left - _MINUTE * (room - now) / max(before, 1)
        else:  # once this one is the minute before, and counts little enough
            wait = now_left - _MINUTE + _MINUTE * max(0.0, 1 - room / now)
        return max(0.0, wait) + 0.001

    def _window(self, item: RateLimitItemPerMinute, tenant: str) -> tuple[int, float, int, float]:
        """Counts of the last and of this minute of the clock, and seconds for which each is remembered."""
        return self._storage.get_sliding_window(item.key_for(tenant), item.get_expiry())


class Permit:
    """Leave to answer one request; `Quotas.admit` gives it, and whoever has it releases it in the end."""

    def __init__(self, tenant: str, limits: Limits, quotas: Quotas) -> None:
        self.limits = limits
        self._tenant = tenant
        self._quotas = quotas
        self._held = True

    def check_inputs(self, count: int) -> None:
        """InputTooLongError if one request may not have so many inputs."""
        most = self.limits.batch_inputs
        if most is not None and count > most:
            raise InputTooLongError(
                f"There are {count} inputs; tenant {self._tenant!r} may send {most} in one request.",
                param="input",
            )

    def charge(self, lengths: Sequence[int]) -> None:
        """Use the tokens of these inputs; before they are computed, or not at all.

        Raises:
            InputTooLongError: an input has more tokens than one may have, or all more than a minute has.
            RateLimitedError: the minute has no more so many.
        """
        most = self.limits.input_tokens
        for index, length in enumerate(lengths):
            if most is not None and length > most:
                raise InputTooLongError(
                    f"Input {index} has {length} tokens; one of tenant {self._tenant!r} may have {most}.",
                    param=f"input.{index}",
                )
        if (tokens := self.limits.tokens_per_minute) is not None:
            self._quotas.tokens.take(self._tenant, tokens, sum(lengths))

    def headers(self) -> dict[str, str]:
        """How the tenant's rates stand, as response headers; none without limits."""
        told: dict[str, str] = {}
        if self.limits.requests_per_minute is not None:
            told |= self._quotas.requests.headers(self._tenant, self.limits.requests_per_minute)
        if self.limits.tokens_per_minute is not None:
            told |= self._quotas.tokens.headers(self._tenant, self.limits.tokens_per_minute)
        return told

    def release(self) -> None:
        """The request has ended. Twice is once."""
        if self._held:
            self._held = False
            self._quotas.ended(self._tenant)


class Quotas:
    """Admits requests by their tenants' limits; from any thread, and without asking anybody.

    Args:
        read: the limits of every tenant that has its own; asked by `refresh` alone.
        default: those of all others.
    """

    def __init__(self, read: Callable[[], Mapping[str, Limits]], default: Limits) -> None:
        self.requests = Rate("requests")
        self.tokens = Rate("tokens")
        self._read = read
        self._default = default
        self._own: Mapping[str, Limits] = {}
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read the limits anew; what `read` raises leaves them as they were."""
        self._own = self._read()

    def of(self, tenant: str) -> Limits:
        """What a tenant may have and use."""
        return self._own.get(tenant, self._default)

    def admit(self, tenant: str) -> Permit:
        """Let a request in, and count it.

        Raises:
            RateLimitedError: the tenant has too many at once, or too many in this minute.
        """
        limits = self.of(tenant)
        with self._lock:
            most = limits.concurrent_requests
            if most is not None and self._running[tenant] >= most:
                raise RateLimitedError(
                    f"Concurrency limit: tenant {tenant!r} may have {most} requests answered at once;"
                    " try again when one has ended.",
                    retry_after=1.0,
                )
            if limits.tokens_per_minute is not None:
                self.tokens.check(tenant, limits.tokens_per_minute)
            if limits.requests_per_minute is not None:
                self.requests.take(tenant, limits.requests_per_minute, 1)
            self._running[tenant] += 1
        return Permit(tenant, limits, self)

    def ended(self, tenant: str) -> None:
        """`Permit.release` calls this."""
        with self._lock:
            self._running[tenant] -= 1
            if not self._running[tenant]:
                del self._running[tenant]
