"""The only writer of weights.

`Swap.at` sets the resident weights to a mix and holds them there while its body runs. Whatever goes
wrong before a weight is written, or in the body, the base comes back bit for bit before the error goes on.
A transition that ends halfway leaves the weights `torn`: only `Swap.reload` makes them the base's again.
Knows nothing of requests, queues or heads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from bitswitch.core import Mix
from bitswitch.engine.arena import Arena
from bitswitch.engine.cpu_kernel import CpuKernel
from bitswitch.engine.kernel import Kernel
from bitswitch.engine.planes import Planes


class Swap:
    """The resident weights, and the one way to change them. For one thread at a time.

    Args:
        arena: the weights, at the base.
        whole: whether to write what is to be looked up as well; by default it stays at the base.

    Attributes:
        mix: what the weights are set to.
        active: how many weights that touches, see `Planes`, a weight counted for each switch that does.
        transitions: how many there have been.

    Raises:
        ValueError: the arena is on a device whose kernels cannot be had here.
    """

    def __init__(self, arena: Arena, *, whole: bool = False) -> None:
        self.arena = arena
        self.mix = Mix()
        self.active = 0
        self.transitions = 0
        self._kernel = _kernel(arena, arena.blocks if whole else arena.written)

    @property
    def torn(self) -> bool:
        """Whether a transition ended halfway."""
        return self._kernel.torn

    @property
    def journal_bytes(self) -> int:
        """Bytes of base values saved at present."""
        return self._kernel.journal_bytes

    @contextmanager
    def at(self, mix: Mix, planes: Sequence[Planes]) -> Iterator[float]:
        """Hold the weights at ``mix``; yields the seconds that the transition took, 0 where
        none was needed.

        When the body ends well the weights stay, so that the next group of the same mix pays nothing
        and another one goes straight there. When it raises, the base is restored first, unless `torn`.

        Args:
            mix: the weights to hold.
            planes: its switches, in the mix's order.
        """
        try:
            seconds = 0.0
            if mix != self.mix:
                started = time.perf_counter()
                self._go(mix, planes)
                seconds = time.perf_counter() - started
            yield seconds
        except BaseException:
            if not self.torn:  # then the journal is worth nothing
                self.rest()
            raise

    def warm_up(self) -> None:
        """Compile the kernels, and on a CUDA device let them prove themselves.

        Raises:
            RuntimeError: they do not do there what they must.
        """
        self._kernel.warm_up()

    def rest(self) -> None:
        """Go back to the bare base."""
        if self.mix:
            self._go(Mix(), ())

    def reload(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Write the base anew, whatever the weights are now; nothing that the journal holds is used.

        Args:
            weights: each of the arena's parameters, in its shape and dtype.
        """
        for name, values in weights:
            self.arena.home(name).copy_(values)
        self._kernel.forget()
        self.mix, self.active = Mix(), 0

    def _go(self, mix: Mix, planes: Sequence[Planes]) -> None:
        self._kernel.transition(planes, [weight for _, weight in mix])
        self.mix = mix
        self.active = sum(one.active for one in planes)
        self.transitions += 1


def _kernel(arena: Arena, blocks: int) -> Kernel:
    if not arena.triton:
        return CpuKernel(arena, blocks)
    try:
        from bitswitch.engine.cuda_kernel import CudaKernel  # noqa: PLC0415 - Triton is an extra
    except ImportError as error:
        raise ValueError(
            f"device {arena.device} needs Triton ({error}); install it with pip install 'bitswitch[cuda]'"
        ) from error
    return CudaKernel(arena)
