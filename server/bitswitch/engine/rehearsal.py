"""A transition there and back on a device, on a sample, before it may write a base's weights.

The sample has every case that a kernel tells apart: lists of offsets and bit planes, knobs per row and
per tensor, mixes of one and of several switches, each after another. The CPU's kernel is the judge, to
the bit. Knows nothing of the base that is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from bitswitch.engine.arena import Arena
from bitswitch.engine.cpu_kernel import CpuKernel
from bitswitch.engine.kernel import Kernel
from bitswitch.engine.planes import Planes
from bitswitch_store.switch import BaseIdentity, Rule, Switch, TensorSwitch

SHAPES: Mapping[str, tuple[int, ...]] = {"wide": (2, 5000), "narrow": (90, 50), "vector": (300,)}
DENSITIES = (0.02, 0.05, 0.4)
MIXES: tuple[tuple[tuple[int, float], ...], ...] = (
    ((0, 1.0),),
    ((2, 0.7),),
    ((0, 0.3), (1, -0.6)),
    ((0, 0.3), (1, 1.1), (2, 0.4)),
    ((1, 1.0),),
    (),
)


def rehearse(make: Callable[[Arena], Kernel], device: torch.device, dtype: torch.dtype) -> None:
    """Let a device's kernel set sample weights to `MIXES` in turn.

    Args:
        make: the kernel of an arena on that device.
        device, dtype: as the base will have them.

    Raises:
        RuntimeError: a weight differs from what the CPU's kernel makes of it.
    """
    generator = np.random.default_rng(0)
    base = {
        name: torch.from_numpy(generator.normal(0, 0.05, shape).astype(np.float32)).to(dtype)
        for name, shape in SHAPES.items()
    }
    here = Arena({name: tensor.clone() for name, tensor in base.items()}, triton=False)
    there = Arena({name: tensor.clone().to(device) for name, tensor in base.items()}, triton=True)
    judge, judged = CpuKernel(here), make(there)
    switches = [_switch(density, generator) for density in DENSITIES]
    own = [Planes(here, switch) for switch in switches]
    theirs = [Planes(there, switch) for switch in switches]
    for mix in MIXES:
        weights = [weight for _, weight in mix]
        judge.transition([own[i] for i, _ in mix], weights)
        judged.transition([theirs[i] for i, _ in mix], weights)
        differing = int((here.flat.view(torch.uint8) != there.flat.cpu().view(torch.uint8)).sum())
        if differing:
            raise RuntimeError(
                f"the kernels of device {device} do not write the weights they must: {differing} bytes of"
                f" {here.flat.nbytes} in {dtype} differ at mix {mix} of the sample; serve with device cpu"
            )


def _switch(density: float, generator: np.random.Generator) -> Switch:
    tensors = []
    for name, shape in SHAPES.items():
        active = generator.random(shape) < density
        up = generator.random(int(active.sum())) < 0.5
        used = active.any(axis=1) if len(shape) > 1 else np.ones(1, bool)
        knobs = np.where(used, generator.uniform(1e-4, 2e-2, used.size), 0).astype(np.float32)
        tensors.append(
            TensorSwitch(
                name,
                shape,
                np.packbits(active.ravel(), bitorder="little"),
                np.packbits(up, bitorder="little"),
                knobs,
            )
        )
    identity = BaseIdentity("rehearsal", "sha256:" + "0" * 64)
    return Switch(identity, Rule("rehearsal"), tuple(sorted(tensors, key=lambda t: t.name)), "rehearsal")
