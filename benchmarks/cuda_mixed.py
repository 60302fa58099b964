"""What a layer of a mixed batch costs on a CUDA GPU: the base's product, and the parts of the rows' switches.

Beside what else could be done for a layer: unpack each switch's part of the matrix to the base's dtype and
multiply it with the rows that need it (``torch``, a product per switch). That rival is given the signs as
bytes, ready on the device, so it pays for widening and scaling them, not for reading marks. One token a
row, as in decoding; medians over the rounds; ratios are to the base's product. Sums are compared before
anything is timed. Knows nothing of transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bitswitch.engine.arena import Arena
from bitswitch.engine.cuda_additions import CudaAdditions
from bitswitch.engine.mixes import Part
from bitswitch.engine.needs import Columns
from bitswitch.engine.planes import Planes
from bitswitch_store.switch import BaseIdentity, Rule, Switch, TensorSwitch

ROWS = (1, 16, 64, 256)
SWITCHES = (1, 4, 16, 64)
WEIGHT = 0.7
_APART = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}

Seconds = Callable[[Callable[[], object]], float]


@dataclass(frozen=True, eq=False)
class Dense:
    """A switch's part of the matrix, as the rival has it: int8 (side, side) and float32 (side, 1)."""

    signs: torch.Tensor
    knobs: torch.Tensor


class Layer:
    """One square matrix of a base, and switches of it.

    Args:
        side: its rows and columns.
        density: share of its weights that each switch touches; a knob per row.
        count: switches.
        device, dtype: of the base.
    """

    def __init__(
        self, side: int, density: float, count: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        matrix = torch.randn(side, side, device=device).mul_(side**-0.5).to(dtype)
        self.arena = Arena({"matrix": matrix}, triton=True)
        self.matrix = matrix  # a view of the arena now
        self.columns = Columns(self.arena, [], [])
        self.planes: list[Planes] = []
        self.dense: list[Dense] = []
        for seed in range(count):
            self._add(side, density, np.random.default_rng(seed))

    def _add(self, side: int, density: float, chance: np.random.Generator) -> None:
        active = chance.random((side, side), np.float32) < density
        up = chance.random((side, side), np.float32) < 0.5
        knobs = np.where(active.any(axis=1), chance.uniform(1e-3, 1e-2, side), 0).astype(np.float32)
        bits = (np.packbits(plane.ravel(), bitorder="little") for plane in (active, up[active]))
        switch = Switch(
            BaseIdentity("random", "sha256:" + "0" * 64),
            Rule("random"),
            (TensorSwitch("matrix", (side, side), *bits, knobs),),
            "random",
        )
        self.planes.append(Planes(self.arena, switch))
        signs = torch.from_numpy(np.where(active, np.where(up, 1, -1), 0).astype(np.int8))
        self.dense.append(
            Dense(signs.to(self.arena.device), torch.tensor(knobs)[:, None].to(self.arena.device))
        )

    def base(self, x: torch.Tensor) -> torch.Tensor:
        """The base's product."""
        return torch.nn.functional.linear(x, self.matrix)

    def additions(self, rows: int, switches: int) -> CudaAdditions:
        """What a batch sends to the device; each row has one switch, in turn."""
        parts = [[Part(self.planes[i % switches], WEIGHT)] for i in range(rows)]
        return CudaAdditions([1] * rows, parts, self.columns, self.arena)

    def mixed(self, additions: CudaAdditions, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The parts of all switches, added to ``y`` by our kernel."""
        return additions.linear(y, x, per_token=True, tensor=0, block=0, bias=-1)

    def unpacked(self, x: torch.Tensor, y: torch.Tensor, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """The same by an unpacked matrix and a product per switch; ``rows`` are each one's."""
        for dense, own in zip(self.dense, rows, strict=False):
            part = (dense.signs * (WEIGHT * dense.knobs)).to(x.dtype)
            y.index_add_(0, own, torch.nn.functional.linear(x[own], part))
        return y


@torch.inference_mode()
def measure(layer: Layer, rows: int, switches: int, seconds: Seconds) -> dict[str, float]:
    """Seconds of the base's product, of what a batch sends, of our kernel and of the rival.

    Raises:
        SystemExit: our sums are not the rival's.
    """
    x = torch.randn(rows, 1, layer.matrix.shape[1], device=layer.matrix.device).to(layer.matrix.dtype)
    flat = x[:, 0]
    own = [torch.arange(s, rows, switches, device=x.device) for s in range(switches)]
    additions = layer.additions(rows, switches)
    nothing = torch.zeros_like(layer.base(x))
    ours = layer.mixed(additions, x, nothing.clone())[:, 0].float()
    theirs = layer.unpacked(flat, nothing.clone()[:, 0], own).float()
    if not (ours - theirs).abs().max() <= _APART[x.dtype] * theirs.abs().max():
        raise SystemExit(f"The sums differ at {rows} rows of {switches} switches.")
    y = nothing.clone()
    return {
        "base": seconds(lambda: layer.base(x)),
        "sent": seconds(lambda: layer.additions(rows, switches)),
        # A fresh view each time, so that the tokens are laid side by side anew.
        "mixed": seconds(lambda: layer.mixed(additions, x.view(x.shape), y)),
        "unpacked": seconds(lambda: layer.unpacked(flat, y[:, 0], own)),
    }


def table(side: int, density: float, *, device: torch.device, dtype: torch.dtype, seconds: Seconds) -> None:
    """Print what a layer costs at `ROWS` and `SWITCHES`."""
    layer = Layer(side, density, max(SWITCHES), device=device, dtype=dtype)
    print(f"\n| {side}² weights, {dtype}, density {density}: rows × switches |", end="")
    print(" base, µs | + mixed | + unpacked | sent per pass, µs |\n|---|---|---|---|---|")
    for rows in ROWS:
        for switches in (count for count in SWITCHES if count <= rows):
            found = measure(layer, rows, switches, seconds)
            mixed, unpacked = (1 + found[what] / found["base"] for what in ("mixed", "unpacked"))
            print(
                f"| {rows} × {switches} | {found['base'] * 1e6:.1f} | {mixed:.2f} | {unpacked:.2f} |"
                f" {found['sent'] * 1e6:.1f} |",
                flush=True,
            )
