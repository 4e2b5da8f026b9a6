"""One line of ``records.jsonl``: a record with all that leads from it to the checkpoint's root.

A line is canonical JSON (RFC 8785), and so is the record in it: its bytes there are the very bytes that the leaf
commits to, and a reader in any language can cut them out without a canonical encoder of its own.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from audit.envelope import SALT_SIZE, Leaf
from audit.errors import MalformedError
from audit.merkle import HASH_SIZE, MAX_TREE_SIZE
from audit.proof import MAX_PROOF
from audit.records import MAX_INTEGER, MAX_ITEMS, MAX_PAYLOAD

MAX_LINE: Final = MAX_PAYLOAD + 32 * 1024
"""Bytes of a line: a record, its proof and its numbers."""

_FIELDS: Final = frozenset({"counters", "index", "inclusion_proof", "leaf_hash", "record", "salt", "state"})


class State(StrEnum):
    """Whether a record can be read."""

    READABLE = "readable"
    ERASED = "erased"
    SEALED = "sealed"
    """It is there, but whoever built the package had no key to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One entry of the log; nothing of it is verified yet.

    Attributes:
        index: its place in the log.
        leaf_hash: RFC 9162 hash of its leaf.
        inclusion_proof: from the leaf's sibling upwards, to the root of the package's one checkpoint.
        counters: the numbers it has among the entries of the package's asset; none where the package is of no asset.
        state: whether the record is there.
        salt, payload: what the leaf commits to; both None unless the state is readable.
    """

    index: int
    leaf_hash: bytes
    inclusion_proof: tuple[bytes, ...]
    counters: tuple[int, ...]
    state: State
    salt: bytes | None
    payload: bytes | None

    def to_bytes(self) -> bytes:
        """The line with its newline; the record goes in as the bytes that it is."""
        head = json.dumps(
            {
                "counters": list(self.counters),
                "index": self.index,
                "inclusion_proof": [_encode(item) for item in self.inclusion_proof],
                "leaf_hash": self.leaf_hash.hex(),
            },
            separators=(",", ":"),
        )
        tail = json.dumps(
            {"salt": None if self.salt is None else _encode(self.salt), "state": self.state.value},
            separators=(",", ":"),
        )
        record = b"null" if self.payload is None else self.payload
        return head[:-1].encode("ascii") + b',"record":' + record + b"," + tail[1:].encode("ascii") + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse `to_bytes`'s bytes; nothing else is accepted.

        Raises:
            MalformedError: it is not a line of this form.
        """
        if len(data) > MAX_LINE:
            raise MalformedError("package record", f"longer than {MAX_LINE} bytes")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise MalformedError("package record", f"not JSON: {error!s:.200}") from None
        if not isinstance(value, dict) or value.keys() != _FIELDS:
            raise MalformedError("package record", f"not an object of {', '.join(sorted(_FIELDS))}")
        record = value["record"]
        if record is not None and not isinstance(record, dict):
            raise MalformedError("package record", "record is not an object")
        try:
            # As `audit.records.Record.payload` encodes; where a record is written otherwise the line differs below.
            payload = None if record is None else json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
            state = State(value["state"])
        except (ValueError, RecursionError, TypeError) as error:
            raise MalformedError("package record", f"{error!s:.200}") from None
        salt = None if value["salt"] is None else _decode(value["salt"], SALT_SIZE, "salt")
        if (salt is None) != (record is None) or (record is None) == (state is State.READABLE):
            raise MalformedError("package record", "record and salt are there where it is readable, and nowhere else")
        line = cls(
            index=_integer(value["index"], MAX_TREE_SIZE - 1, "index"),
            leaf_hash=_hash(value["leaf_hash"]),
            inclusion_proof=tuple(
                _decode(item, HASH_SIZE, "inclusion_proof")
                for item in _list(value["inclusion_proof"], MAX_PROOF, "inclusion_proof")
            ),
            counters=tuple(
                _integer(item, MAX_INTEGER, "counters") for item in _list(value["counters"], MAX_ITEMS, "counters")
            ),
            state=state,
            salt=salt,
            payload=payload,
        )
        if line.to_bytes() != data:
            raise MalformedError("package record", "not in its canonical form")
        return line

    def committed(self) -> bytes | None:
        """The leaf hash that salt and record lead to; None where the record is not there."""
        if self.salt is None or self.payload is None:
            return None
        return Leaf.commit(salt=self.salt, payload=self.payload).entry_hash()


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(value: object, size: int, field: str) -> bytes:
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size:
        raise MalformedError("package record", f"{field}: not {size} bytes in base64")
    return data


def _hash(value: object) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * HASH_SIZE or not set(value) <= set("0123456789abcdef"):
        raise MalformedError("package record", "leaf_hash is not a hash in hexadecimal")
    return bytes.fromhex(value)


def _integer(value: object, limit: int, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise MalformedError("package record", f"{field}: not a number that it can be")
    return value


def _list(value: object, limit: int, field: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise MalformedError("package record", f"{field} is not a list of at most {limit} values")
    return value
