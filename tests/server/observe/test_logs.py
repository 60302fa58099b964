"""Logs as they are written: what is in a line, and what never is."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from bitswitch.observe.logs import PRIVATE, configure, drop_private


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers = handlers
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_says_what_when_and_who():
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    structlog.contextvars.bind_contextvars(request_id="r1")
    structlog.get_logger("bitswitch.api").info("answered", model="trec@1", tokens=7)
    (line,) = lines(stream)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "answered",
        "level": "info",
        "logger": "bitswitch.api",
        "model": "trec@1",
        "request_id": "r1",
        "tokens": 7,
    }


def test_the_standard_library_s_loggers_come_the_same_way():
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    structlog.contextvars.bind_contextvars(request_id="r1")
    logging.getLogger("bitswitch.engine").warning("a group of %d requests failed", 3)
    (line,) = lines(stream)
    assert line["event"] == "a group of 3 requests failed"
    assert (line["level"], line["logger"], line["request_id"]) == ("warning", "bitswitch.engine", "r1")


@pytest.mark.parametrize("style", [True, False])
def test_texts_and_keys_are_never_written(style: bool):
    stream = io.StringIO()
    configure("debug", json=style, stream=stream)
    log = structlog.get_logger("bitswitch")
    structlog.contextvars.bind_contextvars(Authorization="Bearer SECRET")
    log.info("arrived", **dict.fromkeys(PRIVATE, "SECRET"), model="kept")
    log.info(
        "nested", request={"headers": {"X-Api-Key": "SECRET"}, "items": [{"text": "SECRET"}], "id": "kept"}
    )
    assert "SECRET" not in stream.getvalue()
    assert stream.getvalue().count("kept") == 2


@pytest.mark.parametrize("style", [True, False])
@pytest.mark.parametrize("library", [True, False])
def test_a_traceback_shows_no_variables(style: bool, library: bool):
    stream = io.StringIO()
    configure("info", json=style, stream=stream)
    log = logging.getLogger("bitswitch") if library else structlog.get_logger("bitswitch")

    def answer(asked: str) -> None:
        raise RuntimeError(f"no memory for {len(asked)} characters")

    try:
        answer("SEC" + "RET")
    except RuntimeError:
        log.exception("failed")
    written = stream.getvalue()
    assert "no memory for 6 characters" in written
    assert "in answer" in written
    assert "SECRET" not in written


def test_a_level_holds_for_both_kinds_of_logger():
    stream = io.StringIO()
    configure("WARNING", json=True, stream=stream)
    for log in (structlog.get_logger("bitswitch"), logging.getLogger("bitswitch")):
        log.info("quiet")
        log.warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud", "loud"]


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="'loud'; it is debug, info"):
        configure("loud", json=True)


def test_configuring_again_replaces_and_leaves_others_handlers_alone():
    first, second = io.StringIO(), io.StringIO()
    others = [one for one in logging.getLogger().handlers if one.get_name() != "bitswitch"]
    configure("info", json=True, stream=first)
    configure("info", json=False, stream=second)
    structlog.get_logger("bitswitch").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert set(others) <= set(logging.getLogger().handlers)


def test_names_are_compared_without_case_and_dashes():
    event = {"event": "e", "API-Key": 1, "keys": 2, "text_length": 3, "batch": ({"Input": 4, "n": 5},)}
    assert drop_private(None, "info", event) == {
        "event": "e",
        "keys": 2,
        "text_length": 3,
        "batch": [{"n": 5}],
    }
