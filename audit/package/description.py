"""``package.json``: what a program wants to know of an evidence package beside its records.

The manifest names what is signed; this file adds the consistency proofs, who watches the log, and the gaps.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final, Self

import rfc8785

from audit.cosignature import MAX_TIME, WitnessKey
from audit.errors import MalformedError
from audit.merkle import HASH_SIZE
from audit.package.gaps import Gap
from audit.package.manifest import OPTIONAL
from audit.proof import MAX_PROOF
from audit.records import MAX_INTEGER

FORMAT: Final = "keystead-evidence-package/v1"
NAME: Final = "package description"

_FIELDS: Final = frozenset(
    {"consistency_proofs", "counters", "format", "gaps", "quorum", "report", "signed_at", "witnesses"}
)
_MAX_WITNESSES: Final = 64


@dataclass(frozen=True, slots=True)
class Watcher:
    """A witness that the log names.

    Attributes:
        vkey: its verifier key, as text.
        cosigned_at: the time that its cosignature on the checkpoint states, in seconds since the Unix epoch; None
            where it did not cosign.
    """

    vkey: str
    cosigned_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What stands in ``package.json``.

    Attributes:
        report: version of the layout of ``report.html``, so that it can be written again and compared.
        signed_at: when the checkpoint was signed, as the log wrote it down; no signature covers this.
        counters: for a package about one asset: its entries of the span have the numbers behind the first and before
            the second of these.
        consistency_proofs: from each older checkpoint of the package to its checkpoint, by file name.
        witnesses: who the log's configuration names.
        quorum: how many of them must have cosigned before the log shows a checkpoint.
        gaps: what the package does not show.
    """

    report: int
    signed_at: int
    counters: tuple[int, int] | None
    consistency_proofs: dict[str, tuple[bytes, ...]]
    witnesses: tuple[Watcher, ...]
    quorum: int
    gaps: tuple[Gap, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        return rfc8785.dumps(
            {
                "format": FORMAT,
                "report": self.report,
                "signed_at": self.signed_at,
                "counters": None if self.counters is None else {"after": self.counters[0], "before": self.counters[1]},
                "consistency_proofs": {
                    name: [base64.b64encode(item).decode("ascii") for item in proof]
                    for name, proof in self.consistency_proofs.items()
                },
                "witnesses": [{"cosigned_at": each.cosigned_at, "vkey": each.vkey} for each in self.witnesses],
                "quorum": self.quorum,
                "gaps": [gap.to_json() for gap in self.gaps],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse `to_bytes`'s bytes; nothing else is accepted.

        Raises:
            MalformedError: it is not a description of this version.
        """
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise MalformedError(NAME, f"not JSON: {error!s:.200}") from None
        if not isinstance(value, dict) or value.keys() != _FIELDS or value["format"] != FORMAT:
            raise MalformedError(NAME, f"not an object of format {FORMAT} with its members")
        proofs = value["consistency_proofs"]
        if not isinstance(proofs, dict) or not proofs.keys() <= OPTIONAL:
            raise MalformedError(NAME, "consistency_proofs are not of the older checkpoints of a package")
        gaps, witnesses = value["gaps"], value["witnesses"]
        if not isinstance(gaps, list) or not isinstance(witnesses, list) or len(witnesses) > _MAX_WITNESSES:
            raise MalformedError(NAME, "gaps or witnesses are no list")
        description = cls(
            report=_integer(value["report"], "report"),
            signed_at=_integer(value["signed_at"], "signed_at"),
            counters=_counters(value["counters"]),
            consistency_proofs={name: _proof(proof) for name, proof in proofs.items()},
            witnesses=tuple(_watcher(each) for each in witnesses),
            quorum=_integer(value["quorum"], "quorum"),
            gaps=tuple(Gap.from_json(each) for each in gaps),
        )
        codes = [gap.code for gap in description.gaps]
        if len(set(codes)) != len(codes):
            raise MalformedError(NAME, "a kind of gap stands twice")
        if description.to_bytes() != data:
            raise MalformedError(NAME, "not in its canonical form")
        return description


def _integer(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INTEGER:
        raise MalformedError(NAME, f"{field} is not a number that it can be")
    return value


def _counters(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"after", "before"}:
        raise MalformedError(NAME, "counters are not an object of after and before")
    after, before = _integer(value["after"], "counters"), _integer(value["before"], "counters")
    if after >= before:
        raise MalformedError(NAME, f"counters: no number lies behind {after} and before {before}")
    return after, before


def _proof(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > MAX_PROOF:
        raise MalformedError(NAME, f"a consistency proof is not a list of at most {MAX_PROOF} hashes")
    proof = []
    for item in value:
        try:
            data = base64.b64decode(item, validate=True) if isinstance(item, str) else b""
        except (binascii.Error, ValueError):
            data = b""
        if len(data) != HASH_SIZE:
            raise MalformedError(NAME, "a hash of a consistency proof is not 32 bytes in base64")
        proof.append(data)
    return tuple(proof)


def _watcher(value: Any) -> Watcher:
    if not isinstance(value, dict) or value.keys() != {"cosigned_at", "vkey"} or not isinstance(value["vkey"], str):
        raise MalformedError(NAME, "a witness is not an object of cosigned_at and vkey")
    WitnessKey.parse(value["vkey"])
    time = value["cosigned_at"]
    if time is not None and _integer(time, "cosigned_at") > MAX_TIME:
        raise MalformedError(NAME, f"cosigned_at {time} is out of range")
    return Watcher(value["vkey"], time)
