"""Who may approve declassifications: per tenant, named owners with keys, of whom a number must sign.

A set of approvers is the body of a statement of kind ``approvers`` (`keybroker.statements`)::

    tenant     whose
    serial     1 for the tenant's first set, then one more each time
    threshold  how many different approvers must sign a declassification, and the set that follows this one
    approvers  name and Ed25519 public key (64 hexadecimal digits) of each, by name; no name or key is there twice
    reason     one line
    not_after  until when it may be set (exclusive), integer seconds since the Unix epoch

The first set is the word of the owner who sets it. Every further one needs the signatures of the set that it replaces.
A name is the name in an owner's certificate, so that the author of a declassification, whom the certificate names, can
be told from those who approve it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keybroker import requests
from keybroker.errors import InvalidRequestError, StatementError
from keybroker.statements import Authorities, Json, Statement, check_name

KIND: Final = "approvers"

MAX_APPROVERS: Final = 16
MAX_INTEGER: Final = (1 << 53) - 1
_KEY_SIZE: Final = 32
_MEMBERS: Final = frozenset({"tenant", "serial", "threshold", "approvers", "reason", "not_after"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproverSet:
    """A tenant's approvers.

    Attributes:
        tenant: whose.
        serial: 1 or more.
        threshold: how many must sign.
        keys: each approver's public key by name.
        reason: why this set.
        not_after: until when it may be set (exclusive).
    """

    tenant: str
    serial: int
    threshold: int
    keys: Mapping[str, bytes]
    reason: str
    not_after: int

    def authorities(self) -> Authorities:
        """Who may sign, and how many must.

        Raises:
            StatementError: a key is none, or one key stands under two names.
        """
        keys = {}
        for name, raw in self.keys.items():
            try:
                keys[name] = Ed25519PublicKey.from_public_bytes(raw)
            except ValueError:
                raise StatementError(f"approvers: {name}", "not an Ed25519 public key") from None
        return Authorities.of(keys, threshold=self.threshold)

    def statement(self, *, author: str) -> Statement:
        """The statement to be signed.

        Raises:
            StatementError: the author's name is malformed.
        """
        body: dict[str, Json] = {
            "tenant": self.tenant,
            "serial": self.serial,
            "threshold": self.threshold,
            "approvers": [{"name": name, "public_key": self.keys[name].hex()} for name in sorted(self.keys)],
            "reason": self.reason,
            "not_after": self.not_after,
        }
        return Statement.write(kind=KIND, author=author, body=body)

    @classmethod
    def of(cls, statement: Statement) -> Self:
        """Read a statement of kind ``approvers``.

        Raises:
            StatementError: it is none, a field is malformed, a name or a key is there twice, or the threshold cannot
                be reached.
        """
        if statement.kind != KIND:
            raise StatementError("kind", f"{statement.kind!r}, this must be {KIND!r}")
        body = statement.body
        if set(body) != _MEMBERS:
            raise StatementError("body", f"needs exactly {', '.join(sorted(_MEMBERS))}")
        keys = _keys(body["approvers"])
        made = cls(
            tenant=check_name(body["tenant"], "tenant"),
            serial=_integer(body["serial"], "serial", most=MAX_INTEGER),
            threshold=_integer(body["threshold"], "threshold", most=len(keys)),
            keys=keys,
            reason=_line(body["reason"]),
            not_after=_integer(body["not_after"], "not_after", most=MAX_INTEGER),
        )
        made.authorities()
        if made.statement(author=statement.author).payload != statement.payload:
            raise StatementError("approvers", "not sorted by name")
        return made


def _keys(approvers: Json) -> dict[str, bytes]:
    if not isinstance(approvers, Sequence) or isinstance(approvers, str) or not 1 <= len(approvers) <= MAX_APPROVERS:
        raise StatementError("approvers", f"not a list of 1 to {MAX_APPROVERS}")
    keys: dict[str, bytes] = {}
    for index, each in enumerate(approvers):
        where = f"approvers[{index}]"
        if not isinstance(each, Mapping) or set(each) != {"name", "public_key"}:
            raise StatementError(where, "needs exactly name and public_key")
        name, text = check_name(each["name"], f"{where}.name"), each["public_key"]
        try:
            raw = bytes.fromhex(text) if isinstance(text, str) else b""
        except ValueError:
            raw = b""
        if len(raw) != _KEY_SIZE:
            raise StatementError(f"{where}.public_key", "not 64 hexadecimal digits, an Ed25519 public key")
        if name in keys:
            raise StatementError(f"{where}.name", f"{name!r} is there twice")
        keys[name] = raw
    return keys


def _integer(value: Json, name: str, *, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise StatementError(name, f"{value!r:.40} is not an integer from 1 to {most}")
    return value


def _line(value: Json) -> str:
    try:
        return requests.text(value if isinstance(value, str) else "", "reason")
    except InvalidRequestError as error:
        raise StatementError("reason", str(error)) from None
