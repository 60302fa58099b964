"""Whether a call is worth another try, and when. Decides only; who waits and sends is `client`.

Another try is made after 429 and 503, which say that nothing was done, and after a broken connection
if the call may be repeated. Never after another status: the same request gets the same answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import httpx

from bitswitch_client.call import Call
from bitswitch_client.errors import retry_after

NOTHING_WAS_DONE = frozenset({429, 503})
NOTHING_WAS_SENT = (httpx.ConnectError, httpx.ConnectTimeout)


@dataclass(frozen=True)
class Retries:
    """How patient a client is.

    Attributes:
        most: tries after the first; 0 for none.
        first: seconds of the first pause where the server names none; each further one is twice as long.
        longest: seconds of the longest pause. A server that asks for more gets no other try.
    """

    most: int = 3
    first: float = 0.25
    longest: float = 10.0

    def pause(
        self, call: Call[Any], outcome: httpx.Response | httpx.RequestError, *, tried: int
    ) -> float | None:
        """Seconds to wait before the next try; None when ``outcome`` is what the caller gets.

        Args:
            tried: tries made so far, at least 1.
        """
        if tried > self.most or not call.patient:
            return None
        asked = None
        if isinstance(outcome, httpx.Response):
            refused = outcome.headers.get("x-should-retry") == "false"
            if outcome.status_code not in NOTHING_WAS_DONE or refused:
                return None
            asked = retry_after(outcome.headers)
        elif not call.repeatable and not isinstance(outcome, NOTHING_WAS_SENT):
            return None
        if asked is not None:  # not all at the same moment, and none too early
            return None if asked > self.longest else asked * random.uniform(1.0, 1.25)
        return min(self.first * 2.0 ** (tried - 1), self.longest) * random.uniform(0.5, 1.0)
