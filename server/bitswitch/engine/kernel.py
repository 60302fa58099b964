"""What `Swap` needs of a device: something that can write the weights of a mix, and undo it exactly.

One for the CPU (`cpu_kernel`, compiled by numba), one for CUDA (`cuda_kernel`, compiled by Triton). Knows
neither of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bitswitch.engine.planes import Planes


class Kernel(Protocol):
    """The kernels of one arena, with its journal; `Swap` alone calls them.

    The weight contract is the same on every device, to the bit: ``wᵢ·kᵢ`` rounded to fp32, the sum over
    the switches in the mix's order in fp32 from 0, added to the base in fp32, rounded once to the stored
    dtype, ties to even; nothing reordered, nothing fused. A weight that no switch touches keeps its bits.
    """

    @property
    def torn(self) -> bool:
        """Whether a transition began to write and did not come to its end: neither the weights nor the
        journal mean anything then, until `forget`.
        """

    @property
    def journal_bytes(self) -> int:
        """Bytes of base values saved at present."""

    def warm_up(self) -> None:
        """Compile all there is to compile.

        Raises:
            RuntimeError: the kernels do not work on this device as they must; nothing was written.
        """

    def transition(self, planes: Sequence[Planes], weights: Sequence[float]) -> None:
        """Set the resident weights from whatever mix they are at to another one, and wait for the end.

        An error that comes before the first weight is written changes nothing; after any other, `torn`.

        Args:
            planes: the switches of the new mix, in its order; none for the bare base.
            weights: their weights.
        """

    def forget(self) -> None:
        """Let go of the journal and all memory beside it: whatever is in the arena now is the base."""
