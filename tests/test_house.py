"""The sources keep the rules of the house, and each rule is able to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import house

ROOT = Path(__file__).resolve().parents[1]
ROOTS = (ROOT / "server", ROOT / "switches_store", ROOT / "clients")


@pytest.fixture(scope="module")
def ours() -> dict[str, house.Module]:
    return house.read(ROOTS)


def test_all_three_source_roots_were_read(ours: dict[str, house.Module]) -> None:
    assert {"bitswitch.core", "bitswitch_store.switch", "bitswitch_client.client"} <= ours.keys()
    for root in ROOTS:
        assert not (root / "__init__.py").exists(), f"{root.name} is a source root, not a package"


def test_every_room_keeps_its_walls(ours: dict[str, house.Module]) -> None:
    assert house.broken_walls(ours) == []


def test_every_room_of_the_server_has_a_rule(ours: dict[str, house.Module]) -> None:
    free = {"bitswitch", "bitswitch.__main__", "bitswitch.cli", "bitswitch.demo"}  # they wire the parts
    ruled = {name for name in ours if any(house.within(name, room) for room in house.ROOMS)}
    loose = {
        name for name in ours.keys() - ruled if not any(house.within(name, f) for f in free - {"bitswitch"})
    }
    assert loose <= free


def test_the_leaves_import_nothing_heavy_at_run_time(ours: dict[str, house.Module]) -> None:
    assert house.heavy_at_run_time(ours, ["bitswitch", "bitswitch.core", "bitswitch.errors"]) == []


def test_no_import_cycles(ours: dict[str, house.Module]) -> None:
    assert house.cycles(ours) == []


def test_no_file_is_too_long(ours: dict[str, house.Module]) -> None:
    assert house.too_long(ours) == []


def test_names_use_the_words_of_the_house(ours: dict[str, house.Module]) -> None:
    assert house.banned_words(ours) == []


def tree(root: Path, **files: str) -> dict[str, house.Module]:
    """A small source tree; ``a__b`` is the file ``a/b.py``."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.relative_to(root).parents[:-1]:
            (root / folder / "__init__.py").touch()
    return house.read([root])


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("bitswitch_store__file", "import bitswitch.core"),
        ("bitswitch_client__calls", "from bitswitch.core import Mix"),
        ("bitswitch_client__calls", "import torch"),
        ("bitswitch__core", "from bitswitch import errors"),
        ("bitswitch__core", "import torch"),
        ("bitswitch__router__auto", "from bitswitch.engine.engine import Engine"),
        ("bitswitch__router__auto", "from ..engine import engine"),
        ("bitswitch__router__auto", "from bitswitch.base.model import Base"),
        ("bitswitch__engine__queue", "from bitswitch import answer"),
        ("bitswitch__api__app", "def f():\n    import torch.nn"),
        (
            "bitswitch__api__app",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import transformers",
        ),
        ("bitswitch__api__app", "import importlib\nimportlib.import_module('faiss')"),
        ("bitswitch__api__app", "from bitswitch.settings import Settings"),
        ("bitswitch__api__app", "from bitswitch.engine import engine"),
        ("bitswitch__observe__logs", "from bitswitch.cli import main"),
    ],
)
def test_a_broken_wall_is_found(tmp_path: Path, importer: str, statement: str) -> None:
    others = {
        "bitswitch__engine__engine": "",
        "bitswitch__base__model": "",
        "bitswitch__answer": "",
        "bitswitch__errors": "",
    }
    faults = house.broken_walls(tree(tmp_path, **others, **{importer: statement}))
    assert len(faults) == 1
    assert importer.replace("__", ".") in faults[0]


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("bitswitch__router__auto", "from bitswitch.base.features import features\nimport numpy, faiss"),
        ("bitswitch__api__app", "from bitswitch.answer import Answers\nimport fastapi"),
        (
            "bitswitch__engine__engine",
            "from bitswitch.base.model import Base\nfrom . import swap\nimport torch",
        ),
        ("bitswitch__cli", "from bitswitch.settings import Settings\nimport torch"),
        ("bitswitch_store__store", "from bitswitch_store import file\nimport sqlalchemy"),
    ],
)
def test_an_open_door_is_let_be(tmp_path: Path, importer: str, statement: str) -> None:
    others = {"bitswitch__base__features": "", "bitswitch__engine__swap": ""}
    assert house.broken_walls(tree(tmp_path, **others, **{importer: statement})) == []


def test_a_heavy_import_at_run_time_is_found(tmp_path: Path) -> None:
    lazy = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n"
    assert house.heavy_at_run_time(tree(tmp_path / "a", bitswitch__core=lazy), ["bitswitch.core"]) == []
    found = house.heavy_at_run_time(tree(tmp_path / "b", bitswitch__core="import numpy"), ["bitswitch.core"])
    assert found == ["bitswitch.core:1 imports numpy at run time"]


@pytest.mark.parametrize("back", ["import p.a", "def f():\n    from . import a", "from p.a import x"])
def test_a_cycle_is_found_lazy_ones_too(tmp_path: Path, back: str) -> None:
    assert house.cycles(tree(tmp_path / "no", p__a="import p.b", p__b="import p.c", p__c="")) == []
    found = house.cycles(tree(tmp_path / "yes", p__a="import p.b", p__b="import p.c", p__c=back))
    assert found == ["p.a → p.b → p.c → p.a"]


def test_a_long_file_is_found(tmp_path: Path) -> None:
    modules = tree(tmp_path, p__short="x = 1\n" * 300, p__long="x = 1\n" * 301)
    assert house.too_long(modules) == ["p.long has 301 lines; 300 at most"]


@pytest.mark.parametrize(
    "text",
    ["class WeightManager: ...", "def helper_of(): ...", "async def deltas(): ...", "class HTTPAdapter: ..."],
)
def test_a_banned_word_is_found(tmp_path: Path, text: str) -> None:
    assert len(house.banned_words(tree(tmp_path, p__a=text))) == 1


def test_a_banned_word_is_found_in_a_module_name_and_only_as_a_word(tmp_path: Path) -> None:
    assert len(house.banned_words(tree(tmp_path / "yes", p__file_utils=""))) == 1
    assert house.banned_words(tree(tmp_path / "no", p__a="def managed(): ...\nclass Deltaic: ...")) == []
