"""Roles, and where a server without keys may listen."""

from __future__ import annotations

import pytest

from bitswitch.tenants.caller import Caller, Role, check_exposure


def test_who_needs_no_key_is_the_default_tenant_s_admin():
    assert Caller() == Caller("default", Role.ADMIN, None, None)


def test_each_role_reaches_as_far_as_those_before_it():
    reached = {role: [needed for needed in Role if role.reaches(needed)] for role in Role}
    assert reached == {
        Role.CALLER: [Role.CALLER],
        Role.PUBLISHER: [Role.CALLER, Role.PUBLISHER],
        Role.ADMIN: [Role.CALLER, Role.PUBLISHER, Role.ADMIN],
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host):
    check_exposure(host, keyed=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_elsewhere_a_key_is_needed(host):
    with pytest.raises(ValueError, match="there is no key; make one with 'bitswitch keys create"):
        check_exposure(host, keyed=False)
    check_exposure(host, keyed=True)
