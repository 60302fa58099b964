"""Mixed batches by the Triton kernels, in Triton's interpreter, against those by the CPU's.

Run by `test_cuda.py`, like `interpreted_cuda.py` and for the same reason.
"""

import numpy as np
import pytest
import torch

from bitswitch.base.load import load
from bitswitch.core import Row
from bitswitch.engine import overlay as overlay_module
from bitswitch.engine import rehearsal
from bitswitch.engine.arena import Arena
from bitswitch.engine.cuda_additions import CudaAdditions
from bitswitch.engine.mixes import Part
from bitswitch.engine.needs import Columns
from bitswitch.engine.overlay import Overlay
from bitswitch.engine.planes import Planes
from switches import random_switch
from tiny import make_base

CPU = torch.device("cpu")
WORDS = 60
# Lists of offsets alone, both kinds of blocks, bit planes alone; the last one leaves most tensors alone.
DENSITIES = (0.015, 0.12, 0.5, 0.3)
# One token, rows over the edge of a tile, and more than a tile is wide; rows that need the same, and nothing.
ROWS = (3, 20, 1, 40, 9, 5)
MIXES = (
    [(0, 1.0)],
    [(2, 0.5), (1, -0.7)],
    [],
    [(3, 0.25), (0, -1.0), (2, 0.5), (1, 0.1)],
    [(1, 0.4), (2, -0.3)],
    [(3, 1.0)],
)


@pytest.fixture(autouse=True)
def no_rehearsal(monkeypatch):
    """It takes longer than what is tested here; a test of its own holds it."""
    monkeypatch.setattr(overlay_module, "rehearse_additions", lambda *_: None)


class Side:
    """A base whose overlay one of the two computes, and the same switches of it."""

    def __init__(self, folder, *, triton):
        self.base = load(folder)
        self.arena = Arena(self.base.parameters, triton=triton)
        self.overlay = Overlay(self.base, self.arena)
        assert self.overlay.reason is None
        shapes = {name: tuple(tensor.shape) for name, tensor in self.base.parameters.items()}
        some = {name: shapes[name] for name in list(shapes)[::3]}
        self.planes = [
            Planes(self.arena, random_switch(some if i == 3 else shapes, density, i, per_row=i % 2 == 0))
            for i, density in enumerate(DENSITIES)
        ]

    def answers(self, mixes):
        """Every layer's states at the rows' own tokens, and what was pooled: float32."""
        names = self.base.encode(["a"], want="classify")[0].fields
        ids = [np.random.default_rng(n).integers(5, WORDS, n).tolist() for n in ROWS]
        rows = [Row({name: own if name == "input_ids" else [1] * len(own) for name in names}) for own in ids]
        parts = [tuple(Part(self.planes[i], weight) for i, weight in mix) for mix in mixes]
        output = self.overlay.forward(rows, parts).output
        states = [state[i, :length] for i, length in enumerate(ROWS) for state in output["hidden_states"]]
        return torch.cat([*states, *([output["pooler_output"]] if "pooler_output" in output else [])]).float()


# albert's embeddings have 16 columns: a row is half a word of a bit plane.
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_every_row_is_answered_as_by_the_cpu(family, tmp_path):
    folder = make_base(tmp_path / family, family)
    right, found = (Side(folder, triton=triton) for triton in (False, True))
    expected = right.answers(MIXES)
    assert (found.answers(MIXES) - expected).abs().max() < 1e-4
    assert (right.answers([[]] * len(ROWS)) - expected).abs().max() > 0.1


def test_halves_are_as_near_to_the_cpus_as_their_rounding(tmp_path):
    folder = make_base(tmp_path / "bert", dtype=torch.bfloat16)
    right, found = (Side(folder, triton=triton).answers(MIXES) for triton in (False, True))
    assert (found - right).norm() < torch.finfo(torch.bfloat16).eps * right.norm()


def test_no_more_is_unpacked_than_the_rows_need(tmp_path):
    """Rows of equal switches share a tile, and a weight of 0 is a weight."""
    side = Side(make_base(tmp_path / "bert"), triton=True)
    before = side.answers([[]] * len(ROWS))
    assert (side.answers([[(2, 0.0)]] * len(ROWS)) - before).abs().max() < 1e-6
    begin = side.overlay._begin
    parts = [[Part(side.planes[i % 2], 1.0)] for i in range(64)]
    assert begin([1] * 64, parts)._by_row.tile_switches.tolist() == [0, 1]


def test_the_rehearsal_hears_every_wrong_note():
    rehearsal.rehearse_additions(CudaAdditions, CPU, torch.float16)

    class Careless(CudaAdditions):
        def __init__(self, lengths, parts, columns, arena):
            louder = [[Part(p.planes, p.weight * (1 + 1e-3)) for p in row] for row in parts]
            super().__init__(lengths, louder, columns, arena)

    fault = "a norm, a small parameter, wide of tokens, .*, even of rows, even as a table came out wrong"
    with pytest.raises(RuntimeError, match=fault):
        rehearsal.rehearse_additions(Careless, CPU, torch.float32)


def test_each_side_of_the_rehearsal_has_its_own_columns(monkeypatch):
    """They hold weights, and on a GPU the two sides' lie apart."""
    where = {}

    def columns(arena, *names):
        own = Columns(arena, *names)
        where[id(own)] = arena
        return own

    def make(lengths, parts, columns, arena):
        assert where[id(columns)] is arena
        return CudaAdditions(lengths, parts, columns, arena)

    monkeypatch.setattr(rehearsal, "Columns", columns)
    rehearsal.rehearse_additions(make, CPU, torch.float32)


def test_what_the_rehearsal_finds_wrong_is_served_in_place(tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("the kernels of device cpu do not add what they must")

    monkeypatch.setattr(overlay_module, "rehearse_additions", refuse)
    base = load(make_base(tmp_path / "bert"))
    reason = Overlay(base, Arena(base.parameters, triton=True)).reason
    assert reason == "RuntimeError: the kernels of device cpu do not add what they must"
    assert Overlay(base, Arena(base.parameters, triton=False)).reason is None
