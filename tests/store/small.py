"""Small switches, made here value by value: what the store's tests put in and take out."""

from __future__ import annotations

import numpy as np

from bitswitch_store.switch import BaseIdentity, Head, QuerySet, Rule, Switch, TensorSwitch

BASE = BaseIdentity("bert", "sha256:" + "b" * 64)
OTHER_BASE = BaseIdentity("roberta", "sha256:" + "c" * 64)


def small_switch(
    seed: int = 0,
    *,
    task: str = "trec6",
    base: BaseIdentity = BASE,
    labels: tuple[str, ...] | None = ("no", "yes"),
    rows: int = 8,
) -> Switch:
    """A switch of one (rows, 12) tensor at a density of about 0.3; another seed, another switch."""
    random = np.random.default_rng(seed)
    active = random.random((rows, 12)) < 0.3
    active[:, 0] = True
    tensor = TensorSwitch(
        name="encoder.layer.0.weight",
        shape=active.shape,
        activation=np.packbits(active.reshape(-1), bitorder="little"),
        polarity=np.packbits(random.random(int(active.sum())) < 0.5, bitorder="little"),
        knobs=random.uniform(0.01, 0.1, rows).astype(np.float32),
    )
    head = labels and Head(
        tensors={"classifier.weight": random.normal(size=(len(labels), 12)).astype(np.float32)},
        config={"model_type": base.architecture},
        labels=labels,
    )
    return Switch(
        base=base,
        rule=Rule("budget", {"share": 0.01}),
        tensors=(tensor,),
        task=task,
        head=head or None,
        queries=QuerySet.of(random.normal(size=(4, 12)), "hidden:1|mean|l2"),
        metric={"accuracy": 0.5 + seed / 1000},
        created="2025-11-22T06:00:00+00:00",
    )
