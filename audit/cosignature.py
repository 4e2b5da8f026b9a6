"""Cosignatures: a witness's statement that the log grew and nothing more (C2SP tlog-cosignature v1, Ed25519).

A cosignature is a signature line on a checkpoint by a key of type 0x04. It covers ``cosignature/v1``, the time and the
checkpoint's text. What it states: at that time this was the largest tree head of the log that the witness had seen,
and it continued every earlier one. `WitnessPolicy` says which witnesses count and how many of them are needed.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.errors import MalformedError, UnwitnessedError
from audit.note import PRIVATE_PREFIX, NoteSignature, SignedNote, check_key_name, key_id, split_key

_ALGORITHM: Final = b"\x04"
_KEY_SIZE: Final = 32
_SIGNED: Final = struct.Struct(">Q64s")
MAX_TIME: Final = (1 << 63) - 1
"""The largest time that a cosignature may state (C2SP tlog-cosignature, Format)."""


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A witness's public key; its text form is a vkey of type 0x04.

    Attributes:
        name: the witness's name.
        public_key: 32 bytes, Ed25519 (RFC 8032).
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != _KEY_SIZE:
            raise MalformedError("witness key", f"{len(self.public_key)} bytes, an Ed25519 key has {_KEY_SIZE}")

    @property
    def key_id(self) -> bytes:
        """First four bytes of ``SHA-256(name ‖ 0x0A ‖ 0x04 ‖ public key)`` (C2SP tlog-cosignature, Format)."""
        return key_id(self.name, self.public_key, _ALGORITHM)

    def __str__(self) -> str:
        key = base64.b64encode(_ALGORITHM + self.public_key).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{key}"

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Parse a vkey.

        Raises:
            MalformedError: it has another form, another algorithm, or a key id that is not its key's.
        """
        name, given, public_key = split_key(vkey, "witness key", _ALGORITHM)
        key = cls(name, public_key)
        if key.key_id != given:
            raise MalformedError("witness key", f"key id {given.hex()} is not this key's, {key.key_id.hex()}")
        return key

    def verify(self, text: str, signature: NoteSignature) -> int | None:
        """The time (seconds since the epoch) that `signature` states for the checkpoint `text`; None where it is bad.

        A line by another key is bad, too.
        """
        if (signature.name, signature.key_id) != (self.name, self.key_id) or len(signature.signature) != _SIGNED.size:
            return None
        time, data = _SIGNED.unpack(signature.signature)
        if time > MAX_TIME:
            return None
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(data, _message(text, time))
        except (InvalidSignature, ValueError):
            return None
        return int(time)


class Cosigner:
    """A witness's private key in memory."""

    __slots__ = ("_private_key", "key")

    key: WitnessKey
    """The public half."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.key = WitnessKey(name, private_key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> Self:
        """A fresh key named `name`.

        Raises:
            MalformedError: `name` may not name a key.
        """
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, skey: str) -> Self:
        """Parse ``PRIVATE+KEY+NAME+KEYID+BASE64`` of type 0x04; errors never repeat it.

        Raises:
            MalformedError: it has another form, another algorithm, or a key id that is not its key's.
        """
        if not skey.startswith(PRIVATE_PREFIX):
            raise MalformedError("witness signer key", "not PRIVATE+KEY+NAME+KEYID+BASE64")
        name, given, seed = split_key(skey.removeprefix(PRIVATE_PREFIX), "witness signer key", _ALGORITHM)
        cosigner = cls(name, Ed25519PrivateKey.from_private_bytes(seed))
        if cosigner.key.key_id != given:
            raise MalformedError("witness signer key", "the key id is not this key's")
        return cosigner

    def skey(self) -> str:
        """The text form of the private key. Secret."""
        key = base64.b64encode(_ALGORITHM + self._private_key.private_bytes_raw()).decode("ascii")
        return f"{PRIVATE_PREFIX}{self.key.name}+{self.key.key_id.hex()}+{key}"

    def cosign(self, text: str, time: int) -> NoteSignature:
        """Cosign a checkpoint's text.

        Args:
            text: the checkpoint without its signatures, with the final newline.
            time: integer seconds since the Unix epoch.

        Raises:
            MalformedError: the time is not one that a cosignature can state.
        """
        if not 0 <= time <= MAX_TIME:
            raise MalformedError("cosignature", f"time {time} is not between 0 and 2^63 - 1")
        signature = _SIGNED.pack(time, self._private_key.sign(_message(text, time)))
        return NoteSignature(self.key.name, self.key.key_id, signature)


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """Which witnesses count, and how many of them must have cosigned.

    Attributes:
        keys: the witnesses; each public key once, since one witness under two names is one witness.
        quorum: how many are needed; 0 asks for none.
    """

    keys: tuple[WitnessKey, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        if len({key.public_key for key in self.keys}) != len(self.keys):
            raise MalformedError("witness policy", "one public key stands twice; a witness counts once")
        if not 0 <= self.quorum <= len(self.keys):
            raise MalformedError("witness policy", f"quorum {self.quorum} of {len(self.keys)} witnesses")

    def times(self, note: SignedNote) -> dict[WitnessKey, int]:
        """Which witnesses cosigned `note`, with the latest time that each states (seconds since the epoch).

        Raises:
            MalformedError: a line by a witness's key is bad: somebody altered it (C2SP signed-note, Signatures).
        """
        found: dict[WitnessKey, int] = {}
        for key in self.keys:
            mine = [item for item in note.signatures if (item.name, item.key_id) == (key.name, key.key_id)]
            times = [key.verify(note.text, item) for item in mine]
            good = [time for time in times if time is not None]
            if len(good) != len(times):
                raise MalformedError("cosignature", f"the one by {key.name}+{key.key_id.hex()} is bad")
            if good:
                found[key] = max(good)
        return found

    def accepts(self, note: bytes) -> bool:
        """Whether enough witnesses cosigned the checkpoint `note`; a note that cannot be read has none."""
        if self.quorum == 0:
            return True
        try:
            return len(self.times(SignedNote.parse(note))) >= self.quorum
        except MalformedError:
            return False

    def require(self, note: bytes) -> dict[WitnessKey, int]:
        """As `times`, where a quorum is there.

        Raises:
            MalformedError: not a signed note, or a bad cosignature.
            UnwitnessedError: too few witnesses cosigned it.
        """
        found = self.times(SignedNote.parse(note))
        if len(found) < self.quorum:
            names = ", ".join(sorted(key.name for key in found)) or "none"
            raise UnwitnessedError(
                f"checkpoint: cosigned by {len(found)} of the {len(self.keys)} known witnesses ({names}), "
                f"{self.quorum} are needed; ask the log for a witnessed checkpoint, and its operator why there is none"
            )
        return found


def merge(note: SignedNote, lines: Sequence[NoteSignature]) -> SignedNote:
    """`note` with the cosignatures `lines`, each in the place of an older one by the same key."""
    keys = {(item.name, item.key_id) for item in lines}
    kept = tuple(item for item in note.signatures if (item.name, item.key_id) not in keys)
    return SignedNote(note.text, kept + tuple(lines))
