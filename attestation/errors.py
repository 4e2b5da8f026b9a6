"""Errors of the Verifier: raised when evidence cannot be judged at all.

::

    AttestationError
    ├── MalformedError            bytes that are not the structure they are said to be
    ├── UnsupportedError          a version, product, algorithm or scheme that this verifier does not know
    ├── TrustAnchorError          no trust anchor was configured for what the evidence needs
    ├── ManifestError             a conformance manifest, reference values or profile that cannot be used
    ├── ReferenceSignatureError   reference values or advisories that no known signer vouches for
    └── ResultError               an Attestation Result that is not authentic, not current or not well formed

An exception means "could not decide". What was decided against is a `Finding` (`attestation.findings`).
"""

from __future__ import annotations

from typing import ClassVar


class AttestationError(Exception):
    """Base of this package's errors; `code` is stable, the text is for people."""

    code: ClassVar[str] = "ATTESTATION_ERROR"


class MalformedError(AttestationError):
    """Bytes that are not the structure they are said to be.

    Attributes:
        structure: the specification's name of the structure.
        offset: byte offset within it, or None where no single offset is to blame.
    """

    code: ClassVar[str] = "MALFORMED"

    def __init__(self, structure: str, problem: str, *, offset: int | None = None) -> None:
        at = "" if offset is None else f" at offset {offset:#x}"
        super().__init__(f"{structure}{at}: {problem}")
        self.structure = structure
        self.offset = offset


class UnsupportedError(AttestationError):
    """A version, product, algorithm or scheme that this verifier does not know."""

    code: ClassVar[str] = "UNSUPPORTED"


class TrustAnchorError(AttestationError):
    """No trust anchor was configured for what the evidence needs; there are no default anchors to fall back on."""

    code: ClassVar[str] = "NO_TRUST_ANCHOR"


class ManifestError(AttestationError):
    """A conformance manifest, a set of reference values or a profile that cannot be used as it stands."""

    code: ClassVar[str] = "BAD_MANIFEST"


class ReferenceSignatureError(AttestationError):
    """Reference values or advisories whose signature is missing, malformed, not authentic or by too few signers."""

    code: ClassVar[str] = "BAD_REFERENCE_SIGNATURE"


class ResultError(AttestationError):
    """An Attestation Result that is not authentic, not current, of another issuer, or not well formed."""

    code: ClassVar[str] = "BAD_ATTESTATION_RESULT"
