"""Settings: who has the say, and that a wrong one stops the start with its name."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from bitswitch.settings import Settings, SettingsError, read_settings

NEEDED = {"base": "b", "store": "s"}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("BITSWITCH_"):
            monkeypatch.delenv(name)


def test_what_is_given_wins_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    config = tmp_path / "bitswitch.toml"
    config.write_text('base = "from-file"\nstore = "s"\nport = 1\nqueue_limit = 7\nmax_inputs = 9\n')
    monkeypatch.setenv("BITSWITCH_PORT", "2")
    monkeypatch.setenv("BITSWITCH_QUEUE_LIMIT", "8")
    settings = read_settings(config, port=3, host=None)
    assert (settings.port, settings.queue_limit, settings.max_inputs) == (3, 8, 9)
    assert settings.max_text_chars == 65_536
    assert (str(settings.base), settings.host) == ("from-file", "127.0.0.1")


def test_sizes_may_have_units(monkeypatch):
    monkeypatch.setenv("BITSWITCH_RESIDENT_BYTES", "2GiB")
    settings = read_settings(**NEEDED, max_upload_bytes="1MiB")
    assert (settings.resident_bytes, settings.max_upload_bytes) == (2 * 2**30, 2**20)


def test_a_list_comes_as_json_or_toml_or_one_by_one(tmp_path, monkeypatch):
    config = tmp_path / "bitswitch.toml"
    config.write_text('pin = ["a", "other/b@3"]\n')
    assert read_settings(config, **NEEDED).pin == ("a", "other/b@3")
    monkeypatch.setenv("BITSWITCH_PIN", '["c@prod"]')
    assert read_settings(config, **NEEDED).pin == ("c@prod",)
    assert read_settings(config, **NEEDED, pin=["d"]).pin == ("d",)
    monkeypatch.setenv("BITSWITCH_PIN", "c@prod")
    with pytest.raises(SettingsError, match=r'"pin".*JSON, such as \["a", "b"\]'):
        read_settings(**NEEDED)


def test_the_key_is_not_shown():
    settings = read_settings(**NEEDED, api_key="very-secret")
    assert "very-secret" not in repr(settings)
    assert settings.api_key == SecretStr("very-secret")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("port", "70000", "less than or equal to 65535"),
        ("port", "tcp://10.0.0.1:80", "valid integer"),
        ("device", "gpu", "cpu, cuda"),
        ("dtype", "int8", "'bfloat16'"),
        ("queue_limit", "0", "greater than or equal to 1"),
        ("request_timeout", "nan", "finite"),
        ("request_timeout", "0", "greater than 0"),
        ("resident_bytes", "lots", "byte"),
        ("log_level", "loud", "'warning'"),
        ("router_mode", "best", "'top1'"),
        ("docs", "perhaps", "boolean"),
        ("threads", "-1", "greater than or equal to 1"),
        ("api_key", "short", "at least 8"),
    ],
)
def test_a_bad_value_stops_the_start_with_its_name(monkeypatch, name, value, told):
    monkeypatch.setenv(f"BITSWITCH_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"^{name}") as caught:
        read_settings(**NEEDED)
    assert told in str(caught.value)
    assert name != "api_key" or value not in str(caught.value)


def test_every_fault_is_told_at_once():
    with pytest.raises(SettingsError) as caught:
        read_settings(base="b", port=-1)
    assert [line.partition(" ")[0] for line in str(caught.value).splitlines()] == ["store", "port"]
    assert "--store or BITSWITCH_STORE" in str(caught.value)


def test_an_unknown_key_is_refused_wherever_it_stands(tmp_path, monkeypatch):
    config = tmp_path / "bitswitch.toml"
    config.write_text("batch_row = 3\n")
    with pytest.raises(SettingsError, match="batch_row is no setting; batch_rows was meant"):
        read_settings(config, **NEEDED)
    with pytest.raises(SettingsError, match="batchrows is no setting"):
        read_settings(**NEEDED, batchrows=3)
    monkeypatch.setenv("BITSWITCH_QUEUE_LIMITS", "3")
    with pytest.raises(SettingsError, match=r"BITSWITCH_QUEUE_LIMITS is no setting; .*_LIMIT was"):
        read_settings(**NEEDED)


def test_what_kubernetes_sets_for_a_service_of_our_name_is_let_be(monkeypatch):
    monkeypatch.setenv("BITSWITCH_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("BITSWITCH_PORT_8000_TCP_ADDR", "10.0.0.1")
    assert read_settings(**NEEDED).port == 8000


@pytest.mark.parametrize(("text", "told"), [(None, "there is no file"), ("port = [", "cannot be read")])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path, text, told):
    config = tmp_path / "bitswitch.toml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(SettingsError, match=told):
        read_settings(config, **NEEDED)


def test_every_setting_says_what_it_is():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_deleted_switch_is_kept_longer_than_a_request_takes():
    with pytest.raises(
        SettingsError, match=r"collect_after \(60 s\) is not more than request_timeout \(60 s\)"
    ):
        read_settings(**NEEDED, collect_after=60)


def test_faults_of_several_settings_at_once_tell_no_secret():
    with pytest.raises(SettingsError) as refused:
        read_settings(
            **NEEDED, collect_after=1, api_key="very-secret", database_url="postgresql://u:very-secret@h/d"
        )
    assert "very-secret" not in str(refused.value)
