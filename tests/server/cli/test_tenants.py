"""``bitswitch tenants limits`` as a user types it."""

from __future__ import annotations

from contextlib import closing

import pytest
from typer.testing import CliRunner

from bitswitch.cli.main import app
from bitswitch.tenants import limit_table
from bitswitch.tenants.limits import Limits
from bitswitch_store.store import Store


@pytest.fixture
def limits(tmp_path):
    def limits(*options):
        store = ["--store", str(tmp_path), "--tenant", "acme"]
        return CliRunner().invoke(app, ["tenants", "limits", *store, *options])

    return limits


def stored(tmp_path, default=Limits()):  # noqa: B008 - frozen
    with closing(Store(tmp_path, base=None)) as store:
        return limit_table.read(store.database, default).get("acme", default)


def test_limits_are_set_shown_and_taken_back(limits, tmp_path):
    assert limits("--requests-per-minute", "600", "--stored-bytes", "unlimited").exit_code == 0
    default = Limits(stored_bytes=1, batch_inputs=2)
    assert stored(tmp_path, default) == Limits(requests_per_minute=600, batch_inputs=2)
    shown = limits("--show").output
    for name, value in (
        ("requests per minute", "600"),
        ("stored bytes", "unlimited"),
        ("batch inputs", "default"),
    ):
        assert any(name in line and value in line for line in shown.splitlines())
    assert limits("--requests-per-minute", "default").exit_code == 0
    assert stored(tmp_path, default) == Limits(batch_inputs=2)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--show", "--batch-inputs", "1"),
        ("--batch-inputs", "0"),
        ("--batch-inputs", "-1"),
        ("--batch-inputs", "x"),
    ],
)
def test_what_is_no_limit_is_refused_and_changes_nothing(limits, tmp_path, options):
    assert limits(*options).exit_code == 2
    assert stored(tmp_path) == Limits()
