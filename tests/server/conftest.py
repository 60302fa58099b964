"""One server for the tests of this folder: the tiny base, its switches, all real parts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from running import House  # imported in the fixtures: most tests of this folder need no server


@pytest.fixture(scope="session")
def switch_files(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Switch files by task name; see `running.TASKS`."""
    from running import make_switches

    return make_switches(tiny_base, tmp_path_factory.mktemp("switches"))


@pytest.fixture(scope="session")
def house(
    tiny_base: Path, switch_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """Running parts with all switches published; tests that publish or delete use names of their own."""
    from running import House

    built = House.build(tiny_base, tmp_path_factory.mktemp("store"))
    with built.running(switch_files.values()) as house:
        yield house


@pytest.fixture
def gate() -> threading.Event:
    """Closed; see `gated`."""
    return threading.Event()


@pytest.fixture
def gated(
    gate: threading.Event, tiny_base: Path, switch_files: dict[str, Path], tmp_path: Path
) -> Iterator[House]:
    """Running parts of which no switch is read before the `gate` opens: a request for one waits, for sure."""
    from running import House

    built = House.build(tiny_base, tmp_path / "store", gate=gate, queue_limit=2, timeout=20)
    with built.running(switch_files.values()) as house:
        yield house
        gate.set()


@pytest.fixture(scope="session")
def address(house: House) -> Iterator[str]:
    """Where the house is served, without keys."""
    from running import serving

    with serving(house.app()) as address:
        yield address


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    """A client of the house."""
    with httpx.Client(base_url=address, timeout=30) as client:
        yield client
