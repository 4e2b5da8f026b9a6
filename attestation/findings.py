"""Findings: what a verifier decided against, where, against what, by which rule, and how to mend it.

Each scheme declares its checks as `Check`s in its own ``checks.py``; `attestation.registry` collects them. A
`Finding` can only be made from a `Check`, so the registry and the checks cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

THIS_SESSION: Final = "this session"
"""Reference of what the verifier itself chose for one appraisal: nonces, and what is derived from them."""


class Severity(StrEnum):
    """What a finding does to the verdict."""

    FAIL = "fail"
    INFORM = "inform"


@dataclass(frozen=True, slots=True)
class Check:
    """One rule of a strict verifier.

    Attributes:
        code: stable, UPPER_SNAKE, prefixed with the scheme (``SNP_DEBUG_ALLOWED``).
        title: the rule in a few words, as a person would say it.
        field: the specification's name of what is checked.
        source: document, revision and section that the rule comes from.
        remedy: what the operator of the node can do about it.
        severity: what a violation does under the strict profile, production's default.
    """

    code: str
    title: str
    field: str
    source: str
    remedy: str
    severity: Severity = Severity.FAIL

    def finding(self, *, expected: str, actual: str, where: str = "", reference: str = "") -> Finding:
        """A violation of this rule.

        Args:
            expected: what the rule asks for.
            actual: what was found instead.
            where: narrows `field` (an index, a certificate's subject).
            reference: who says what is expected, where it is not the rule's own `source`: a reference value file, a
                manifest, an advisory.
        """
        return Finding(
            code=self.code,
            title=self.title,
            field=f"{self.field} {where}".strip(),
            expected=expected,
            actual=actual,
            remedy=self.remedy,
            severity=self.severity,
            reference=reference or self.source,
        )


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One violated rule: found `actual` where `expected` was asked for by `reference`."""

    code: str
    field: str
    expected: str
    actual: str
    title: str
    remedy: str
    severity: Severity
    reference: str

    def to_json(self) -> dict[str, str]:
        """The finding as it stands in Attestation Results and ``--json`` output."""
        return {
            "code": self.code,
            "field": self.field,
            "expected": self.expected,
            "actual": self.actual,
            "title": self.title,
            "remedy": self.remedy,
            "severity": self.severity.value,
            "reference": self.reference,
        }


class Passed(NamedTuple):
    """One rule that held, kept so that a person sees what was checked and not only what failed."""

    code: str
    title: str
    field: str
    value: str


class CheckLog:
    """Collects, in order, what was checked and what was found; one per device and verification."""

    __slots__ = ("findings", "passed")

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.passed: list[Passed] = []

    def require(
        self, check: Check, *, ok: bool, expected: str, actual: str, where: str = "", reference: str = ""
    ) -> bool:
        """Record the outcome of `check` and return `ok`; `reference` as in `Check.finding`."""
        if ok:
            field = f"{check.field} {where}" if where else check.field
            # What `Passed(…)` does, less one call in Python: some thirty rules hold for every device.
            self.passed.append(tuple.__new__(Passed, (check.code, check.title, field, actual)))
        else:
            self.findings.append(check.finding(expected=expected, actual=actual, where=where, reference=reference))
        return ok
