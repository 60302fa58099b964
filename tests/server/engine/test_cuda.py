"""The Triton kernels without a GPU: run in Triton's interpreter, and compiled for two GPUs' instructions."""

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed; it has no wheels but for Linux", allow_module_level=True)

POINTERS = {"float32": "*i32", "float16": "*i16", "bfloat16": "*i16"}
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
    "switches": "i32",
    "blocks": "i32",
    "dtype": "constexpr",
    "many": "constexpr",
}
# With the rounding written out, the assembler may not fuse them either; ".ftz" would flush subnormals.
UNFUSED = {"add.rn.f32", "sub.rn.f32", "mul.rn.f32"}


@pytest.mark.timeout(900)  # half a minute of one CPU, however many others want it
def test_in_the_interpreter():
    """`interpreted_cuda.py`, in a process where Triton has never been anything else."""
    here = Path(__file__).resolve()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            str(here.with_name("interpreted_cuda.py")),
        ],
        cwd=here.parents[3],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


def instructions(dtype, capability, many, **options):
    """The floating-point instructions that the kernel compiles to, and how often, in PTX."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bitswitch.engine import cuda

    signature = {}
    for name in cuda.transition.arg_names:
        kind = name.removeprefix("old_").removeprefix("new_")
        signature[name] = POINTERS[dtype] if kind in ("weights", "saved") else KINDS[kind]
    source = ASTSource(cuda.transition, signature, constexprs={"dtype": dtype, "many": many})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return Counter(re.findall(r"\b((?:fma|mad|mul|add|sub)\S*\.f32)", compiled.asm["ptx"]))


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
