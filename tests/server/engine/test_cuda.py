"""The Triton kernels without a GPU: run in Triton's interpreter, and compiled for two GPUs' instructions."""

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed; it has no wheels but for Linux", allow_module_level=True)

BITS = {"float32": "*i32", "float16": "*i16", "bfloat16": "*i16"}
FLOATS = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}
# What the kernels' arguments are; those that are not here are numbers.
KINDS = {
    "block_tensor": "*i32",
    "block_start": "*i64",
    "slots": "*i32",
    "counts": "*i32",
    "places": "*i64",
    "offsets": "*i16",
    "ranks": "*i64",
    "table": "*i64",
    "mix_weights": "*fp32",
    "signs": "*i8",
    "owners": "*i32",
    "shares": "*fp32",
    "tile_starts": "*i32",
    "tile_switches": "*i32",
    "vectors": "*fp32",
    "spots": "*i64",
    "ids": "*i64",
}
# With the rounding written out, the assembler may not fuse them either; ".ftz" would flush subnormals.
UNFUSED = {"add.rn.f32", "sub.rn.f32", "mul.rn.f32"}


@pytest.mark.timeout(900)  # a quarter of a minute of one CPU, however many others want it
@pytest.mark.parametrize("name", ["interpreted_cuda.py", "interpreted_overlay.py"])
def test_in_the_interpreter(name):
    """In a process where Triton has never been anything else."""
    here = Path(__file__).resolve()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(here.with_name(name))],
        cwd=here.parents[3],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


def ptx(kernel, capability, own=(), *, options=None, **constants):
    """What a kernel compiles to; ``own`` are the kinds of arguments that are not in `KINDS`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = KINDS | dict(own) | dict.fromkeys(constants, "constexpr")
    signature = {
        name: kinds.get(name.removeprefix("old_").removeprefix("new_"), "i32") for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options or {}).asm["ptx"]


def instructions(dtype, capability, many, **options):
    """The floating-point instructions that the transition compiles to, and how often."""
    from bitswitch.engine import cuda

    own = dict.fromkeys(("weights", "saved"), BITS[dtype])
    found = ptx(cuda.transition, capability, own, options=options, dtype=dtype, many=many)
    return Counter(re.findall(r"\b((?:fma|mad|mul|add|sub)\S*\.f32)", found))


@pytest.mark.parametrize(("dtype", "many"), [("float32", True), ("float16", True), ("bfloat16", False)])
def test_it_compiles_for_a_gpu_without_fusing_or_flushing(dtype, many, tmp_path, monkeypatch):
    from bitswitch.engine.cuda_kernel import LAUNCH

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = instructions(dtype, 90, many, **LAUNCH)
    assert found["add.rn.f32"]
    assert set(found) <= UNFUSED, found


def test_unless_told_not_to_the_compiler_would_fuse(tmp_path, monkeypatch):
    """Else the test above could not fail."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert not set(instructions("float32", 80, True, enable_fp_fusion=True)) <= UNFUSED


@pytest.mark.parametrize(
    ("dtype", "capability", "product"),
    [
        ("bfloat16", 80, r"mma\.\S*\.f32\.bf16\.bf16\.f32"),
        ("float16", 90, r"mma\.\S*\.f32\.f16\.f16\.f32"),
        ("float32", 90, r"fma\.rn\.f32"),
    ],
)
def test_a_layers_part_compiles_to_products_that_are_exact(dtype, capability, product, tmp_path, monkeypatch):
    """Halves on the tensor cores, summed in fp32; fp32 without them: they would cut it to tf32."""
    import triton.language as tl

    from bitswitch.engine.cuda_additions import LAUNCH
    from bitswitch.engine.cuda_product import add_linear

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    own = {"places": "*i32", "y": BITS[dtype], "x": FLOATS[dtype]}
    form = getattr(tl, dtype)
    found = ptx(add_linear, capability, own, options=LAUNCH, inputs=384, run=32, dtype=dtype, form=form)
    assert re.search(product, found)
    assert "tf32" not in found


@pytest.mark.parametrize(("name", "capability"), [("expand", 80), ("add_embedding", 90)])
def test_the_lookups_compile(name, capability, tmp_path, monkeypatch):
    from bitswitch.engine import cuda_lookup
    from bitswitch.engine.cuda_additions import LAUNCH

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    own = {"places": "*i32", "y": "*fp32"}
    assert ".entry" in ptx(getattr(cuda_lookup, name), capability, own, options=LAUNCH)


rows = st.lists(st.tuples(st.integers(1, 90), st.sets(st.integers(0, 6))), min_size=1, max_size=12)


@given(rows.filter(lambda some: any(own for _, own in some)))
def test_every_token_is_dealt_to_a_tile_of_all_that_it_needs(some):
    from bitswitch.engine.cuda_additions import TOKENS, Dealt

    longest = max(count for count, _ in some)
    needed = np.array([[s in own for s in range(7)] for _, own in some])
    dealt = Dealt.of(np.array([count for count, _ in some]), longest, needed)
    assert len(dealt.places) == len(dealt.owners) == TOKENS * (len(dealt.tile_starts) - 1)
    expected = {r * longest + t: r for r, (count, own) in enumerate(some) if own for t in range(count)}
    live = slice(dealt.live_lanes)
    assert dict(zip(dealt.places[live].tolist(), dealt.owners[live].tolist(), strict=True)) == expected
    assert dealt.live_lanes == len(expected)
    for tile, (start, stop) in enumerate(pairwise(dealt.tile_starts)):
        owners = dealt.owners[live][tile * TOKENS : (tile + 1) * TOKENS]
        assert set(dealt.tile_switches[start:stop].tolist()) == set.union(*(some[r][1] for r in owners))
