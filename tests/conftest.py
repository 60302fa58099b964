"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from bitswitch.cli.threads import let_threads_doze

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
let_threads_doze()
settings.register_profile("untimed", deadline=None)  # how long an example takes tells of the machine
settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The workplace's golden data and tasks; no user has them."""
    if not SHARED.is_dir():
        pytest.skip("the shared data is not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT base checkpoint in fp32, in the sentence-transformers layout."""
    from tiny import add_sentence_transformers_layout, make_base

    return add_sentence_transformers_layout(make_base(tmp_path_factory.mktemp("base") / "bert"))


@pytest.fixture(scope="session")
def tiny_finetune(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune of `tiny_base` with three labels."""
    from tiny import make_finetune

    return make_finetune(tmp_path_factory.mktemp("finetune") / "topic", tiny_base, ("bank", "film", "spam"))
