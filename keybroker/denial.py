"""A refusal and all its reasons: what was checked, where, what was found and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from attestation.findings import Finding, Severity
from audit.records import Record
from keybroker.errors import KeybrokerError
from policy.decision import Denial


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """One reason for a refusal; `reference` says whose word `expected` is, empty where it is the broker's own rule."""

    code: str
    field: str
    expected: str
    actual: str
    message: str
    remedy: str
    reference: str = ""


def from_findings(findings: Iterable[Finding], *, slot: str) -> list[Reason]:
    """The failing findings of one device as reasons; `slot` says whose they are."""
    return [
        Reason(
            code=finding.code,
            field=f"{slot}: {finding.field}",
            expected=finding.expected,
            actual=finding.actual,
            message=finding.title,
            remedy=finding.remedy,
            reference=finding.reference,
        )
        for finding in findings
        if finding.severity is Severity.FAIL
    ]


def from_denials(denials: Iterable[Denial]) -> list[Reason]:
    """A policy's denials as reasons."""
    return [
        Reason(
            code=denial.code,
            field=denial.field,
            expected=denial.expected,
            actual=denial.actual,
            message=denial.message,
            remedy=denial.remedy,
            reference=denial.reference,
        )
        for denial in denials
    ]


def ordered(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Each reason once, sorted."""
    return tuple(sorted(set(reasons)))


def at_most(reasons: Iterable[Reason], most: int) -> tuple[Reason, ...]:
    """Up to `most` of `reasons`, sorted: the first of each code before any comes again."""
    known: set[str] = set()
    ranked = []
    for reason in sorted(set(reasons)):
        ranked.append((reason.code in known, reason))
        known.add(reason.code)
    return tuple(sorted(reason for _, reason in sorted(ranked)[:most]))


class DeniedError(KeybrokerError):
    """The decision is no.

    Attributes:
        reasons: every reason at once, sorted; never empty.
        record_hash: RFC 9162 hash of the audit entry that remembers the refusal; empty where it was aggregated.
    """

    code: ClassVar[str] = "DENIED"

    def __init__(self, reasons: Iterable[Reason], *, record_hash: bytes = b"") -> None:
        self.reasons = ordered(reasons)
        self.record_hash = record_hash
        codes = ", ".join(dict.fromkeys(reason.code for reason in self.reasons))
        super().__init__(f"denied: {codes}")


class RefusedError(KeybrokerError):
    """A unit of work found that the answer is no; nothing of it is committed but `record`, which whoever ran it does.

    Attributes:
        reasons: every reason at once.
        record: of the refusal.
    """

    code: ClassVar[str] = "REFUSED"

    def __init__(self, reasons: Iterable[Reason], record: Record) -> None:
        self.reasons = ordered(reasons)
        self.record = record
        super().__init__(f"refused: {', '.join(dict.fromkeys(reason.code for reason in self.reasons))}")
