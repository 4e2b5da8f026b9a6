"""Job grants: what the broker promised a scheduler, signed so that any replica can check it."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keybroker.errors import GrantInvalidError
from keybroker.keys.signing import SigningKey
from keystead.binding import BindingError, JobGrant


@dataclass(frozen=True, slots=True)
class SignedGrant:
    """A grant's canonical bytes with the broker's Ed25519 signature over them."""

    grant: bytes
    signature: bytes
    key_id: str


def sign(grant: JobGrant, key: SigningKey) -> SignedGrant:
    """Sign `grant`."""
    data = grant.to_bytes()
    return SignedGrant(data, key.sign(data), key.key_id)


def open_grant(signed: SignedGrant, *, key_id: str, public_key: Ed25519PublicKey, broker: str) -> JobGrant:
    """Check the signature and the audience, then read the grant. Its times and scope are for the policy to judge.

    Raises:
        GrantInvalidError: not signed by this broker, made for another, or not the canonical encoding of a grant.
    """
    if signed.key_id != key_id:
        raise GrantInvalidError(
            f"grant: signed by key {signed.key_id!r:.40}, this broker's is {key_id}; ask AuthorizeJob again"
        )
    try:
        public_key.verify(signed.signature, signed.grant)
    except InvalidSignature:
        raise GrantInvalidError(
            "grant: the signature does not verify; pass on what AuthorizeJob returned, unchanged"
        ) from None
    try:
        grant = JobGrant.parse(signed.grant)
    except BindingError as error:
        raise GrantInvalidError(f"grant: {error}") from None
    if grant.broker != broker:
        raise GrantInvalidError(f"grant: made for broker {grant.broker!r}, this is {broker!r}")
    return grant
