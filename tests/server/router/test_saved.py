"""What is kept for the next start: used where it is whole, passed over otherwise; it shows nobody more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.server.router.test_following import CLOUDS, INPUTS, RECIPE, voted

from bitswitch.router import AutoSwitch
from bitswitch.router import auto as auto_module
from bitswitch.router.fit import Fit
from bitswitch.router.index import QueryIndex
from bitswitch.router.saved import Saved
from bitswitch_store.codes import Codes

NAMES = "abcdefgh"


def router(folder: Path, **values) -> AutoSwitch:
    return AutoSwitch(recipe=RECIPE, k=5, **{"at_once": 0, "folder": folder, **values})


def fill(folder: Path, caller: str = "acme"):
    """The routes of a router that kept its state in ``folder``."""
    auto = router(folder)
    for name in NAMES:
        auto.add(name, CLOUDS[name])
    routes = auto.pick(INPUTS, NAMES, caller=caller)
    auto.settle()
    auto.close()
    return routes


def started(folder: Path, names: str = NAMES, **values) -> tuple[AutoSwitch, list[str]]:
    """A router that starts from it, and the switches it had to be given."""
    auto, given = router(folder, **values), []
    for name in names:
        if not auto.recall(name):
            given.append(name)
            auto.add(name, CLOUDS[name])
    auto.resume()
    return auto, given


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Of what a fit was made."""
    made: list[set[str]] = []
    real = Fit.of

    def fit(sets, quantile, near=None):
        made.append(set(sets))
        return real(sets, quantile, near)

    monkeypatch.setattr(Fit, "of", fit)
    return made


@pytest.mark.parametrize("flat", [10**6, 20])
def test_a_start_reads_and_fits_nothing_anew(
    tmp_path: Path, fits, monkeypatch: pytest.MonkeyPatch, flat: int
):
    of = QueryIndex.of
    monkeypatch.setattr(QueryIndex, "of", lambda blocks, **values: of(blocks, **{"flat": flat, **values}))
    routes = fill(tmp_path)
    fits.clear()
    auto, given = started(tmp_path)
    assert auto.pick(INPUTS, NAMES, caller="acme") == routes
    assert (given, fits) == ([], [])
    mapped = next(iter(auto._sets.values())).codes
    assert not mapped.flags.owndata
    assert not mapped.flags.writeable
    auto.close()


def test_many_that_a_start_had_to_read_lie_in_a_file_from_then_on(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(auto_module, "MANY", len(NAMES))
    routes = fill(tmp_path / "other")
    auto, given = started(tmp_path / "new")
    assert given == list(NAMES)
    assert not any(codes.codes.flags.owndata for codes in auto._sets.values())
    assert auto.pick(INPUTS, NAMES, caller="acme") == routes
    auto.close()
    again, given = started(tmp_path / "new")
    assert given == []
    again.close()


def test_where_they_cannot_be_kept_they_stay_in_memory(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(auto_module, "MANY", len(NAMES))
    (tmp_path / "file").write_text("no folder")
    auto, _ = started(tmp_path / "file" / "routes")
    assert "query sets stay in memory" in caplog.text
    assert auto.pick(INPUTS, NAMES, caller="acme")
    auto.close()


def test_few_are_not_worth_a_file(tmp_path: Path):
    auto, _ = started(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    auto.close()


def test_what_went_since_has_no_vote_and_what_came_has(tmp_path: Path):
    fill(tmp_path)
    auto, given = started(tmp_path, "bcdefghij")
    assert given == ["i", "j"]
    routes = auto.pick(INPUTS, "abcdefghij", caller="acme")
    assert voted(routes) == set("bcdefghij")
    auto.settle()
    fresh = router(tmp_path / "fresh")
    for name in "bcdefghij":
        fresh.add(name, CLOUDS[name])
    assert auto.pick(INPUTS, "bcdefghij", caller="acme") == fresh.pick(INPUTS, "bcdefghij")
    auto.close()
    fresh.close()


def test_a_kept_fit_lets_nobody_see_more(tmp_path: Path):
    fill(tmp_path)
    auto, _ = started(tmp_path)
    assert voted(auto.pick(INPUTS, "abc", caller="acme")) <= set("abc")
    assert voted(auto.pick(INPUTS, "abc", caller="zeta")) <= set("abc")
    auto.close()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _other_code(path: Path) -> None:
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "key": "of another version"}))


DAMAGES = {
    "flipped": (_flip, "*.index.faiss", "damaged"),
    "sums flipped": (_flip, "*.sums.npz", "damaged"),
    "codes flipped": (_flip, "*.codes.npy", "damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "*.steps.npy", "damaged"),
    "gone": (Path.unlink, "*.index.faiss", "No such file"),
    "no manifest": (lambda path: path.write_text("{"), "codes.json", "passed over"),
    "empty manifest": (lambda path: path.write_text("{}"), "fit-*.json", "passed over"),
    "other code": (_other_code, "fit-*.json", "other code"),
    "codes of other code": (_other_code, "codes.json", "other code"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_or_stale_is_made_anew_and_said(tmp_path: Path, damage: str, caplog, fits):
    routes = fill(tmp_path)
    do, pattern, words = DAMAGES[damage]
    (path,) = tmp_path.glob(pattern)
    do(path)
    fits.clear()
    auto, given = started(tmp_path)
    assert words in caplog.text
    assert auto.pick(INPUTS, NAMES, caller="acme") == routes
    assert given == ([*NAMES] if "codes" in pattern or "steps" in pattern else [])
    assert len(fits) == ("codes" not in pattern and "steps" not in pattern)
    auto.settle()
    auto.close()
    caplog.clear()
    again, given = started(tmp_path)
    assert (given, caplog.text) == ([], "")
    again.close()


def test_what_was_kept_under_other_settings_is_passed_over(tmp_path: Path, caplog):
    fill(tmp_path)
    auto, given = started(tmp_path, quantile=0.5)
    assert given == [*NAMES]
    assert "other code or other features" in caplog.text
    auto.close()


def test_a_kill_leaves_nothing_for_good(tmp_path: Path):
    fill(tmp_path)
    (tmp_path / "codes-0123.codes.npy").write_bytes(b"half")
    one = Codes.of(np.ones((2, 8)))
    Saved(tmp_path, recipe=RECIPE, quantile=0.9).write_codes({"a": one})
    assert len([*tmp_path.glob("codes-*")]) == 2


def test_small_ones_are_not_kept(tmp_path: Path):
    auto = router(tmp_path / "routes", at_once=10**6)
    for name in NAMES:
        auto.add(name, CLOUDS[name])
    auto.pick(INPUTS, NAMES)
    auto.settle()
    auto.close()
    assert not (tmp_path / "routes").exists()
