"""Errors of sealed files and their manifests.

::

    SealedError
    ├── NotAuthenticError         bytes that this key did not seal in this context: altered, cut, extended, swapped
    ├── KeyMaterialError          a data key, signing key or public key of another kind or size
    ├── SealingError              what is to be sealed cannot be: too long, changed while it was read, a bad name
    ├── ManifestError             a manifest that is not the canonical form or breaks a rule
    │   └── ManifestSignatureError    a manifest that its owner did not sign, or another one than was vouched for
    ├── PlaintextOnDiskError      plaintext would be written to storage, and nobody asked for that
    └── ClosedError               a reader that was closed

`NotAuthenticError` is the one answer to every way in which a sealed file can be wrong: which byte was altered is
nothing an attacker should learn, and nothing a reader could act on. Input and output fail as `OSError`, as ever.
"""

from __future__ import annotations

from typing import ClassVar


class SealedError(Exception):
    """Base of this package's errors; `code` is stable, the text is for people."""

    code: ClassVar[str] = "SEALED_ERROR"


class NotAuthenticError(SealedError):
    """Bytes that this key did not seal in this context: altered, cut, extended, swapped, or sealed for another."""

    code: ClassVar[str] = "SEALED_NOT_AUTHENTIC"


class KeyMaterialError(SealedError):
    """A data key, signing key or public key of another kind or size than the format needs."""

    code: ClassVar[str] = "BAD_KEY_MATERIAL"


class SealingError(SealedError):
    """What is to be sealed cannot be: too long, changed while it was read, or a name the format refuses."""

    code: ClassVar[str] = "CANNOT_SEAL"


class ManifestError(SealedError):
    """A manifest that is not in the canonical form or breaks one of the format's rules."""

    code: ClassVar[str] = "BAD_SEALED_MANIFEST"


class ManifestSignatureError(ManifestError):
    """A manifest that its owner did not sign, or another one than was vouched for."""

    code: ClassVar[str] = "SEALED_MANIFEST_NOT_AUTHENTIC"


class PlaintextOnDiskError(SealedError):
    """Plaintext would be written to storage, and nobody asked for that."""

    code: ClassVar[str] = "PLAINTEXT_ON_DISK_REFUSED"


class ClosedError(SealedError):
    """The reader was closed; its key and its plaintext are gone."""

    code: ClassVar[str] = "SEALED_READER_CLOSED"
