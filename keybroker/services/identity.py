"""Who calls: the principal in the client certificate that mutual TLS verified."""

from __future__ import annotations

import grpc

from keybroker.errors import NotAuthenticatedError
from keybroker.principals import Principal, Role, parse_spiffe_id


def principal(context: grpc.ServicerContext, *roles: Role, trust_domain: str) -> Principal:
    """The caller, who must have one of `roles`.

    Raises:
        NotAuthenticatedError: the certificate's one URI SAN is no SPIFFE ID of `trust_domain`.
        RoleError: another role.
    """
    # What gRPC itself found: the only URI SAN, and a SPIFFE ID (X.509-SVID, section 2). A DNS name or an address that
    # reads like one stands among the alternative names, too, and is none.
    value = context.auth_context().get("peer_spiffe_id", ())
    found = (value,) if isinstance(value, bytes) else tuple(value)
    if len(found) != 1:
        raise NotAuthenticatedError("client certificate: needs exactly one URI SAN, a SPIFFE ID")
    caller = parse_spiffe_id(found[0].decode("ascii", "replace"), trust_domain=trust_domain)
    caller.require(*roles)
    return caller
