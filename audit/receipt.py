"""Receipts: the log's signed promise to include an entry, given before the entry has its place.

Whoever holds a receipt can later ask for the proof that leads from its entry hash to a checkpoint. If there is
none, the receipt shows that the log broke its promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from audit.errors import MalformedError, NoteSignatureError
from audit.merkle import HASH_SIZE
from audit.note import NoteVerifier, Signer, check_key_name
from keystead.binding import LABEL_PREFIX, BindingError, decode, encode, u64

LABEL_RECEIPT: Final = LABEL_PREFIX + "audit-receipt"
LABEL_RECEIPT_BODY: Final = LABEL_PREFIX + "audit-receipt-body"

MAX_TIME: Final = (1 << 53) - 1
"""The largest integer that canonical JSON (RFC 8785) carries exactly."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A signed promise.

    Attributes:
        origin: the log that promised.
        entry_hash: RFC 9162 hash of the entry's leaf (32 bytes).
        time: when it promised, integer seconds since the Unix epoch.
        key_id: four bytes, the key's id as signed notes have it.
        signature: Ed25519 over `message`.
    """

    origin: str
    entry_hash: bytes
    time: int
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_key_name(self.origin)
        if len(self.entry_hash) != HASH_SIZE or len(self.key_id) != 4 or len(self.signature) != 64:
            raise MalformedError("receipt", "entry hash, key id and signature have 32, 4 and 64 bytes")
        if not 0 <= self.time <= MAX_TIME:
            raise MalformedError("receipt", f"time {self.time} is out of range")

    @staticmethod
    def message(*, origin: str, entry_hash: bytes, time: int) -> bytes:
        """The bytes that are signed; they begin with a zero byte, so that they can never be a note's text."""
        return encode(LABEL_RECEIPT_BODY, origin.encode("utf-8"), entry_hash, u64(time))

    @classmethod
    def issue(cls, *, entry_hash: bytes, time: int, signer: Signer) -> Self:
        """Promise, in the name of the signer's log, to include the entry.

        Raises:
            MalformedError: the hash has another size or the time is out of range.
        """
        origin = signer.verifier.name
        if not 0 <= time <= MAX_TIME or len(entry_hash) != HASH_SIZE:
            raise MalformedError("receipt", f"time {time} is out of range, or the entry hash is not 32 bytes long")
        signature = signer.sign(cls.message(origin=origin, entry_hash=entry_hash, time=time))
        return cls(origin, entry_hash, time, signer.verifier.key_id, signature)

    def verify(self, verifier: NoteVerifier) -> None:
        """Check the signature.

        Raises:
            NoteSignatureError: another log's or key's receipt, or a bad signature.
        """
        if (self.origin, self.key_id) != (verifier.name, verifier.key_id):
            raise NoteSignatureError(
                f"receipt: made by {self.origin}+{self.key_id.hex()}, not by {verifier.name}+{verifier.key_id.hex()}"
            )
        message = self.message(origin=self.origin, entry_hash=self.entry_hash, time=self.time)
        if not verifier.verify(message, self.signature):
            raise NoteSignatureError(f"receipt: the signature by {self.origin}+{self.key_id.hex()} is bad")

    def to_bytes(self) -> bytes:
        """The canonical encoding."""
        return encode(
            LABEL_RECEIPT,
            self.origin.encode("utf-8"),
            self.entry_hash,
            u64(self.time),
            self.key_id,
            self.signature,
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse `to_bytes`'s encoding; nothing else is accepted. The signature is not checked yet.

        Raises:
            MalformedError: the bytes are not the canonical encoding of a receipt.
        """
        try:
            origin, entry_hash, time, key_id, signature = decode(LABEL_RECEIPT, data, 5)
            name = origin.decode("utf-8")
        except BindingError as error:
            raise MalformedError("receipt", str(error)) from None
        except UnicodeDecodeError:
            raise MalformedError("receipt", "the origin is not UTF-8") from None
        if len(time) != 8:
            raise MalformedError("receipt", "the time has not eight bytes")
        return cls(name, entry_hash, int.from_bytes(time, "big"), key_id, signature)
