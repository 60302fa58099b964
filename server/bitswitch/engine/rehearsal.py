"""What a device's kernels do to a sample, before they may do it to a base.

The sample has every case that a kernel tells apart: lists of offsets and bit planes, knobs per row and
per tensor, mixes of one and of several switches, each after another. The CPU's kernels are the judge: of
transitions to the bit, of mixed batches within the dtype's rounding. Knows nothing of the base that is
served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from bitswitch.engine.additions import Additions
from bitswitch.engine.arena import Arena
from bitswitch.engine.cpu_additions import CpuAdditions, Room
from bitswitch.engine.cpu_kernel import CpuKernel
from bitswitch.engine.kernel import Kernel
from bitswitch.engine.mixes import Part
from bitswitch.engine.needs import Columns
from bitswitch.engine.planes import Planes
from bitswitch_store.switch import BaseIdentity, Rule, Switch, TensorSwitch

SHAPES: Mapping[str, tuple[int, ...]] = {
    "wide": (2, 5000),
    "narrow": (90, 50),
    "even": (40, 160),
    "vector": (300,),
}
DENSITIES = (0.02, 0.05, 0.4)
MIXES: tuple[tuple[tuple[int, float], ...], ...] = (
    ((0, 1.0),),
    ((2, 0.7),),
    ((0, 0.3), (1, -0.6)),
    ((0, 0.3), (1, 1.1), (2, 0.4)),
    ((1, 1.0),),
    (),
)
LENGTHS = (3, 40, 1, 6)
ROWS = (MIXES[2], MIXES[1], (), MIXES[3])
"""The mix of each row of a batch, of `LENGTHS` tokens."""
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""How far sums may lie apart, as a share of the largest: they are added in another order, and rounded."""


def rehearse(make: Callable[[Arena], Kernel], device: torch.device, dtype: torch.dtype) -> None:
    """Let a device's kernel set sample weights to `MIXES` in turn.

    Args:
        make: the kernel of an arena on that device.
        device, dtype: as the base will have them.

    Raises:
        RuntimeError: a weight differs from what the CPU's kernel makes of it.
    """
    here, own = _side(torch.device("cpu"), dtype, triton=False)
    there, theirs = _side(device, dtype, triton=True)
    judge, judged = CpuKernel(here, here.blocks), make(there)
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


def rehearse_additions(
    make: Callable[[Sequence[int], Sequence[Sequence[Part]], Columns, Arena], Additions],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Let a device add the parts of a sample's switches to the outputs of layers.

    Args:
        make: the additions of a batch, on that device.
        device, dtype: as the base will have them.

    Raises:
        RuntimeError: a sum is not what the CPU's kernels make of it.
    """
    here, own = _side(torch.device("cpu"), dtype, triton=False)
    there, theirs = _side(device, dtype, triton=True)
    # They hold the base's norms: each side's lie where its weights do.
    columns, their_columns = (Columns(arena, ["vector"], ["narrow"]) for arena in (here, there))
    right = _sums(CpuAdditions(LENGTHS, _parts(own), columns, Room()), here, columns)
    found = _sums(make(LENGTHS, _parts(theirs), their_columns, there), there, their_columns)
    wrong = [
        what
        for what, sums in found.items()
        if not (sums - right[what]).abs().max() <= TOLERANCE[dtype] * right[what].abs().max()
    ]
    if wrong:
        raise RuntimeError(
            f"the kernels of device {device} do not add what they must: of the sample in {dtype},"
            f" {', '.join(wrong)} came out wrong"
        )


def _sums(additions: Additions, arena: Arena, columns: Columns) -> dict[str, torch.Tensor]:
    """What a normalization comes to, and a small parameter in each row, and each matrix as a layer of tokens,
    as one of rows and as a table; float32, on the CPU.
    """
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int, spread: float) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * spread).to(arena.device, arena.dtype)

    rows, longest = len(LENGTHS), max(LENGTHS)
    small = (columns.start["narrow"], math.prod(SHAPES["narrow"]))
    each = torch.stack([additions.moves(row, *small) for row in range(rows)])
    sums = {"a norm": additions.norms, "a small parameter": each}
    for name, shape in SHAPES.items():
        if len(shape) == 1:
            continue
        outputs, inputs = shape
        tensor, block = arena.names.index(name), arena.first_block[name]
        bias = 0 if name == "narrow" else -1
        for what, vectors in (("tokens", (rows, longest)), ("rows", (rows,))):
            sums[f"{name} of {what}"] = additions.linear(
                some(*vectors, outputs, spread=0.05),
                some(*vectors, inputs, spread=1.0),
                per_token=what == "tokens",
                tensor=tensor,
                block=block,
                bias=bias,
            )
        ids = torch.arange(rows * longest, device=arena.device).view(rows, longest) * 7 % outputs
        looked_up = some(rows, longest, inputs, spread=0.05)
        sums[f"{name} as a table"] = additions.embedding(looked_up, ids, tensor=tensor, block=block)
    return {what: value.float().cpu() for what, value in sums.items()}


def _parts(planes: Sequence[Planes]) -> list[list[Part]]:
    return [[Part(planes[i], weight) for i, weight in mix] for mix in ROWS]


def _side(device: torch.device, dtype: torch.dtype, *, triton: bool) -> tuple[Arena, list[Planes]]:
    """The sample's weights and switches: the same for whoever asks."""
    generator = np.random.default_rng(0)
    base = {
        name: torch.from_numpy(generator.normal(0, 0.05, shape).astype(np.float32)).to(device, dtype)
        for name, shape in SHAPES.items()
    }
    arena = Arena(base, triton=triton)
    return arena, [Planes(arena, _switch(density, generator)) for density in DENSITIES]


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
