"""PEM bundles of certificates (RFC 7468) to DER, without decoding the certificates themselves.

AMD's leaf certificates carry a serial number that `cryptography.x509` warns about, so PEM is taken apart by itself.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from attestation.errors import MalformedError

MAX_PEM_SIZE: Final = 1 << 18
_BLOCK: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----[ \t]*\r?\n([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----", re.ASCII
)
_BOUNDARY: Final = b"-----BEGIN "


def certificates_from_pem(data: bytes) -> tuple[bytes, ...]:
    """Every certificate of a PEM bundle as DER, in order; text between the blocks is passed over.

    Raises:
        MalformedError: too long, no certificate, a block of another kind, or a block that is not base64.
    """
    if len(data) > MAX_PEM_SIZE:
        raise MalformedError("PEM bundle", f"{len(data)} bytes, at most {MAX_PEM_SIZE} are allowed")
    blocks = _BLOCK.findall(data)
    if not blocks or len(blocks) != data.count(_BOUNDARY):
        raise MalformedError("PEM bundle", f"{len(blocks)} certificates in {data.count(_BOUNDARY)} blocks")
    try:
        return tuple(base64.b64decode(b"".join(block.split()), validate=True) for block in blocks)
    except ValueError as error:
        raise MalformedError("PEM bundle", f"not base64: {error}") from None
