"""Who calls: roles and tenants, as they stand in a client certificate's SPIFFE ID.

``spiffe://TRUST-DOMAIN/ROLE/NAME`` for operators, auditors and nodes, ``spiffe://TRUST-DOMAIN/tenant/TENANT/ROLE/NAME``
for owners and schedulers, who always act for one tenant, and for an auditor who may see one tenant only (SPIFFE ID and
X.509-SVID, section 2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keybroker.errors import InvalidRequestError, NotAuthenticatedError, RoleError

_PART: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
_ID: Final = re.compile(
    rf"spiffe://(?P<domain>{_PART})(?:/tenant/(?P<tenant>{_PART}))?/(?P<role>[a-z]+)/(?P<name>{_PART})\Z"
)


class Role(StrEnum):
    """What a caller may do; one certificate carries one role."""

    OWNER = "owner"
    SCHEDULER = "scheduler"
    NODE = "node"
    OPERATOR = "operator"
    AUDITOR = "auditor"


_TENANT_ROLES: Final = frozenset({Role.OWNER, Role.SCHEDULER})
_FACTORY_ROLES: Final = frozenset({Role.NODE, Role.OPERATOR})


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `tenant` is None for the factory's own people and machines."""

    role: Role
    name: str
    tenant: str | None

    def spiffe_id(self, trust_domain: str) -> str:
        """The URI that this principal's certificate carries as its only URI SAN."""
        tenant = "" if self.tenant is None else f"tenant/{self.tenant}/"
        return f"spiffe://{trust_domain}/{tenant}{self.role.value}/{self.name}"

    @property
    def key(self) -> str:
        """A short unique name, as in logs: ``tenant/acme/owner/alice``."""
        return self.spiffe_id("x").removeprefix("spiffe://x/")

    def require(self, *roles: Role) -> None:
        """Check that the caller has one of `roles`.

        Raises:
            RoleError: it has not.
        """
        if self.role not in roles:
            allowed = " or ".join(role.value for role in roles)
            raise RoleError(f"this call needs the role {allowed}; the client certificate says {self.role.value}")

    def require_tenant(self) -> str:
        """The tenant that the caller acts for.

        Raises:
            RoleError: the caller acts for none.
        """
        if self.tenant is None:
            raise RoleError("this call needs a certificate that names a tenant")
        return self.tenant


def parse_spiffe_id(uri: str, *, trust_domain: str) -> Principal:
    """Read a principal from a certificate's URI SAN.

    Raises:
        NotAuthenticatedError: another form or trust domain, an unknown role, a tenant where the role has none, or none
            where it needs one.
    """
    match = _ID.match(uri)
    if match is None or match["domain"] != trust_domain:
        raise NotAuthenticatedError(f"client certificate: {uri!r:.120} is no SPIFFE ID of {trust_domain}")
    try:
        role = Role(match["role"])
    except ValueError:
        raise NotAuthenticatedError(f"client certificate: {match['role']!r} is no role") from None
    tenant = match["tenant"]
    if (role in _TENANT_ROLES and tenant is None) or (role in _FACTORY_ROLES and tenant is not None):
        raise NotAuthenticatedError(f"client certificate: role {role.value} and tenant {tenant!r} do not go together")
    return Principal(role, match["name"], tenant)


def new_principal(role: str, name: str, tenant: str | None) -> Principal:
    """A principal to be issued a certificate.

    Raises:
        InvalidRequestError: an unknown role, a malformed name, or role and tenant that do not go together.
    """
    try:
        principal = Principal(Role(role), name, tenant)
        parse_spiffe_id(principal.spiffe_id("domain"), trust_domain="domain")
    except ValueError:
        known = ", ".join(known.value for known in Role)
        raise InvalidRequestError("role", f"{role!r:.40} is no role; known are {known}") from None
    except NotAuthenticatedError:
        raise InvalidRequestError(
            "name",
            "names are lower-case letters, digits and ._-; owners and schedulers need a tenant, "
            "auditors may have one, others have none",
        ) from None
    return principal
