"""A base and its fine-tune → the switch that makes the one into the other, nearly.

Knows nothing of where switches are kept or of how they are applied. The rules are `paper` and `budget`;
which tensors belong together is `match`'s. Nothing here runs a model: who does may hand in a `Refinement`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from bitswitch_store import file
from bitswitch_store.budget import budget_tensors
from bitswitch_store.checkpoint import Checkpoint, CheckpointError
from bitswitch_store.match import head_of, match
from bitswitch_store.paper import paper, paper_tensors
from bitswitch_store.switch import QuerySet, Rule, Switch, SwitchError, TensorSwitch
from bitswitch_store.task_vector import Progress, TaskVector

__all__ = ["binarize", "paper"]

_PARAMETER = {"paper": "alpha", "budget": "budget"}
_NOTHING: Mapping[str, float] = {}


RefinedSizer = Callable[[Sequence[TensorSwitch], Mapping[str, float]], int]
"""Bytes of the file but for its head's, with these tensors, and these parameters beside the budget."""


class Refinement(Protocol):
    """Makes a budget's tensors better by what the weights alone do not tell, within the same bytes."""

    def __call__(
        self, vector: TaskVector, tensors: Sequence[TensorSwitch], *, limit: int, size: RefinedSizer
    ) -> tuple[Sequence[TensorSwitch], Mapping[str, float]]:
        """Better tensors, sorted by name, whose file by ``size`` takes at most ``limit`` bytes.

        With them come the parameters that the rule shall tell of them beside the budget. The given tensors
        with no parameters are an answer too: then nothing was found that is better.
        """


def binarize(
    base: Checkpoint,
    finetuned: Checkpoint,
    rule: Rule,
    *,
    task: str,
    queries: QuerySet | None = None,
    labels: Sequence[str] | None = None,
    metric: Mapping[str, float] | None = None,
    licence: str | None = None,
    progress: Progress | None = None,
    refinement: Refinement | None = None,
) -> Switch:
    """Make a switch. Both models are read tensor by tensor, never held whole.

    Args:
        base: the base; the switch's tensors have its names.
        finetuned: a fine-tune of it, in any of F32, F16 and BF16; τ is computed in float32.
        rule: ``Rule("paper", {"alpha": α})``, 0 ≤ α < 1, or ``Rule("budget", {"budget": share})``: the
            switch file takes, its head's tensors aside, at most this share of the base's weights in
            float32. A head is the task's own and kept as it is, so many labels leave as much to the rest.
        task: the task's name.
        queries: the task's query set, if the switch shall be found by Auto-Switch.
        labels: label names in the order of the outputs, instead of the fine-tune's own.
        metric: figures on the task's test set.
        licence: of the fine-tune.
        progress: told (tensor name, how many-th, of how many) as tensors are read.
        refinement: what is done to the budget rule's tensors before they are the switch's.

    Raises:
        CheckpointError: the fine-tune is none of this base, changes nothing, or has a weight that is
            not finite.
        SwitchError: the rule or its parameter is not one of these, or the budget cannot be met.
    """
    value = _parameter(rule)
    if refinement is not None and rule.name != "budget":
        raise SwitchError(f"the rule {rule.name} has no bytes to keep to; calibrate with 'budget'")
    found = match(base, finetuned)
    head = head_of(finetuned, found.head, None if labels is None else tuple(labels))
    vector = TaskVector(base, finetuned, found.tensors, progress)
    if not found.head and all(not vector.read(name).any() for name in vector.names):
        raise CheckpointError("the fine-tune has no head and the base's own weights: it changes nothing")
    created = datetime.now(UTC).isoformat(timespec="seconds")

    def switch(tensors: Sequence[TensorSwitch], told: Mapping[str, float] = _NOTHING) -> Switch:
        return Switch(
            base=base.identity(),
            rule=Rule(rule.name, {**rule.parameters, **told}),
            tensors=tuple(tensors),
            task=task,
            head=head,
            queries=queries,
            metric=dict(metric or {}),
            licence=licence,
            created=created,
        )

    def size(tensors: Sequence[TensorSwitch], told: Mapping[str, float] = _NOTHING) -> int:
        # A switch of nothing has no file; it is asked for before the matrices of a headless one are in.
        whole = len(file.write(switch(tensors, told))) if tensors or head else 0
        return whole - (head.nbytes if head else 0)

    if rule.name == "paper":
        return switch(paper_tensors(vector, value))
    weights = sum(base.numel(name) for name in base.names)
    limit = int(4 * weights * value)
    tensors = budget_tensors(vector, limit, size)
    if refinement is None:
        return switch(tensors)
    return switch(*refinement(vector, tensors, limit=limit, size=size))


def _parameter(rule: Rule) -> float:
    """The rule's one parameter, within its range."""
    wanted = _PARAMETER.get(rule.name)
    if wanted is None:
        raise SwitchError(f"the rule {rule.name!r} is unknown; 'paper' and 'budget' are known")
    if set(rule.parameters) != {wanted}:
        raise SwitchError(
            f"the rule {rule.name} takes {wanted}, not {', '.join(rule.parameters) or 'nothing'}"
        )
    value = float(rule.parameters[wanted])
    if rule.name == "paper" and not 0 <= value < 1:
        raise SwitchError(f"alpha is {value}; it is the share of weights to drop, from 0 to below 1")
    if rule.name == "budget" and not 0 < value <= 1:
        raise SwitchError(f"budget is {value}; it is a share of the base's size, above 0 and at most 1")
    return value
