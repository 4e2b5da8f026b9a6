"""SPIFFE IDs: what they say, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybroker.errors import NotAuthenticatedError, RoleError
from keybroker.principals import Principal, Role, parse_spiffe_id

DOMAIN = "factory.test"
PARTS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@given(role=st.sampled_from(list(Role)), name=PARTS, tenant=PARTS, domain=PARTS)
def test_round_trip(role: Role, name: str, tenant: str, domain: str) -> None:
    for belongs in {
        Role.OWNER: (tenant,),
        Role.SCHEDULER: (tenant,),
        Role.AUDITOR: (None, tenant),
    }.get(role, (None,)):
        principal = Principal(role, name, belongs)
        assert parse_spiffe_id(principal.spiffe_id(domain), trust_domain=domain) == principal


@given(st.text(max_size=80))
def test_any_text_is_a_principal_or_none(text: str) -> None:
    try:
        principal = parse_spiffe_id(text, trust_domain=DOMAIN)
    except NotAuthenticatedError:
        return
    assert principal.spiffe_id(DOMAIN) == text


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://factory.test",
        "spiffe://factory.test/",
        "spiffe://factory.test/operator",
        "spiffe://factory.test/operator/",
        "spiffe://factory.test/operator/a/",
        "spiffe://factory.test/operator/a\n",
        "spiffe://factory.test/operator/A",
        "spiffe://factory.test/operator/" + "a" * 64,
        "spiffe://factory.test/operator/é",
        "spiffe://factory.test/operator/%61",
        "spiffe://factory.test:443/operator/a",
        "spiffe://user@factory.test/operator/a",
        "spiffe://factory.test/root/a",
        "spiffe://factory.test/owner/a",
        "spiffe://factory.test/scheduler/a",
        "spiffe://factory.test/tenant/acme/operator/a",
        "spiffe://factory.test/tenant/acme/node/a",
        "spiffe://factory.test/tenant//owner/a",
        "spiffe://factory.test/tenant/acme/owner/a/b",
        "spiffe://other.test/operator/a",
        "spiffe://factory.test.other/operator/a",
        "http://factory.test/operator/a",
        "SPIFFE://factory.test/operator/a",
    ],
)
def test_what_is_no_id_of_this_domain(uri: str) -> None:
    with pytest.raises(NotAuthenticatedError):
        parse_spiffe_id(uri, trust_domain=DOMAIN)


def test_a_key_is_unique_to_role_tenant_and_name() -> None:
    made = [
        Principal(Role.OWNER, "a", "acme"),
        Principal(Role.OWNER, "a", "globex"),
        Principal(Role.SCHEDULER, "a", "acme"),
        Principal(Role.OWNER, "b", "acme"),
        Principal(Role.AUDITOR, "a", None),
        Principal(Role.AUDITOR, "a", "acme"),
    ]
    assert len({principal.key for principal in made}) == len(made)
    assert made[0].key == "tenant/acme/owner/a"


def test_what_a_principal_may() -> None:
    owner = Principal(Role.OWNER, "a", "acme")
    owner.require(Role.NODE, Role.OWNER)
    assert owner.require_tenant() == "acme"
    with pytest.raises(RoleError, match="node or operator"):
        owner.require(Role.NODE, Role.OPERATOR)
    with pytest.raises(RoleError):
        Principal(Role.AUDITOR, "a", None).require_tenant()
