"""Who is let in, and where a server may listen."""

from __future__ import annotations

import pytest

from bitswitch.errors import AuthenticationError
from bitswitch.tenants.caller import Caller, Keys, check_exposure


def test_without_a_key_everybody_is_the_default_tenant():
    assert Keys(None).admit(None) == Keys(None).admit("Bearer whatever") == Caller("default", "admin")


@pytest.mark.parametrize("header", ["Bearer s3cret-key", "bearer s3cret-key", "Bearer  s3cret-key "])
def test_the_key_opens(header):
    assert Keys("s3cret-key").admit(header) == Caller()


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (None, "no API key"),
        ("", "not 'Bearer"),
        ("Basic s3cret-key", "not 'Bearer"),
        ("s3cret-key", "not 'Bearer"),
        ("Bearer", "not one of this server's"),
        ("Bearer s3cret-kez", "not one of this server's"),
        ("Bearer s3cret-key2", "not one of this server's"),
        ("Bearer é\ud800", "not one of this server's"),
    ],
)
def test_nothing_else_does(header, told):
    with pytest.raises(AuthenticationError, match=told):
        Keys("s3cret-key").admit(header)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host):
    check_exposure(host, Keys(None))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_elsewhere_a_key_is_needed(host):
    with pytest.raises(ValueError, match="no key is set"):
        check_exposure(host, Keys(None))
    check_exposure(host, Keys("s3cret-key"))
