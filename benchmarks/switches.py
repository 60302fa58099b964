"""Random switches of a base's shapes, at any density: what costs the same as a real one, made in no time."""

from __future__ import annotations

import math

import numpy as np

from bitswitch.base.model import Base
from bitswitch_store import file
from bitswitch_store.store import Store
from bitswitch_store.switch import Rule, Switch, TensorSwitch


def random_switch(base: Base, density: float, seed: int) -> Switch:
    """Every parameter with this share of its weights active, each on its own; a knob per row; no head."""
    chance = np.random.default_rng(seed)
    tensors = [
        _random_tensor(name, tuple(base.parameters[name].shape), density, chance)
        for name in sorted(base.parameters)
    ]
    return Switch(base.identity, Rule("random"), tuple(tensors), f"random-{density}-{seed}")


def _random_tensor(
    name: str, shape: tuple[int, ...], density: float, chance: np.random.Generator
) -> TensorSwitch:
    numel = math.prod(shape)
    bits = np.zeros(numel, bool)
    # Hits fall with repeats: a Poisson number of them leaves each weight out with chance 1 - density.
    hits = chance.poisson(-math.log1p(-density) * numel)
    bits[chance.integers(0, numel, hits)] = True
    bits[0] = True
    up = np.unpackbits(chance.integers(0, 256, numel // 8 + 1, np.uint8))[: int(bits.sum())]
    used = bits.reshape(shape[0], -1).any(axis=1)
    # As the budget rule, which alone writes a knob per row, has them: numbers that fp16 holds.
    scales = chance.uniform(1e-5, 1e-4, shape[0]).astype(np.float16)
    knobs = np.where(used, scales, 0).astype(np.float32)
    return TensorSwitch(
        name, shape, np.packbits(bits, bitorder="little"), np.packbits(up, bitorder="little"), knobs
    )


def publish_random(store: Store, base: Base, density: float, count: int) -> list[str]:
    """Put ``count`` of them into ``store``; their names."""
    names = [f"random-{density}-{seed}" for seed in range(count)]
    for seed, name in enumerate(names):
        data = file.write(random_switch(base, density, seed))
        store.put(data, tenant="default", name=name)
    return names
