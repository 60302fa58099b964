"""How well ``auto`` finds the task of an input, and knows that there is none: the figures of docs/method.md.

    python benchmarks/routing.py --base MODEL_DIR --data DATA_DIR --cache DIR

Every task of the data folder takes part. A query set is chosen as `make` does, from four times as many
training inputs, evenly spaced; requests are the full test files, one at a time. Out of scope are CLINC's own
such queries, and each task in turn while it is left out. Feature vectors are computed once and kept in the
cache.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitswitch.base.features import features
from bitswitch.base.load import load
from bitswitch.base.model import Base
from bitswitch.cli.rows import read_examples
from bitswitch.core import Route, Row, Want
from bitswitch.router.auto import AutoSwitch
from bitswitch.router.index import QueryIndex
from bitswitch.router.representatives import representatives
from bitswitch.router.votes import count
from bitswitch_store.switch import QuerySet

Vectors = NDArray[np.float32]
OUTSIDE = "clinc150/oos_test"


def lower_features(base: Base, rows: Sequence[Row]) -> torch.Tensor:
    """The product's features, by no more of the model than they need: float32 (rows, dim)."""
    return features(base, base.forward_lower(rows), rows)


class Features:
    """The feature vectors of the data's files, each computed once.

    Args:
        base: folder of the base; loaded when a file is not in the cache yet.
        compute: what is made of rows, float32 (rows, dim); a cache is of one such kind.
    """

    def __init__(
        self,
        base: Path,
        data: Path,
        cache: Path,
        compute: Callable[[Base, Sequence[Row]], torch.Tensor] = lower_features,
    ) -> None:
        self._base, self._data, self._cache, self._make = base, data, cache, compute
        self._model: Base | None = None
        cache.mkdir(parents=True, exist_ok=True)

    def of(self, part: str, most: int | None = None) -> Vectors:
        """Those of the file ``part``, evenly spaced ones where it has more than ``most`` rows."""
        kept = self._cache / f"{part.replace('/', '.')}.{most or 'all'}.npy"
        if not kept.exists():
            np.save(kept, self._compute(part, most).astype(np.float16))
        vectors: Vectors = np.load(kept).astype(np.float32)
        return vectors

    def queries(self, task: str, number: int) -> tuple[Vectors, Vectors]:
        """A query set of the task, and the inputs that were not chosen."""
        vectors = self.of(f"{task}/train", 4 * number)
        chosen = representatives(vectors, number)
        return vectors[chosen], np.delete(vectors, chosen, axis=0)

    def _compute(self, part: str, most: int | None) -> Vectors:
        model = self._model = self._model or load(self._base, dtype="float32")
        texts = [one.text for one in read_examples(self._data / f"{part}.jsonl", labelled=True)]
        if most is not None and len(texts) > most:
            texts = [texts[len(texts) * i // most] for i in range(most)]
        rows = model.encode(texts, want=Want.FEATURES)
        order = sorted(range(len(rows)), key=lambda i: rows[i].length)
        found: dict[int, Vectors] = {}
        for start in range(0, len(order), 16):
            places = order[start : start + 16]
            made = self._make(model, [rows[i] for i in places]).numpy()
            found.update(zip(places, made, strict=True))
        return np.stack([found[place] for place in range(len(rows))])


def router(sets: Mapping[str, Vectors], **values: float) -> AutoSwitch:
    auto = AutoSwitch(recipe="benchmark", **values)  # type: ignore[arg-type]
    for task, vectors in sets.items():
        auto.add(task, QuerySet.of(vectors, "benchmark"))
    return auto


def winners(routes: Sequence[Route]) -> list[str]:
    """Whom the votes are for, abstained from or not."""
    return [route.neighbours[0].digest for route in routes]


def auroc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """The chance that an outside value is above an inside one."""
    order = np.sort(np.asarray(inside))
    below = np.searchsorted(order, outside, "left") + np.searchsorted(order, outside, "right")
    return float(below.mean() / (2 * len(order)))


def right_task(queries: Mapping[str, Vectors], tests: Mapping[str, Vectors]) -> None:
    """Share of requests whose votes are for their own task, in the metric and in the features as they are."""
    auto, plain = router(queries), QueryIndex.of(queries)
    auto.pick(next(iter(tests.values()))[:1], queries)
    print("| task | features as they are | metric | abstained | most mistaken for | ms a request |")
    print("|---|---|---|---|---|---|")
    rows = []
    for task, vectors in tests.items():
        started = time.perf_counter()
        routes = auto.pick(vectors, queries)
        spent = (time.perf_counter() - started) / len(vectors)
        found = winners(routes)
        raw = np.mean([count(plain.nearest(row, 10))[0].digest == task for row in vectors])
        wrong = Counter(name for name in found if name != task).most_common(1)
        rows.append((raw, np.mean([name == task for name in found]), np.mean([r.abstained for r in routes])))
        mistaken = f"{wrong[0][0]} {wrong[0][1] / len(vectors):.3f}" if wrong else "–"
        print(f"| {task} | {' | '.join(f'{v:.3f}' for v in rows[-1])} | {mistaken} | {1e3 * spent:.2f} |")
    print("| **mean** |", " | ".join(f"{value:.4f}" for value in np.mean(rows, axis=0)), "| | |")


def reliability(queries: Mapping[str, Vectors], held: Mapping[str, Vectors]) -> None:
    """Whether a route is right as often as its confidence says; on training inputs outside the query sets."""
    auto = router(queries)
    routes = [(task, route) for task in held for route in auto.pick(held[task], queries)]
    said = np.array([route.confidence for _, route in routes])
    right = np.array([route.neighbours[0].digest == task for task, route in routes])
    bins = np.minimum((said * 10).astype(int), 9)
    print("| confidence | share of inputs | right |\n|---|---|---|")
    error = 0.0
    for number in np.unique(bins):
        of = bins == number
        error += of.mean() * abs(said[of].mean() - right[of].mean())
        print(f"| {said[of].mean():.2f} | {of.mean():.3f} | {right[of].mean():.3f} |")
    print(f"right {right.mean():.4f}, expected calibration error {error:.4f}, {len(right)} inputs")


def cost(base: Base, texts: Sequence[str], queries: Mapping[str, Vectors]) -> None:
    """What a route costs beside one full pass: texts one at a time, both by turns, medians."""
    auto = router(queries)
    rows = base.encode(texts, want=Want.FEATURES)
    auto.pick(lower_features(base, rows[:1]).numpy(), queries)
    times = []
    for row in rows:
        started = time.perf_counter()
        vectors = lower_features(base, [row]).numpy()
        computed = time.perf_counter()
        auto.pick(vectors, queries)
        found = time.perf_counter()
        base.forward([row])
        times.append((computed - started, found - computed, time.perf_counter() - found))
    lower, search, whole = np.median(times, axis=0) * 1e3
    shares = [(first + second) / third for first, second, third in times]
    print(
        f"a request, median of {len(rows)}: features {lower:.2f} ms, search {search:.2f} ms, a full pass"
        f" {whole:.2f} ms; both over the pass, median {np.median(shares):.2f}"
    )


def out_of_scope(queries: Mapping[str, Vectors], tests: Mapping[str, Vectors], outside: Vectors) -> None:
    """AUROC of the distance, and the share answered all the same, with a task away or of foreign inputs."""
    print("| out of scope | AUROC | answered all the same |\n|---|---|---|")
    rows = []
    for away in (*tests, OUTSIDE):
        sets = {task: vectors for task, vectors in queries.items() if task != away}
        auto = router(sets)
        own = [r.distance for task in sets for r in auto.pick(tests[task], sets)]
        foreign = auto.pick(outside if away == OUTSIDE else tests[away], sets)
        accepted = np.mean([not route.abstained for route in foreign])
        rows.append((auroc(own, [route.distance for route in foreign]), accepted))
        print(f"| {away} | {rows[-1][0]:.3f} | {rows[-1][1]:.3f} |", flush=True)
    print("| **mean** |", " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0)), "|")


def moved(queries: Mapping[str, Vectors], tests: Mapping[str, Vectors]) -> None:
    """How many inputs of the other tasks go elsewhere once a task is added."""
    auto = router(queries)
    whole = {task: winners(auto.pick(tests[task], queries)) for task in tests}
    shares, least = {}, {}
    for added in queries:
        before = queries.keys() - {added}
        now = [name for task in before for name in whole[task]]
        then = [name for task in before for name in winners(auto.pick(tests[task], before))]
        shares[added] = np.mean([a != b for a, b in zip(now, then, strict=True)])
        least[added] = np.mean([a not in (b, added) for a, b in zip(now, then, strict=True)])
    print("moved by adding each task:", {task: f"{share:.4f}" for task, share in shares.items()})
    print(
        f"mean {np.mean([*shares.values()]):.4f}, of it not to the new task {np.mean([*least.values()]):.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--queries", type=int, nargs="+", default=[100, 400])
    options = parser.parse_args()
    files = Features(options.base, options.data, options.cache)
    tasks = sorted(folder.name for folder in options.data.iterdir() if (folder / "train.jsonl").exists())
    tests = {task: files.of(f"{task}/test") for task in tasks}
    texts = [one.text for task in tasks for one in read_examples(options.data / task / "test.jsonl")[:20]]
    for number in options.queries:
        chosen = {task: files.queries(task, number) for task in tasks}
        queries = {task: vectors for task, (vectors, _) in chosen.items()}
        print(f"\n{len(tasks)} tasks, {number} queries each\n")
        right_task(queries, tests)
        reliability(queries, {task: rest[:number] for task, (_, rest) in chosen.items()})
        out_of_scope(queries, tests, files.of(OUTSIDE))
        moved(queries, tests)
        cost(load(options.base, dtype="float32"), texts, queries)


if __name__ == "__main__":
    main()
