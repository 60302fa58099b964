"""Which answers better per request, the mix of the votes or the switch with the most of them alone.

    python benchmarks/route_modes.py --base MODEL_DIR --data DATA_DIR SWITCH_FILE …

The switches are published to a server of each mode, and their tasks' test inputs asked of ``auto``: an answer
is right when it is the label, an abstention is wrong in both. By name is what the own switch answers.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bitswitch.cli.rows import Example, read_examples
from bitswitch.cli.serve import House
from bitswitch.core import RouteMode
from bitswitch.settings import read_settings

CHUNK = 32


async def answers(house: House, model: str, examples: Sequence[Example]) -> list[tuple[bool, int]]:
    """Of each input: whether the answer is its label, and how many switches answered; 0 for an abstention."""
    found = []
    for start in range(0, len(examples), CHUNK):
        part = examples[start : start + CHUNK]
        kept = [True] * len(part)
        if model == "auto":
            routed = await house.answers.route("default", [one.text for one in part])
            kept = [not choice.abstained for choice in routed.choices]
        texts = [one.text for one, keep in zip(part, kept, strict=True) if keep]
        items = iter((await house.answers.classify("default", model, texts)).items if texts else ())
        for one, keep in zip(part, kept, strict=True):
            item = next(items) if keep else None
            right = item is not None and item.labels[int(item.values.argmax())] == one.label
            found.append((right, len(item.selection.parts) if item else 0))
    return found


def ask(
    options: argparse.Namespace, mode: RouteMode, tests: Mapping[str, Sequence[Example]]
) -> list[np.ndarray]:
    """Per task (inputs, 2): see `answers`. In the mode that mixes, a third list: by name."""
    with tempfile.TemporaryDirectory() as folder:
        house = House.build(read_settings(base=options.base, store=Path(folder) / "store", router_mode=mode))
        house.start()
        try:
            for path in options.switches:
                house.publisher.publish(path.read_bytes(), tenant="default", name=None, public=False)
            routed = [np.array(asyncio.run(answers(house, "auto", rows))) for rows in tests.values()]
            if mode is RouteMode.TOP1:
                return routed
            named = [np.array(asyncio.run(answers(house, task, rows))) for task, rows in tests.items()]
            return [np.concatenate(both, axis=1) for both in zip(routed, named, strict=True)]
        finally:
            house.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--most", type=int, default=300, help="Test inputs of a task, evenly spaced.")
    parser.add_argument("switches", type=Path, nargs="+")
    options = parser.parse_args()
    tests = {}
    for path in options.switches:
        task = path.name.partition(".")[0]
        rows = read_examples(options.data / task / "test.jsonl", labelled=True)
        tests[task] = rows[:: max(len(rows) // options.most, 1)]
    mixed, alone = (ask(options, mode, tests) for mode in (RouteMode.MIX, RouteMode.TOP1))
    print("| task | by name | mix | top1 | answered by a mix | of these right: mix | top1 |")
    print("|---|---|---|---|---|---|---|")
    names, both = [*tests, "**all**"], [(*one, np.concatenate(one)) for one in (mixed, alone)]
    for name, mix, top1 in zip(names, *both, strict=True):
        several = mix[:, 1] > 1
        figures = [mix[:, 2].mean(), mix[:, 0].mean(), top1[:, 0].mean(), several.mean()]
        figures += [mix[several, 0].mean(), top1[several, 0].mean()] if several.any() else [np.nan] * 2
        print(f"| {name} ({len(mix)}) |", " | ".join(f"{value:.4f}" for value in figures), "|")


if __name__ == "__main__":
    main()
