"""Random switches of any density and shape, built as values: for tests that need no fine-tune."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bitswitch_store.switch import BaseIdentity, Rule, Switch, TensorSwitch

IDENTITY = BaseIdentity("bert", "sha256:" + "0" * 64)


def random_tensor(
    name: str,
    shape: tuple[int, ...],
    density: float,
    generator: np.random.Generator,
    *,
    per_row: bool = True,
    halves: bool = False,
) -> TensorSwitch | None:
    """A tensor with a share ``density`` of its weights active; None when none came out active."""
    bits = generator.random(int(np.prod(shape))) < density
    if not bits.any():
        return None
    signs = generator.random(int(bits.sum())) < 0.5
    rows = bits.reshape(shape[0], -1).any(axis=1) if per_row else np.ones(1, bool)
    knobs = np.where(rows, generator.uniform(1e-4, 2e-2, rows.size), 0.0).astype(np.float32)
    if halves:
        knobs = knobs.astype(np.float16).astype(np.float32)
    return TensorSwitch(
        name,
        shape,
        np.packbits(bits, bitorder="little"),
        np.packbits(signs, bitorder="little"),
        knobs,
    )


def random_switch(
    shapes: Mapping[str, tuple[int, ...]],
    density: float,
    seed: int,
    *,
    base: BaseIdentity = IDENTITY,
    per_row: bool = True,
) -> Switch:
    """A headless switch of these tensors; those of even seeds have knobs that fp16 holds."""
    generator = np.random.default_rng(seed)
    tensors = [
        random_tensor(name, shapes[name], density, generator, per_row=per_row, halves=seed % 2 == 0)
        for name in sorted(shapes)
    ]
    return Switch(base, Rule("random"), tuple(t for t in tensors if t is not None), f"random-{seed}")
