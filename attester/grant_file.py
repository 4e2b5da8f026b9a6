"""The file in which a scheduler hands a job's grant to its nodes.

JSON with the members ``format``, ``broker`` (its logical name), ``grant``, ``signature`` and ``nonce`` (each base64,
RFC 4648 section 4) and ``key_id``. Nothing in it is secret: a grant opens nothing without a node's evidence.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from attester.errors import CredentialError
from attester.handshake import SignedGrant
from keystead.v1.job_service_pb2 import AuthorizeJobResponse, ExtendJobResponse, JobGrant, RequeueJobResponse
from sealed.atomic import atomic_file

FORMAT: Final = "keystead/v1/grant-file"
MAX_SIZE: Final = 2 << 20
_MEMBERS: Final = frozenset({"format", "broker", "grant", "signature", "key_id", "nonce"})


@dataclass(frozen=True, slots=True)
class GrantFile:
    """What AuthorizeJob answered, as the nodes of the job need it.

    Attributes:
        broker: the broker's logical name.
        grant: the signed bytes.
        signature: the broker's, over `grant`.
        key_id: which key of the broker signed.
        nonce: which every node of the job may use once.
    """

    broker: str
    grant: bytes
    signature: bytes
    key_id: str
    nonce: bytes

    @classmethod
    def from_response(cls, response: AuthorizeJobResponse | ExtendJobResponse | RequeueJobResponse) -> Self:
        """Take it from the broker's answer."""
        signed = response.grant
        return cls(response.broker, signed.grant, signed.signature, signed.key_id, response.nonce)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            CredentialError: too long, not JSON, a member is missing, unknown or malformed, or the grant is no grant.
        """
        if len(data) > MAX_SIZE:
            raise CredentialError(f"grant file: {len(data)} bytes, at most {MAX_SIZE} are allowed")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CredentialError(f"grant file: not JSON: {error}") from None
        if not isinstance(document, dict) or document.keys() != _MEMBERS:
            raise CredentialError(f"grant file: must have the members {', '.join(sorted(_MEMBERS))}, and no others")
        for name, value in document.items():
            if not isinstance(value, str) or not value.isascii():
                raise CredentialError(f"grant file: {name}: not a text of ASCII characters")
        if document["format"] != FORMAT:
            raise CredentialError(f"grant file: format {document['format']!a:.60}, this release reads {FORMAT}")
        grant = cls(
            broker=document["broker"],
            grant=_decode(document["grant"], "grant"),
            signature=_decode(document["signature"], "signature"),
            key_id=document["key_id"],
            nonce=_decode(document["nonce"], "nonce"),
        )
        try:
            _ = grant.signed
        except CredentialError as error:
            raise CredentialError(f"grant file: {error}") from None
        return grant

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a grant file.

        Raises:
            CredentialError: it is none.
            OSError: it cannot be read.
        """
        with file.open("rb") as source:
            return cls.parse(source.read(MAX_SIZE + 1))

    @property
    def signed(self) -> SignedGrant:
        """The grant as `attester.acquire` takes it; that the broker signed it is for the broker to check.

        Raises:
            CredentialError: not the canonical encoding of a grant.
        """
        return SignedGrant.from_proto(JobGrant(grant=self.grant, signature=self.signature, key_id=self.key_id))

    def to_bytes(self) -> bytes:
        """The file's content."""
        document = {
            "format": FORMAT,
            "broker": self.broker,
            "grant": base64.b64encode(self.grant).decode("ascii"),
            "signature": base64.b64encode(self.signature).decode("ascii"),
            "key_id": self.key_id,
            "nonce": base64.b64encode(self.nonce).decode("ascii"),
        }
        return (json.dumps(document, indent=2) + "\n").encode("ascii")

    def write(self, file: Path) -> None:
        """Write it: whole, or not at all.

        Raises:
            OSError: it cannot be written.
        """
        with atomic_file(file, mode=0o644) as sink:
            sink.write(self.to_bytes())


def _decode(text: str, member: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CredentialError(f"grant file: {member}: not base64") from None
