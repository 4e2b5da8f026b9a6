"""Signed notes and their keys: C2SP signed-note v1.0.0, Ed25519 only, as Go's ``sumdb/note`` writes them.

A note is text that ends in a newline, an empty line, then signature lines ``— <name> base64(key id ‖ signature)``.
Signatures by unknown keys are ignored, as the specification asks; a bad one by a known key rejects the note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.errors import MalformedError, NoteSignatureError

MAX_NOTE_SIZE: Final = 64 * 1024
"""Bytes of a whole note; a checkpoint with sixteen post-quantum cosignatures would still fit nearly twice."""

MAX_SIGNATURES: Final = 100
"""As Go's implementation has it; the specification asks for at least 16."""

_ED25519: Final = b"\x01"
_KEY_ID_SIZE: Final = 4
_ED25519_KEY_SIZE: Final = 32
_ED25519_SIGNATURE_SIZE: Final = 64
_SIGNATURE_PREFIX: Final = "\u2014 "
PRIVATE_PREFIX: Final = "PRIVATE+KEY+"
"""What a private key in text begins with."""


def _base64(text: str, structure: str) -> bytes:
    """Decode canonical standard base64."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        raise MalformedError(structure, f"not base64: {error}") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise MalformedError(structure, "not canonical base64")
    return data


def check_key_name(name: str) -> str:
    """Return `name` if it may name a note's key.

    Raises:
        MalformedError: it is empty, or holds a space, a plus sign or a control character (C2SP signed-note, Format).
    """
    if not name or "+" in name or any(char.isspace() or ord(char) < 0x20 for char in name):
        raise MalformedError("key name", f"{name!r:.80} must be non-empty, without spaces, '+' and control characters")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("key name", f"{name!r:.80} is not valid Unicode") from None
    return name


def key_id(name: str, public_key: bytes, algorithm: bytes) -> bytes:
    """First four bytes of ``SHA-256(name ‖ 0x0A ‖ algorithm ‖ public key)`` (C2SP signed-note, Signatures)."""
    return hashlib.sha256(name.encode("utf-8") + b"\n" + algorithm + public_key).digest()[:_KEY_ID_SIZE]


def split_key(text: str, structure: str, algorithm: bytes) -> tuple[str, bytes, bytes]:
    """Split ``name+hash+base64`` into name, key id and the 32 bytes behind the byte `algorithm`.

    Raises:
        MalformedError: it has another form, or another algorithm.
    """
    name, plus, rest = text.partition("+")
    key_id_text, second_plus, key_text = rest.partition("+")
    if not plus or not second_plus:
        raise MalformedError(structure, "not NAME+KEYID+BASE64")
    check_key_name(name)
    if len(key_id_text) != 2 * _KEY_ID_SIZE or any(char not in "0123456789abcdef" for char in key_id_text):
        raise MalformedError(structure, "the key id is not eight lower-case hexadecimal digits")
    key = _base64(key_text, structure)
    if key[:1] != algorithm or len(key) != 1 + _ED25519_KEY_SIZE:
        raise MalformedError(structure, f"not an Ed25519 key of type 0x{algorithm.hex()} (the type and 32 bytes)")
    return name, bytes.fromhex(key_id_text), key[1:]


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A public key that signs notes; its text form is the *vkey* ``NAME+KEYID+BASE64``.

    Attributes:
        name: the key's name; for a log it is the checkpoint's origin.
        public_key: 32 bytes, Ed25519 (RFC 8032).
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != _ED25519_KEY_SIZE:
            raise MalformedError("verifier key", f"{len(self.public_key)} bytes, an Ed25519 key has 32")

    @property
    def key_id(self) -> bytes:
        """First four bytes of ``SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)`` (C2SP signed-note, Signatures)."""
        return key_id(self.name, self.public_key, _ED25519)

    def __str__(self) -> str:
        key = base64.b64encode(_ED25519 + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{key}"

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Parse a vkey.

        Raises:
            MalformedError: it has another form, another algorithm, or a key id that is not its key's.
        """
        name, given, public_key = split_key(vkey, "verifier key", _ED25519)
        verifier = cls(name, public_key)
        if verifier.key_id != given:
            raise MalformedError("verifier key", f"key id {given.hex()} is not this key's, {verifier.key_id.hex()}")
        return verifier

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Does `signature` (64 bytes) by this key cover `message`?"""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer(Protocol):
    """Whoever can sign for the log: a key in memory (`NoteSigner`) or one in an HSM."""

    @property
    def verifier(self) -> NoteVerifier:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature (64 bytes) over `message`."""
        ...


