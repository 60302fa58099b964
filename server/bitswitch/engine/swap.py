"""The only writer of weights.

`Swap.at` sets the resident weights to a mix and holds them there while its body runs. Whatever goes
wrong, in the transition or in the body, the base comes back bit for bit before the error goes on.
Knows nothing of requests, queues or heads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bitswitch.core import Mix
from bitswitch.engine.arena import Arena
from bitswitch.engine.cpu_kernel import CpuKernel
from bitswitch.engine.kernel import Kernel
from bitswitch.engine.planes import Planes


class Swap:
    """The resident weights, and the one way to change them. For one thread at a time.

    Args:
        arena: the weights, at the base.

    Attributes:
        mix: what the weights are set to.
        active: how many weights that touches, a weight counted for each switch that does.
        transitions: how many there have been.

    Raises:
        ValueError: the arena is on a device whose kernels cannot be had here.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.mix = Mix()
        self.active = 0
        self.transitions = 0
        self._kernel = _kernel(arena)

    @property
    def journal_bytes(self) -> int:
        """Bytes of base values saved at present."""
        return self._kernel.journal_bytes

    @contextmanager
    def at(self, mix: Mix, planes: Sequence[Planes]) -> Iterator[float]:
        """Hold the weights at ``mix``; yields the seconds that the transition took, 0 where
        none was needed.

        When the body ends well the weights stay, so that the next group of the same mix pays nothing
        and another one goes straight there. When it raises, the base is restored first.

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

    def _go(self, mix: Mix, planes: Sequence[Planes]) -> None:
        self._kernel.transition(planes, [weight for _, weight in mix])
        self.mix = mix
        self.active = sum(one.active for one in planes)
        self.transitions += 1


def _kernel(arena: Arena) -> Kernel:
    if not arena.triton:
        return CpuKernel(arena)
    try:
        from bitswitch.engine.cuda_kernel import CudaKernel  # noqa: PLC0415 - Triton is an extra
    except ImportError as error:
        raise ValueError(
            f"device {arena.device} needs Triton ({error}); install it with pip install 'bitswitch[cuda]'"
        ) from error
    return CudaKernel(arena)
