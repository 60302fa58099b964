"""What the engine does next: which of the waiting requests go together, and at which weights.

Three things can be done, and what each will cost is known from `Costs`: stay at the weights that are set and
serve who needs them; set the weights to the mix of whoever is next and serve all of that mix; or bring
the base back and serve many mixes in one pass, each row with its own switches laid over the base. The
best in tokens per second is done, within two bounds: whoever is next may be passed over for no longer than
the transition to its mix takes, the ski-rental rule (as the credits of dLoRA, Wu et al., OSDI 2024, bound
starvation); and while some tenant asks far less than another, no step is long, since its next request has
to wait for the end of one. Knows nothing of threads or of the model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from bitswitch.core import Mix
from bitswitch.engine.costs import Costs
from bitswitch.engine.job import Job

MEMORY = 1.0
"""Seconds after which what a tenant was served counts a third."""

SHORT = 2.0
"""How many times as long as a lone request a step may last while one tenant asks far less than another."""

GUEST = 1.25
"""The same for the step that serves that tenant."""

LOSS = 0.05
"""Share of its speed that a pass may lose by being no larger."""

LONGEST = 0.5
"""Seconds that several passes at one mix may take in a step: somebody may come the moment it begins. As
long as a request may wait for others by default.
"""


@dataclass(frozen=True)
class Step:
    """What to do next.

    Attributes:
        jobs: to be answered, in the order in which they were taken.
        mix: what to set the weights to.
        overlaid: whether each row brings its own mix; ``mix`` is ``()`` then.
    """

    jobs: tuple[Job, ...]
    mix: Mix
    overlaid: bool = False


class Scheduler:
    """Chooses steps. For one thread at a time.

    Args:
        costs: kept up to date by whoever carries the steps out.
        batch_tokens: tokens of a step, at most (a single larger request goes alone).
        batch_rows: inputs of a step, at most (likewise).
    """

    def __init__(self, costs: Costs, *, batch_tokens: int, batch_rows: int) -> None:
        self._costs = costs
        self._batch_tokens = batch_tokens
        self._batch_rows = batch_rows
        self._owed = 0.0
        self._several = False
        self._served: dict[str, float] = {}
        self._looked = time.monotonic()

    def choose(self, waiting: Sequence[Sequence[Job]], resident: Mix, active: int, *, overlays: bool) -> Step:
        """The next step; it serves the first job, unless staying pays and is still allowed.

        Args:
            waiting: the jobs that could be served, the oldest first, one sequence per tenant, in the order of
                their turns; none is empty.
            resident: what the weights are set to.
            active: how many weights that touches.
            overlays: whether rows of several mixes can share a pass.
        """
        first = waiting[0][0]
        seconds = self._seconds(waiting)
        several = any(job.request.mix != first.request.mix for job in _turns(waiting))
        # Where several mixes waited a step ago, they will again: whoever comes between has to be followed by
        # the way back to the base too.
        mixed = overlays and (several or self._several)
        self._several = several
        ways = [self._in_place(waiting, first, resident, active, seconds, leaves=mixed)]
        if mixed:
            ways.append(self._overlaid(waiting, first, resident, active, seconds))
        speed, step = max(ways, key=lambda way: way[0])
        stay = self._stay(waiting, first, resident, active, seconds)
        if stay is not None and stay[0] > speed:
            step = stay[1]
            self._owed += self._costs.forward(_tokens(step.jobs))
        else:
            self._owed = 0.0
        self._remember(step)
        return step

    def enough(self, jobs: Sequence[Job], *, overlaid: bool) -> float:
        """Padded tokens that one pass over such jobs should have, at most."""
        active = _work(jobs) / _tokens(jobs) if overlaid else None
        return min(self._batch_tokens, self._costs.enough(LOSS, active=active))

    def _in_place(
        self,
        waiting: Sequence[Sequence[Job]],
        first: Job,
        resident: Mix,
        active: int,
        seconds: float,
        *,
        leaves: bool,
    ) -> tuple[float, Step]:
        """Go to the first job's mix. The transition serves all who wait for it, in this step or the next.

        Where others could be overlaid, now or soon (``leaves``), the way back to the base is part of the
        price.
        """
        mix = first.request.mix
        company = [job for job in _turns(waiting) if job.request.mix == mix]
        tokens = _tokens(company)
        transition = self._costs.transition(active + first.active) if mix != resident else 0.0
        jobs = self._fill(first, company, self._most(), seconds - transition)
        back = self._costs.transition(first.active) if leaves and mix else 0.0
        return tokens / (transition + self._costs.forward(tokens) + back), Step(jobs, mix)

    def _overlaid(
        self, waiting: Sequence[Sequence[Job]], first: Job, resident: Mix, active: int, seconds: float
    ) -> tuple[float, Step]:
        """Bring the base back, if it is not, and serve whoever comes next, whatever their mix."""
        transition = self._costs.transition(active) if resident else 0.0
        everybody = list(_turns(waiting))
        tokens = self.enough(everybody, overlaid=True)
        jobs = self._fill(first, everybody, tokens, seconds - transition, overlaid=True)
        cost = transition + self._cost(jobs, overlaid=True)
        return _tokens(jobs) / cost, Step(jobs, Mix(), overlaid=True)

    def _stay(
        self, waiting: Sequence[Sequence[Job]], first: Job, resident: Mix, active: int, seconds: float
    ) -> tuple[float, Step] | None:
        """Serve those for whom the weights are right already, while the first one is owed less than a
        transition.
        """
        here = [job for job in _turns(waiting) if job.request.mix == resident]
        if first.request.mix == resident or not here:
            return None
        jobs = self._fill(here[0], here, self._most(), seconds)
        cost = self._cost(jobs)
        if self._owed + cost > self._costs.transition(active + first.active):
            return None
        return _tokens(jobs) / cost, Step(jobs, resident)

    def _most(self) -> float:
        """Tokens of a step at one mix: what takes `LONGEST`, or one large enough pass if that is more."""
        costs = self._costs
        return min(self._batch_tokens, max(costs.forward.size(LONGEST), costs.enough(LOSS)))

    def _fill(
        self, first: Job, jobs: Iterable[Job], tokens: float, seconds: float, *, overlaid: bool = False
    ) -> tuple[Job, ...]:
        """``first``, and of ``jobs`` in their order those that still fit."""
        chosen = [first]
        tokens -= first.request.tokens
        seconds -= self._cost(chosen, overlaid=overlaid)
        rows = self._batch_rows - len(first.request.rows)
        fixed = self._cost((), overlaid=overlaid)
        for job in jobs:
            cost = self._cost((job,), overlaid=overlaid) - fixed
            more, inputs = job.request.tokens, len(job.request.rows)
            if job is not first and more <= tokens and inputs <= rows and cost <= seconds:
                chosen.append(job)
                tokens -= more
                rows -= inputs
                seconds -= cost
        return tuple(chosen)

    def _cost(self, jobs: Sequence[Job], *, overlaid: bool = False) -> float:
        """Seconds that a pass over these takes."""
        cost = self._costs.forward(_tokens(jobs))
        if overlaid:
            cost += self._costs.overlay(_work(jobs))
        return cost

    def _seconds(self, waiting: Sequence[Sequence[Job]]) -> float:
        """What this step may take."""
        asked = dict(self._served)
        for jobs in waiting:
            tenant = jobs[0].request.tenant
            asked[tenant] = asked.get(tenant, 0.0) + _rows(jobs)
        much = max(asked.values()) / 2
        if min(asked.values()) > much:
            return math.inf
        short = SHORT if asked[waiting[0][0].request.tenant] > much else GUEST
        lone = min(jobs[0].request.tokens for jobs in waiting)
        # Where many share the model, nobody can expect what one would get alone.
        return max(short, len(asked) / 2) * self._costs.forward(lone)

    def _remember(self, step: Step) -> None:
        """Count the rows that each tenant was served, older ones less and less."""
        now = time.monotonic()
        fading = math.exp((self._looked - now) / MEMORY)
        self._looked = now
        served = {tenant: rows * fading for tenant, rows in self._served.items() if rows * fading > 0.1}
        for job in step.jobs:
            served[job.request.tenant] = served.get(job.request.tenant, 0.0) + len(job.request.rows)
        self._served = served


def _turns(waiting: Sequence[Sequence[Job]]) -> Iterator[Job]:
    """Everybody's first job, then everybody's second, and so on."""
    for jobs in zip_longest(*waiting):
        yield from (job for job in jobs if job is not None)


def _rows(jobs: Iterable[Job]) -> int:
    return sum(len(job.request.rows) for job in jobs)


def _work(jobs: Iterable[Job]) -> int:
    """What laying these jobs' switches over the base is measured by."""
    return sum(job.active * job.request.tokens for job in jobs)


def _tokens(jobs: Iterable[Job]) -> int:
    return sum(job.request.tokens for job in jobs)
