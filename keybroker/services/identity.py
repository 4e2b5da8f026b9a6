"""Who calls: the principal in the client certificate that mutual TLS verified."""

from __future__ import annotations

import grpc

from keybroker.errors import NotAuthenticatedError
from keybroker.principals import Principal, Role, parse_spiffe_id


def principal(context: grpc.ServicerContext, *roles: Role, trust_domain: str) -> Principal:
    """The caller, who must have one of `roles`.

    Raises:
        NotAuthenticatedError: the certificate has no single SPIFFE ID of `trust_domain`.
        RoleError: another role.
    """
    found = context.auth_context().get("x509_subject_alternative_name", ())
    names = (found,) if isinstance(found, bytes) else tuple(found)
    uris = [name.decode("ascii", "replace") for name in names if name.startswith(b"spiffe://")]
    if len(uris) != 1:
        raise NotAuthenticatedError(f"client certificate: {len(uris)} SPIFFE IDs, exactly one is needed")
    caller = parse_spiffe_id(uris[0], trust_domain=trust_domain)
    caller.require(*roles)
    return caller
