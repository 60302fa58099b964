"""How a mixed batch's work is dealt to threads."""

import numpy as np
import pytest

from bitswitch.base.load import load
from bitswitch.engine.arena import Arena
from bitswitch.engine.mixes import Part
from bitswitch.engine.needs import Columns, Needs
from bitswitch.engine.planes import Planes
from switches import random_switch
from tiny import make_base


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    base = load(make_base(tmp_path_factory.mktemp("base")))
    arena = Arena(base.parameters)
    shapes = {name: tuple(tensor.shape) for name, tensor in base.parameters.items()}
    return arena, [Planes(arena, random_switch(shapes, 0.1, seed)) for seed in range(3)]


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize(
    ("lengths", "mixes"),
    [
        ([16] * 8, [{0: 1.0}, {1: 0.5, 2: 0.25}, {}, {0: 1.0}, {2: 1.0}, {0: 0.5}, {1: 1.0}, {0: 1.0}]),
        ([500, 3], [{0: 1.0, 1: -1.0}, {1: 2.0}]),
        ([1], [{2: 1.0}]),
    ],
)
def test_every_token_meets_each_of_its_switches_once_and_in_one_thread(house, lengths, mixes, threads):
    arena, planes = house
    parts = [[Part(planes[switch], weight) for switch, weight in mix.items()] for mix in mixes]
    needs = Needs(lengths, parts, Columns(arena, [], []), threads)
    order = list(dict.fromkeys(switch for mix in mixes for switch in mix))
    for tiles, own, apart in ((needs.by_token, lengths, max(lengths)), (needs.by_row, [1] * len(lengths), 1)):
        found, threads_of = {}, {}
        assert len(tiles.bounds) <= threads + 1
        for thread, (first, last) in enumerate(zip(tiles.bounds[:-1], tiles.bounds[1:], strict=True)):
            for tile in range(first, last):
                lanes = slice(tiles.starts[tile], tiles.starts[tile] + tiles.widths[tile])
                for place, scale in zip(tiles.places[lanes].tolist(), tiles.scales[lanes], strict=True):
                    threads_of.setdefault(place, set()).add(thread)
                    if scale:
                        key = place, order[tiles.switches[tile]]
                        assert key not in found
                        found[key] = scale
        assert found == {
            (row * apart + token, switch): np.float32(weight)
            for row, mix in enumerate(mixes)
            for token in range(own[row])
            for switch, weight in mix.items()
        }
        assert all(len(one) == 1 for one in threads_of.values())
