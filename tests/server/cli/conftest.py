"""Commands as a user types them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from bitswitch.cli.main import main

Run = Callable[..., tuple[str | int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run ``bitswitch …``; gives exit status, output and error output."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[str | int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bitswitch", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        seen = capfd.readouterr()
        return end.value.code or 0, seen.out, seen.err

    yield run
    # `serve` sets up logging to a standard error that is gone with this test.
    root = logging.getLogger()
    for handler in [one for one in root.handlers if one.get_name() == "bitswitch"]:
        root.removeHandler(handler)
