"""Checkpoints: the log's signed promise "this is the root of my first N entries" (C2SP tlog-checkpoint).

The note's text is three lines, origin, tree size and base64 of the root hash. Extension lines are not written, as
the specification recommends, and not accepted from this log.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final, Self

from audit.errors import MalformedError
from audit.merkle import HASH_SIZE, MAX_TREE_SIZE
from audit.note import NoteVerifier, SignedNote, Signer, check_key_name, sign_note

_SIZE: Final = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says.

    Attributes:
        origin: the log's identity; also the name of the key that signs.
        size: number of entries.
        root: root hash of the tree over them.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_key_name(self.origin)
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise MalformedError("checkpoint", f"tree size {self.size} is out of range")
        if len(self.root) != HASH_SIZE:
            raise MalformedError("checkpoint", f"the root hash has {len(self.root)} bytes, not {HASH_SIZE}")

    def to_text(self) -> str:
        """The note text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"

    @classmethod
    def parse_text(cls, text: str) -> Self:
        """Parse a note text.

        Raises:
            MalformedError: it is not three lines of this form.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise MalformedError("checkpoint", "not three lines: origin, tree size, root hash")
        origin, size, root = lines[:3]
        if not _SIZE.match(size):
            raise MalformedError("checkpoint", f"tree size {size!r:.40} is not a decimal number")
        try:
            data = base64.b64decode(root.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError):
            raise MalformedError("checkpoint", "the root hash is not base64") from None
        checkpoint = cls(origin, int(size), data)
        if checkpoint.to_text() != text:
            raise MalformedError("checkpoint", "not canonical base64")
        return checkpoint

    def sign(self, signer: Signer) -> SignedNote:
        """Sign the checkpoint.

        Raises:
            MalformedError: the key has another name than the origin, so that no verifier would find it.
        """
        if signer.verifier.name != self.origin:
            raise MalformedError("checkpoint", f"key {signer.verifier.name!r} may not sign for {self.origin!r}")
        return sign_note(self.to_text(), [signer])


def open_checkpoint(note: bytes, verifier: NoteVerifier) -> Checkpoint:
    """Parse a signed checkpoint and check its signature by the log's key.

    Raises:
        MalformedError: it is not a checkpoint, or of another origin than the key's name.
        NoteSignatureError: the key did not sign it.
    """
    signed = SignedNote.parse(note)
    signed.verify(verifier)
    checkpoint = Checkpoint.parse_text(signed.text)
    if checkpoint.origin != verifier.name:
        raise MalformedError("checkpoint", f"origin {checkpoint.origin!r:.80} is not the key's name {verifier.name!r}")
    return checkpoint
