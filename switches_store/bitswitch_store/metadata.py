"""A switch file's metadata: what it is a fine-tune of, how it was made, what its outputs mean.

Knows nothing of arrays. Each value is a string; values that are not plain text are JSON in the one form
that `container.to_json` writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bitswitch_store.container import from_json, to_json
from bitswitch_store.switch import BaseIdentity, Rule, Switch, SwitchError

FORMAT = "bitswitch"
FORMAT_VERSION = 1

_REQUIRED = {"format", "format_version", "base_architecture", "base_digest", "rule", "task", "metric"}
_OPTIONAL = {"licence", "created", "labels", "head_config", "query_recipe"}


@dataclass(frozen=True)
class About:
    """A switch without its arrays; ``labels`` is None without a head, ``query_recipe`` without queries."""

    base: BaseIdentity
    rule: Rule
    task: str
    metric: Mapping[str, float]
    licence: str | None
    created: str
    labels: tuple[str, ...] | None
    head_config: Mapping[str, Any] | None
    query_recipe: str | None

    @classmethod
    def of(cls, switch: Switch) -> About:
        """What a switch says of itself."""
        return cls(
            base=switch.base,
            rule=switch.rule,
            task=switch.task,
            metric=switch.metric,
            licence=switch.licence,
            created=switch.created,
            labels=switch.head.labels if switch.head else None,
            head_config=switch.head.config if switch.head else None,
            query_recipe=switch.queries.recipe if switch.queries else None,
        )


def write(about: About) -> dict[str, str]:
    """The strings; `read`'s inverse."""
    parameters = {key: float(value) for key, value in about.rule.parameters.items()}
    out = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "base_architecture": about.base.architecture,
        "base_digest": about.base.digest,
        "rule": to_json({"name": about.rule.name, "parameters": parameters}),
        "task": about.task,
        "metric": to_json({key: float(value) for key, value in about.metric.items()}),
    }
    if about.licence is not None:
        out["licence"] = about.licence
    if about.created:
        out["created"] = about.created
    if about.labels is not None:
        out["labels"] = to_json(list(about.labels))
        out["head_config"] = to_json(dict(about.head_config or {}))
    if about.query_recipe is not None:
        out["query_recipe"] = about.query_recipe
    return out


def read(strings: Mapping[str, str]) -> About:
    """What the strings say.

    Raises:
        SwitchError: these strings are not what `write` makes.
    """
    if strings.get("format") != FORMAT:
        raise SwitchError("not a switch: the metadata do not say format 'bitswitch'")
    version = strings.get("format_version")
    if version != str(FORMAT_VERSION):
        raise SwitchError(f"format version {version!r} is unknown; {FORMAT_VERSION} is read")
    missing = sorted(_REQUIRED - strings.keys())
    unknown = sorted(strings.keys() - _REQUIRED - _OPTIONAL)
    if missing or unknown:
        raise SwitchError(f"the metadata lack {missing} and have the unknown {unknown}")
    if ("labels" in strings) != ("head_config" in strings):
        raise SwitchError("the metadata have labels or a head_config, but not both")
    about = About(
        base=BaseIdentity(strings["base_architecture"], strings["base_digest"]),
        rule=_rule(from_json(strings["rule"], "the rule")),
        task=strings["task"],
        metric=_figures(from_json(strings["metric"], "the metric"), "the metric"),
        licence=strings.get("licence"),
        created=strings.get("created", ""),
        labels=_labels(from_json(strings["labels"], "labels")) if "labels" in strings else None,
        head_config=_config(from_json(strings["head_config"], "head_config"))
        if "labels" in strings
        else None,
        query_recipe=strings.get("query_recipe"),
    )
    for key, text in write(about).items():
        if strings.get(key) != text:
            raise SwitchError(f"the metadata's {key} is not in canonical form; that is {text[:80]}")
    if "created" in strings:
        _check_moment(about.created)
    return about


def _rule(value: object) -> Rule:
    if (
        not isinstance(value, dict)
        or set(value) != {"name", "parameters"}
        or not isinstance(value["name"], str)
    ):
        raise SwitchError("the rule is not an object of a name and parameters")
    return Rule(value["name"], _figures(value["parameters"], "the rule's parameters"))


def _figures(value: object, what: str) -> dict[str, float]:
    if not isinstance(value, dict) or not all(
        isinstance(v, float) and math.isfinite(v) for v in value.values()
    ):
        raise SwitchError(f"{what} is not an object of finite decimal numbers such as 1.0")
    return value


def _check_moment(text: str) -> None:
    try:
        offset = datetime.fromisoformat(text).utcoffset()
    except ValueError:
        offset = None
    if offset != timedelta(0):
        raise SwitchError(f"created is {text!r}; a UTC time such as 2026-01-31T12:00:00Z is read")


def _labels(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise SwitchError("labels are not a list of strings")
    return tuple(value)


def _config(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SwitchError("head_config is not a JSON object")
    return value
