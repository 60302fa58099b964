from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bitswitch.cli.main import app
from bitswitch_store.store import Store


@pytest.fixture
def root(tmp_path: Path, switch_files: dict[str, Path]) -> Path:
    """A store with two switches."""
    with closing(Store(tmp_path / "store", base=None)) as store:
        for name in ("topic", "polarity"):
            store.put(switch_files[name], tenant="default", name=name)
    return tmp_path / "store"


def run(command: str, root: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["store", command, "--store", str(root), *map(str, arguments)])


def spoil(root: Path, name: str) -> Path:
    with closing(Store(root, base=None)) as store:
        path = store.path(store.find("default", name).digest)
    path.write_bytes(b"rotten")
    return path


def test_check_says_what_is_wrong_by_its_exit_status(root: Path):
    sound = run("check", root)
    assert (sound.exit_code, "0 files of versions are broken" in sound.output) == (0, True)
    spoil(root, "topic")
    broken = run("check", root)
    assert broken.exit_code == 1
    assert "corrupt" in broken.output
    assert "1 files of versions are broken" in broken.output


def test_repair_drops_only_when_told(root: Path):
    spoil(root, "topic")
    kept = run("repair", root)
    assert (kept.exit_code, "--drop-broken" in kept.output) == (1, True)
    dropped = run("repair", root, "--drop-broken")
    assert (dropped.exit_code, "default/topic@1 dropped" in dropped.output) == (0, True)
    assert run("check", root).exit_code == 0


def test_gc_collects_what_is_old_enough(root: Path):
    with closing(Store(root, base=None)) as store:
        store.delete("default", "topic")
    assert "0 files collected, 1 wait" in run("gc", root).output
    assert "1 files collected, 0 wait" in run("gc", root, "--older-than", 0).output


def test_a_store_is_carried_to_another_place(root: Path, tmp_path: Path):
    archive = tmp_path / "all.tar"
    assert "2 names, 2 versions, 2 files" in run("export", root, archive).output
    assert "2 versions are new here" in run("import", tmp_path / "new", archive).output
    assert run("check", tmp_path / "new").exit_code == 0
    again = run("import", tmp_path / "new", archive)
    assert (again.exit_code, "2 were here already" in again.output) == (0, True)


@pytest.mark.parametrize("command", ["check", "repair", "gc"])
def test_a_store_that_is_not_there_is_not_made(command: str, tmp_path: Path):
    assert run(command, tmp_path / "none").exit_code == 2
    assert not (tmp_path / "none").exists()
