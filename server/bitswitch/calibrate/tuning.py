"""How far each row and each bias of a calibrated switch goes, learned: the bits stay as they are.

Layer by layer the fit looks at each layer's own answers; what the model says in the end is only seen here, by
gradient descent on the divergence from the fine-tune. Of the millions of bits none moves, so a few steps do,
and they cost no byte. Knows nothing of files or budgets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bitswitch.calibrate.pair import Pair
from bitswitch_store import planes
from bitswitch_store.budget import above
from bitswitch_store.knobs import rounded
from bitswitch_store.switch import TensorSwitch

STEPS = 50
"""Steps of Adam."""

_TOKENS = 512
"""Of the texts of one step, padded, at most; two texts at least."""

_RATES = 0.01, 0.03
"""Of the logarithms of knobs, and of the vectors in units of what they move in the mean."""


def tuned(pair: Pair, tensors: Sequence[TensorSwitch], *, seed: int) -> tuple[TensorSwitch, ...]:
    """The same bits of the matrices of ``pair.layers`` with better knobs, better vectors, and the rest.

    Args:
        pair: both models, and the texts to fit to; its switched model is set to ``tensors``, and stays so.
        tensors: of the switch, sorted by name.
        seed: of the order of the texts.

    Returns:
        tensors as given, sorted by name.
    """
    matrices = {one.name: one for one in tensors if one.name in pair.layers}
    vectors = {one.name: one for one in tensors if len(one.shape) == 1 and one.name in pair.base}
    if not matrices and not vectors:  # embeddings alone, or a head alone
        return tuple(tensors)
    signs = {name: torch.from_numpy(planes.unpack(one)).float() for name, one in matrices.items()}
    knobs = {name: torch.from_numpy(_per_row(one)) for name, one in matrices.items()}
    moved = {name: torch.from_numpy(planes.moved(one)) for name, one in vectors.items()}
    # What stays as the base has it costs no byte, so it shall stay.
    units = {name: tau.abs().mean() * (tau != 0) for name, tau in moved.items()}
    stretches = {name: torch.zeros_like(one, requires_grad=True) for name, one in knobs.items()}
    shifts = {name: torch.zeros_like(one, requires_grad=True) for name, one in moved.items()}

    def values() -> dict[str, torch.Tensor]:
        found = {}
        for name, stretch in stretches.items():
            rows = (knobs[name] * stretch.exp()).unsqueeze(1)
            found[name] = pair.base[name] + signs[name] * rows
        for name, shift in shifts.items():
            found[name] = pair.base[name] + moved[name] + units[name] * shift
        return found

    with torch.enable_grad():
        groups = [
            {"params": list(some.values()), "lr": rate}
            for some, rate in zip((stretches, shifts), _RATES, strict=True)
        ]
        adam = torch.optim.Adam(groups)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
        for places in _batches(pair.lengths, STEPS, seed):
            adam.zero_grad()
            loss = pair.divergence(values(), places).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            rate.step()
    found = [one for one in tensors if one.name not in matrices and one.name not in vectors]
    for name, stretch in stretches.items():
        one = matrices[name]
        rows = rounded((knobs[name] * stretch.detach().exp()).numpy())
        # A row keeps the knob it had where the new one would round to nothing.
        kept = np.where((rows > 0) | (one.knobs == 0), rows, _per_row(one))
        found.append(TensorSwitch(name, one.shape, one.activation, one.polarity, kept))
    for name, shift in shifts.items():
        found += above(name, (moved[name] + units[name] * shift.detach()).numpy(), 0.0)
    return tuple(sorted(found, key=lambda one: one.name))


def _per_row(tensor: TensorSwitch) -> np.ndarray:
    """Its knobs, float32 (rows,)."""
    return np.broadcast_to(tensor.knobs, tensor.shape[:1]).copy()


def _batches(lengths: torch.Tensor, steps: int, seed: int) -> list[torch.Tensor]:
    """Places of texts for each step: all of them in turn, and again, in another order each time."""
    generator = torch.Generator().manual_seed(seed)
    size = max(2, _TOKENS // int(lengths.max()))
    rounds = -(-steps * size // len(lengths))
    order = torch.cat([torch.randperm(len(lengths), generator=generator) for _ in range(rounds)])
    return [order[step * size : (step + 1) * size] for step in range(steps)]
