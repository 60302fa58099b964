"""The paper's rule against the outputs of its authors' released code."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bitswitch_store.paper import paper


def test_the_released_code_s_outputs_are_matched(shared: Path) -> None:
    with np.load(shared / "golden" / "tswitch.npz") as golden:
        cases = sorted({key.split("|")[0] for key in golden.files})
        assert len(cases) == 32
        for case in cases:
            tau = golden[f"{case}|finetuned"] - golden[f"{case}|base"]
            alpha = round(float(golden[f"{case}|alpha"]), 6)
            ternary, scale = paper(tau, alpha)
            assert ternary.dtype == np.int8
            np.testing.assert_array_equal(ternary, golden[f"{case}|ternary"], err_msg=case)
            np.testing.assert_allclose(scale, float(golden[f"{case}|scale"]), rtol=1e-6, err_msg=case)
