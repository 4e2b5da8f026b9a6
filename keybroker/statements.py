"""Statements that several people sign: what exactly they sign, and who did.

A *statement* is one canonical JSON document (RFC 8785)::

    {"author": NAME, "body": {...}, "kind": KIND, "version": 1}

Each signature is a compact JWS (RFC 7515) over exactly those bytes by Ed25519 (``EdDSA``, RFC 8037), whose header has
``alg``, ``kid`` and ``typ`` and nothing else: ``kid`` names the signer, ``typ`` is ``keystead-KIND+jws``, so that a
signature for one kind of statement is none for another. Whoever verifies says who may sign, how many must, and whether
the author is one of them. One signature that does not verify refuses the statement: nothing is skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NoReturn, Self, TypeAlias

import jwt
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keybroker.errors import SignaturesMissingError, StatementError
from keystead.binding import sha256

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"
"""JSON without floats."""

ALGORITHM: Final = "EdDSA"
VERSION: Final = 1

MAX_STATEMENT: Final = 64 << 10
"""Bytes of one statement."""

MAX_SIGNATURES: Final = 16

_MAX_TOKEN: Final = 2 * MAX_STATEMENT
_KIND: Final = re.compile(r"[a-z][a-z-]{0,31}\Z")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorities:
    """Who may sign, and how many must.

    Attributes:
        keys: each authority's public key by its name; no two have the same key.
        threshold: how many different ones must have signed.
    """

    keys: Mapping[str, Ed25519PublicKey]
    threshold: int

    @classmethod
    def of(cls, keys: Mapping[str, Ed25519PublicKey], *, threshold: int) -> Self:
        """Check and freeze them.

        Raises:
            StatementError: a name is malformed, or two names have one key, so that one person could be two.
        """
        for name in keys:
            check_name(name, "authority")
        if len({key.public_bytes_raw() for key in keys.values()}) != len(keys):
            raise StatementError("authorities", "two names have the same key: one person could sign as two")
        return cls(keys=MappingProxyType(dict(keys)), threshold=threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What is signed.

    Attributes:
        kind: what kind of statement it is, in lower-case letters and hyphens.
        author: who wrote it.
        body: what it says.
        payload: the canonical bytes; these are what is signed.
    """

    kind: str
    author: str
    body: Mapping[str, Json]
    payload: bytes

    @classmethod
    def write(cls, *, kind: str, author: str, body: Mapping[str, Json]) -> Self:
        """Make a statement.

        Raises:
            StatementError: a name is malformed, or the body has no canonical form or is too long.
        """
        return cls.parse(_encode({"author": author, "body": body, "kind": kind, "version": VERSION}))

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Read a statement.

        Raises:
            StatementError: not the canonical bytes of one.
        """
        if len(payload) > MAX_STATEMENT:
            raise StatementError("statement", f"{len(payload)} bytes, at most {MAX_STATEMENT} are allowed")
        try:
            document = json.loads(payload, parse_float=_refuse, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise StatementError("statement", f"not JSON: {error}") from None
        if not isinstance(document, dict) or set(document) != {"author", "body", "kind", "version"}:
            raise StatementError("statement", "not an object with author, body, kind and version")
        if document["version"] != VERSION or isinstance(document["version"], bool):
            raise StatementError("version", f"{document['version']!r:.20}, this release knows {VERSION}")
        kind, body = document["kind"], document["body"]
        if not isinstance(kind, str) or not _KIND.match(kind):
            raise StatementError("kind", "not lower-case letters and hyphens")
        if not isinstance(body, dict):
            raise StatementError("body", "not an object")
        if _encode(document) != payload:
            raise StatementError("statement", "not in canonical form (RFC 8785): sign it as it was written")
        author = check_name(document["author"], "author")
        return cls(kind=kind, author=author, body=MappingProxyType(body), payload=payload)

    @classmethod
    def of_document(cls, document: object) -> Self:
        """The statement that a JSON document is, in whatever form it was written down.

        Raises:
            StatementError: it is none.
        """
        return cls.parse(_encode(document))

    @property
    def digest(self) -> bytes:
        """SHA-256 of the payload: what people compare before they sign."""
        return sha256(self.payload)

    def sign(self, key: Ed25519PrivateKey, *, signer: str) -> str:
        """Sign as the authority `signer`; returns the compact JWS.

        Raises:
            StatementError: the name is malformed.
        """
        headers = {"typ": media_type(self.kind), "kid": check_name(signer, "signer")}
        return jwt.PyJWS().encode(self.payload, key, algorithm=ALGORITHM, headers=headers, sort_headers=True)


def media_type(kind: str) -> str:
    """The ``typ`` of signatures over statements of `kind`."""
    return f"keystead-{kind}+jws"


def check_name(value: object, field: str) -> str:
    """The name of an author or an authority, checked.

    Raises:
        StatementError: it is none.
    """
    if not isinstance(value, str) or not _NAME.match(value):
        raise StatementError(field, f"{value!r:.80}: names are lower-case letters, digits and ._-, 63 at most")
    return value


def signer_of(token: str) -> str:
    """Whom a signature claims to be by; nothing of it is verified.

    Raises:
        StatementError: not a compact JWS with a ``kid``.
    """
    if len(token) > _MAX_TOKEN:
        raise StatementError("signature", f"{len(token)} characters, at most {_MAX_TOKEN} are allowed")
    try:
        return check_name(jwt.PyJWS().get_unverified_header(token).get("kid"), "signature.kid")
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise StatementError("signature", f"not a compact JWS: {error}") from None


def verify_signature(statement: Statement, token: str, *, keys: Mapping[str, Ed25519PublicKey]) -> str:
    """Verify one signature over `statement`; returns who made it.

    Raises:
        StatementError: not made over exactly this statement by one of `keys` under its own name.
    """
    signer = signer_of(token)
    key = keys.get(signer)
    if key is None:
        known = ", ".join(sorted(keys)) or "none"
        raise StatementError("signature.kid", f"{signer!r} is no authority here; known are: {known}")
    jws = jwt.PyJWS()
    try:
        header = jws.get_unverified_header(token)
        if set(header) != {"alg", "kid", "typ"} or header["typ"] != media_type(statement.kind):
            raise StatementError(
                f"signature of {signer}", f"its header is not alg, kid and typ {media_type(statement.kind)!r}"
            )
        payload = jws.decode(token, key, algorithms=[ALGORITHM])
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise StatementError(f"signature of {signer}", f"does not verify: {error}") from None
    if payload != statement.payload:
        raise StatementError(f"signature of {signer}", "was made over another statement")
    return signer


def verify(
    payload: bytes,
    signatures: Iterable[str],
    *,
    kind: str,
    authorities: Authorities,
    author_counts: bool,
) -> tuple[Statement, tuple[str, ...]]:
    """Verify a statement with all its signatures.

    Args:
        payload: the statement's bytes.
        signatures: compact JWS, one for each signer.
        kind: the kind that it must be.
        authorities: who may sign, and how many must.
        author_counts: whether the author's own signature is one of those; otherwise it is refused.

    Returns:
        The statement, and who signed it in sorted order.

    Raises:
        StatementError: not such a statement, or a signature is wrong, twice there, or its author's.
        SignaturesMissingError: too few have signed.
    """
    statement = Statement.parse(payload)
    if statement.kind != kind:
        raise StatementError("kind", f"{statement.kind!r}, this must be {kind!r}")
    tokens = list(signatures)
    if len(tokens) > MAX_SIGNATURES:
        raise StatementError("signatures", f"{len(tokens)}, at most {MAX_SIGNATURES} are allowed")
    signers = [verify_signature(statement, token, keys=authorities.keys) for token in tokens]
    if len(set(signers)) != len(signers):
        raise StatementError("signatures", "an authority has signed twice: each counts once")
    if not author_counts and statement.author in signers:
        raise StatementError("signatures", f"{statement.author!r} wrote it and cannot approve it")
    if len(signers) < authorities.threshold:
        raise SignaturesMissingError(
            found=len(signers), needed=authorities.threshold, missing=sorted(authorities.keys.keys() - set(signers))
        )
    return statement, tuple(sorted(signers))


def _encode(document: object) -> bytes:
    try:
        return rfc8785.dumps(document)  # type: ignore[arg-type]  # it refuses what is not JSON by itself
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise StatementError("statement", f"has no canonical form: {error}") from None


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"number {text:.40} is not an integer")