class NoteSigner:
    """A private key in memory that signs notes and receipts."""

    __slots__ = ("_private_key", "verifier")

    verifier: NoteVerifier
    """The public half."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.verifier = NoteVerifier(name, private_key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> Self:
        """A fresh key named `name`.

        Raises:
            MalformedError: `name` may not name a key.
        """
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, skey: str) -> Self:
        """Parse an *skey*, ``PRIVATE+KEY+NAME+KEYID+BASE64``; errors never repeat it.

        Raises:
            MalformedError: it has another form, another algorithm, or a key id that is not its key's.
        """
        if not skey.startswith(PRIVATE_PREFIX):
            raise MalformedError("signer key", "not PRIVATE+KEY+NAME+KEYID+BASE64")
        name, given, seed = split_key(skey.removeprefix(PRIVATE_PREFIX), "signer key", _ED25519)
        signer = cls(name, Ed25519PrivateKey.from_private_bytes(seed))
        if signer.verifier.key_id != given:
            raise MalformedError("signer key", "the key id is not this key's")
        return signer

    def skey(self) -> str:
        """The text form of the private key. Secret."""
        key = base64.b64encode(_ED25519 + self._private_key.private_bytes_raw()).decode("ascii")
        return f"{PRIVATE_PREFIX}{self.verifier.name}+{self.verifier.key_id.hex()}+{key}"

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature (64 bytes) over `message`."""
        return self._private_key.sign(message)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note, not verified.

    Attributes:
        name: the key's name.
        key_id: four bytes.
        signature: the bytes after the key id.
    """

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        data = base64.b64encode(self.key_id + self.signature).decode("ascii")
        return f"{_SIGNATURE_PREFIX}{self.name} {data}\n"


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A note: text with signatures. The text means nothing until `verify` has returned.

    Attributes:
        text: with its final newline.
        signatures: in the note's order.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a note.

        Raises:
            MalformedError: it is not a signed note (C2SP signed-note, Format).
        """
        if len(data) > MAX_NOTE_SIZE:
            raise MalformedError("signed note", f"{len(data)} bytes, at most {MAX_NOTE_SIZE} are allowed")
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedError("signed note", "not UTF-8") from None
        _check_characters(whole)
        head, separator, tail = whole.rpartition("\n\n")
        if not separator or not tail.endswith("\n"):
            raise MalformedError("signed note", "no empty line followed by whole signature lines")
        lines = tail[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise MalformedError("signed note", f"{len(lines)} signatures, at most {MAX_SIGNATURES} are allowed")
        return cls(head + "\n", tuple(parse_signature_line(line) for line in lines))

    def __str__(self) -> str:
        return self.text + "\n" + "".join(str(item) for item in self.signatures)

    def to_bytes(self) -> bytes:
        """The note as it is published."""
        return str(self).encode("utf-8")

    def verify(self, verifier: NoteVerifier) -> None:
        """Check that the key signed this text; signatures by other keys are ignored.

        Raises:
            NoteSignatureError: the key did not sign it, or one of its signatures is bad.
        """
        mine = [item for item in self.signatures if (item.name, item.key_id) == (verifier.name, verifier.key_id)]
        if not mine:
            others = ", ".join(f"{item.name}+{item.key_id.hex()}" for item in self.signatures)
            raise NoteSignatureError(
                f"note: not signed by {verifier.name}+{verifier.key_id.hex()}, but by {others}; "
                "check that the verifier key belongs to this log"
            )
        if not all(verifier.verify(self.text.encode("utf-8"), item.signature) for item in mine):
            raise NoteSignatureError(f"note: the signature by {verifier.name}+{verifier.key_id.hex()} is bad")


def _check_characters(text: str) -> None:
    if any(ord(char) < 0x20 and char != "\n" for char in text):
        raise MalformedError("signed note", "a control character other than newline")


def parse_signature_line(line: str) -> NoteSignature:
    """Parse one signature line, without its newline.

    Raises:
        MalformedError: it is none (C2SP signed-note, Format).
    """
    if not line.startswith(_SIGNATURE_PREFIX):
        raise MalformedError("signed note", f"signature line {line!r:.40} does not begin with an em dash and a space")
    name, space, data = line.removeprefix(_SIGNATURE_PREFIX).partition(" ")
    if not space:
        raise MalformedError("signed note", "a signature line without a signature")
    raw = _base64(data, "note signature")
    if len(raw) <= _KEY_ID_SIZE:
        raise MalformedError("note signature", f"{len(raw)} bytes, a key id and a signature are longer")
    return NoteSignature(check_key_name(name), raw[:_KEY_ID_SIZE], raw[_KEY_ID_SIZE:])


def sign_note(text: str, signers: Sequence[Signer]) -> SignedNote:
    """Sign `text` with each of `signers`, in this order.

    Raises:
        MalformedError: the text cannot stand in a note: it does not end in a newline, or holds control characters.
    """
    if not text.endswith("\n") or text == "\n":
        raise MalformedError("signed note", "the text must end in a newline and not be empty")
    _check_characters(text)
    try:
        message = text.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("signed note", "the text is not valid Unicode") from None
    if not 1 <= len(signers) <= MAX_SIGNATURES:
        raise MalformedError("signed note", f"{len(signers)} signers")
    lines = tuple(
        NoteSignature(signer.verifier.name, signer.verifier.key_id, signer.sign(message)) for signer in signers
    )
    return SignedNote(text, lines)
