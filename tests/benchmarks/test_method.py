"""The suite of methods as its command runs it, on two tiny tasks: every row, and again for free."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from benchmarks.judge import Flat
from benchmarks.tasks import Result, Task, spaced, tasks_of

from benchmarks import method
from tiny import WORDS, make_finetune

LABELS = {"topic": ("bank", "film"), "spam": ("ham", "spam", "offer")}


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data of two tasks with random labels, and fine-tunes for them."""
    data, checkpoints = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("checkpoints")
    chance = random.Random(0)
    for seed, (task, labels) in enumerate(LABELS.items()):
        (data / task).mkdir()
        make_finetune(checkpoints / task, tiny_base, labels, seed=seed + 1)
        for part, count in (("train", 30), ("test", 12)):
            lines = (
                {"text": " ".join(chance.choices(WORDS, k=6)), "label": chance.choice(labels)}
                for _ in range(count)
            )
            (data / task / f"{part}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return data, checkpoints


def test_the_command_fills_every_row_and_goes_on_where_it_was(
    tiny_base: Path,
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, checkpoints = folders
    # A tiny model's head and query set alone are above the real budgets.
    monkeypatch.setattr(method, "BUDGETS", (0.9, 0.02))
    real = method.methods
    monkeypatch.setattr(method, "methods", lambda base, **options: _affordable(real(base, **options)))
    monkeypatch.setattr(method, "routed", lambda routes, **_: _routed(routes))
    options = ["--base", tiny_base, "--data", data, "--checkpoints", checkpoints]
    options += ["--cache", tmp_path / "cache", "--out", tmp_path / "out", "--rows", 6, "--calibrated", 0.9]
    method.main([*map(str, options)])
    first = capsys.readouterr().out
    page = (tmp_path / "out" / "method.md").read_text()
    for name in ("individual", "TIES, best λ", "EMR-merging", "T-Switch, α = 0.95", "ours per request"):
        assert f"| {name} |" in page
    assert (tmp_path / "out" / "accuracy-storage.svg").is_file()
    assert "individual, topic: " in first
    method.main([*map(str, options)])
    assert "individual, topic: " not in capsys.readouterr().out


def _affordable(found):  # type: ignore[no-untyped-def]
    return {name: one for name, one in found.items() if "1.0%" not in name and "2.0%" not in name}


def _routed(routes):  # type: ignore[no-untyped-def]
    from benchmarks.routed import routed

    return routed(routes, alpha=0.9, budget=0.9)


def test_a_task_without_a_checkpoint_is_named(folders: tuple[Path, Path]) -> None:
    data, checkpoints = folders
    assert [task.name for task in tasks_of(data, checkpoints)] == ["spam", "topic"]
    with pytest.raises(ValueError, match="missing: no test"):
        tasks_of(data, checkpoints, ["missing"])


def test_flat_vectors_come_back_as_they_were(tiny_base: Path, folders: tuple[Path, Path]) -> None:
    flat = Flat(tiny_base)
    vector = flat.vector(folders[1] / "topic")
    assert vector.any()
    assert (flat.flatten(flat.tensors(vector)) == vector).all()


def test_a_result_knows_what_was_asked(tmp_path: Path) -> None:
    result = Result("10-1", 1, 2)
    assert result.accuracy([0, 1, 3]) == pytest.approx(2 / 3)
    assert result.accuracy([2]) != result.accuracy([2])
    results = method.Results(tmp_path)
    task = Task("a", tmp_path, tmp_path)
    results.put("m", task, result)
    assert results.get("m", task, [0, 3]) == result
    assert results.get("m", task, [0, 2]) is None
    assert spaced(10, 4) == [0, 2, 5, 7]
