"""Bent switch files, coded streams and models, by the hundred thousand: all refused in a sentence, or valid.

In a process of its own: numba compiles the kernels anew with every index checked, and the memory that the
process may map is bounded, so that a read past an array's end or a claim that was believed is a crash.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

from benchmarks import mutants
from benchmarks.report import Bar, Report, Table
from benchmarks.setting import Setting
from bitswitch.errors import InvalidModelError
from bitswitch.model_ref import parse
from bitswitch_store import codec, container, file, planes
from bitswitch_store.coded import CodedSwitch
from bitswitch_store.switch import SwitchError

INPUTS = {"file": 200_000, "codec": 100_000, "model": 100_000}
MAX_WEIGHTS = 1 << 20
"""Of a file, as its reader is told: far above any of the seeds."""
MEMORY = 256 << 20
"""Bytes that reading anything may map beyond what the process has."""
_CONDITIONS = (
    "Kernels compiled with `NUMBA_BOUNDSCHECK=1`; at most 256 MiB of memory more than before the first input."
    " An input is *refused* with the one error its reader has, or *valid*: then it was written again and gave"
    " the same bytes (a model: it was read again and meant the same). Anything else is a crash."
)


def run(setting: Setting) -> Report:
    """One process, all three readers."""
    report = Report("Bent inputs", _CONDITIONS)
    share = 200 if setting.quick else 1
    counts = {reader: most // share for reader, most in INPUTS.items()}
    found = in_own_process(counts, cache=str(setting.scratch / "numba"), seed=0 if setting.quick else None)
    rows = []
    for reader, outcome in found.items():
        rows.append((reader, *(outcome.get(key, 0) for key in ("inputs", "refused", "valid", "crashed"))))
        report.bars.append(Bar(f"{reader}: crashes", outcome.get("crashed", 0), 0))
    report.bars.append(Bar("inputs", sum(counts.values()), None if setting.quick else 200_000, at_most=False))
    report.tables.append(Table("Readers", ("reader", "inputs", "refused", "valid", "crashed"), rows))
    return report


def in_own_process(
    counts: dict[str, int], *, cache: str, seed: int | None = None
) -> dict[str, dict[str, int]]:
    """What became of so many inputs, by reader.

    Raises:
        RuntimeError: the process itself ended.
    """
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": cache}
    seed = time.time_ns() if seed is None else seed
    command = [sys.executable, "-m", "benchmarks.fuzz", json.dumps(counts), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise RuntimeError(f"the fuzz ended with {done.returncode}, seed {seed}: {done.stderr[-2000:]}")
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def main() -> None:
    """What `in_own_process` starts."""
    counts, seed = json.loads(sys.argv[1]), int(sys.argv[2])
    print(f"seed {seed}", file=sys.stderr)
    seeds = mutants.seeds()
    for data in seeds:  # compiles all there is to compile, before memory is bounded
        _read_file(data)
        for code, stream, shape, active in _streams(data):
            _read_stream(code, stream, shape, active)
    mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    chance = random.Random(seed)
    readers: dict[str, Callable[[], Callable[[], bool]]] = {
        "file": lambda: _bound(_read_file, mutants.bent_file(chance.choice(seeds), chance)),
        "codec": lambda: _bound(_read_stream, *_bent_stream(chance.choice(seeds), chance)),
        "model": lambda: _bound(_read_model, mutants.model(chance)),
    }
    print(json.dumps({reader: _outcomes(readers[reader], count) for reader, count in counts.items()}))


def _bound(read: Callable[..., bool], *given: object) -> Callable[[], bool]:
    return lambda: read(*given)


def _outcomes(make: Callable[[], Callable[[], bool]], count: int) -> Counter[str]:
    outcomes: Counter[str] = Counter(inputs=count)
    for number in range(count):
        read = make()
        try:
            outcomes["valid" if read() else "refused"] += 1
        except Exception:  # noqa: BLE001 - what is looked for
            outcomes["crashed"] += 1
            print(f"input {number}:\n{traceback.format_exc(limit=-4)}", file=sys.stderr)
    return outcomes


def _read_file(data: bytes) -> bool:
    try:
        switch = file.read(data, max_weights=MAX_WEIGHTS)
    except SwitchError as error:
        if "\n" in str(error):
            raise AssertionError("a refusal is one sentence") from error
        return False
    assert file.write(switch) == data, "what is valid is written back to the same bytes"
    return True


Stream = tuple[int, bytes, tuple[int, ...], int]


def _streams(data: bytes) -> list[Stream]:
    coded = CodedSwitch(data)
    activation = container.read(memoryview(data)).array("activation").tobytes()
    out, at = [], 0
    for record in coded.records:
        out.append((record.code, activation[at : at + record.size], record.shape, record.active))
        at += record.size
    return out


def _bent_stream(data: bytes, chance: random.Random) -> Stream:
    code, stream, shape, active = chance.choice(_streams(data))
    if chance.random() < 0.8:
        stream = mutants.bent_bytes(stream, chance)
    if chance.random() < 0.3:
        code = chance.randrange(16)
    if chance.random() < 0.3:
        shape = (chance.choice((1, 2, 3, 64, 1000)), chance.choice((1, 5, 63, 64, 65, 1000)))
    if chance.random() < 0.3:
        active = chance.choice((0, 1, 2, active + 1, 63, 64, 1000, 10**6))
    return code, stream, shape, active


def _read_stream(code: int, stream: bytes, shape: tuple[int, ...], active: int) -> bool:
    try:
        plane = codec.decode(code, stream, shape, active)
    except SwitchError:
        return False
    numel = 1
    for side in shape:
        numel *= side
    assert codec.encode(planes.packed(plane, numel), shape, active) == (code, stream)
    return True


def _read_model(text: str) -> bool:
    try:
        ref = parse(text)
    except InvalidModelError:
        return False
    assert parse(str(ref)) == ref
    return True


if __name__ == "__main__":
    main()
