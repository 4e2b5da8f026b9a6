"""Running a stored appraisal again: on what it rested on then, and on something else to see what that would change.

Both go through `keybroker.judgement.judge`, as the appraisal itself did. Nothing is fetched, and no clock is read.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from pydantic import JsonValue

from attestation import ear
from attestation.composite import NodeEvidence
from audit.proof import ProofBundle
from audit.records import Record
from keybroker.appraisal_record import Package, Policy
from keybroker.errors import AppraisalRecordError
from keybroker.judgement import PROFILE, judge
from keybroker.trust import Material, Trust, TrustFile
from keystead.binding import BindingError, RuntimeData, sha256
from policy.bundle import Bundle
from policy.engine import PolicyEngine

NODE: Final = "node"
"""Where findings stand that are about the node as a whole."""

_FINDINGS: Final = "keystead.findings"
_REFERENCE: Final = "reference_"
"""Roles and options about reference values and who signs them."""

_SIGNATURES: Final = "signatures"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an appraisal came to.

    Attributes:
        allow: whether verification and policy accept the node.
        deny: the policy's denials.
        claims: the Attestation Result's, in canonical JSON.
        input_digest: of the policy's input.
        policy_digest: identifies the policy (`policy.engine.PolicyEngine.digest`).
    """

    allow: bool
    deny: tuple[Mapping[str, object], ...]
    claims: bytes = field(repr=False)
    input_digest: bytes
    policy_digest: str

    def document(self) -> dict[str, JsonValue]:
        """The claims."""
        document = json.loads(self.claims)
        if not isinstance(document, dict):
            raise AppraisalRecordError("claims: not a JSON object")
        return document

    def findings(self) -> dict[str, list[dict[str, str]]]:
        """Every finding by the slot of its device, or `NODE`."""
        document = self.document()
        return {NODE: _findings(document), **{slot: _findings(each) for slot, each in _submods(document)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that a judgement is made of.

    Attributes:
        evidence: of the node.
        runtime: what the CPU evidence vouches for.
        material: the bytes that trust is made of.
        policy: the appraisal policy.
        verifier: name of the logical verifier.
        lifetime: seconds until the result expires.
        now: the appraisal's time, integer seconds since the Unix epoch.
    """

    evidence: NodeEvidence
    runtime: RuntimeData
    material: Material
    policy: Policy
    verifier: str
    lifetime: int
    now: int

    @classmethod
    def of(cls, package: Package) -> Inputs:
        """What a package's appraisal was made of.

        Raises:
            AppraisalRecordError: it was made under a profile that this release does not have, or its runtime data are
                malformed.
        """
        record = package.record
        if record.profile != PROFILE.name:
            raise AppraisalRecordError(f"appraisal record: profile {record.profile!r:.40}, known is {PROFILE.name!r}")
        try:
            runtime = RuntimeData.parse(record.runtime_data)
        except BindingError as error:
            raise AppraisalRecordError(f"appraisal record: runtime data: {error}") from None
        return cls(
            evidence=package.evidence(),
            runtime=runtime,
            material=package.material(),
            policy=package.policy(),
            verifier=record.verifier,
            lifetime=record.lifetime,
            now=record.appraised_at,
        )

    def judge(self) -> Outcome:
        """Make the judgement.

        Raises:
            ConfigError: trust cannot be made of the material.
            AttestationError: evidence that cannot be judged.
            PolicyError: the policy cannot be used, or could not decide.
        """
        engine = PolicyEngine(Bundle.load(self.policy.bundle), data=self.policy.data)
        judgement = judge(
            self.evidence,
            runtime=self.runtime,
            trust=Trust.of(self.material),
            policy=engine,
            verifier=self.verifier,
            lifetime=self.lifetime,
            now=self.now,
        )
        return Outcome(
            allow=judgement.allow,
            deny=tuple(denial.to_json() for denial in judgement.decision.deny),
            claims=ear.canonical(judgement.claims),
            input_digest=sha256(judgement.document),
            policy_digest=engine.digest,
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """An appraisal run again on what it rested on.

    Attributes:
        then: what it came to, as recorded.
        again: what it comes to.
    """

    then: Outcome
    again: Outcome

    @property
    def identical(self) -> bool:
        """Byte for byte the same claims, and the same decision on the same policy input."""
        return (self.then.claims, self.then.allow, self.then.deny, self.then.input_digest) == (
            self.again.claims,
            self.again.allow,
            self.again.deny,
            self.again.input_digest,
        )


def replay(package: Package) -> Replay:
    """Run a package's appraisal again.

    Raises:
        AppraisalRecordError, ConfigError, AttestationError, PolicyError: it cannot be run by this release.
    """
    record = package.record
    again = Inputs.of(package).judge()
    then = Outcome(
        allow=record.allow,
        deny=record.deny,
        claims=record.claims,
        input_digest=record.input_digest,
        policy_digest=again.policy_digest,
    )
    return Replay(then, again)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """What to judge by instead; None, or a role that is not there, means "as it was".

    Attributes:
        material: all that trust is made of.
        files: instead of all files of their role (`keybroker.trust.ROLES`), laid over `material`. Reference values that
            come without signatures come without signers too.
        bundle: the compiled appraisal pack's file.
        data: laid over the pack's own data.
        now: the time, integer seconds since the Unix epoch.
    """

    material: Material | None = None
    files: Mapping[str, tuple[TrustFile, ...]] = field(default_factory=lambda: MappingProxyType({}))
    bundle: bytes | None = None
    data: Mapping[str, object] | None = None
    now: int | None = None

    def apply(self, inputs: Inputs) -> Inputs:
        """`inputs` with these in their place."""
        material = self.material or inputs.material
        files, options = dict(material.files), dict(material.options)
        if _SIGNATURES in self.files:
            names = {file.name for file in self.files[_SIGNATURES]}
            others = (file for file in material.of(_SIGNATURES) if file.name not in names)
            files[_SIGNATURES] = (*others, *self.files[_SIGNATURES])
        elif "reference_values" in self.files:
            files = {role: each for role, each in files.items() if not role.startswith(_REFERENCE)}
            options = {name: each for name, each in options.items() if not name.startswith(_REFERENCE)}
        return replace(
            inputs,
            material=Material(
                MappingProxyType(files | {role: each for role, each in self.files.items() if role != _SIGNATURES}),
                MappingProxyType(options),
            ),
            policy=Policy(
                inputs.policy.bundle if self.bundle is None else self.bundle,
                inputs.policy.data if self.data is None else self.data,
            ),
            now=inputs.now if self.now is None else self.now,
        )


@dataclass(frozen=True, slots=True)
class ChangedFinding:
    """A rule that is violated in both, but not in the same way."""

    slot: str
    before: Mapping[str, str]
    after: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ChangedClaim:
    """A claim, by its path, that is not what it was; None where it is not there."""

    path: str
    before: JsonValue
    after: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What differs between two outcomes.

    Attributes:
        allow: the decision before and after.
        findings_new, findings_gone: by slot; violated in one of them only.
        findings_changed: violated in both, with another severity, expectation or value.
        deny_new, deny_gone: the policy's denials.
        claims: every other claim.
    """

    allow: tuple[bool, bool]
    findings_new: tuple[tuple[str, Mapping[str, str]], ...]
    findings_gone: tuple[tuple[str, Mapping[str, str]], ...]
    findings_changed: tuple[ChangedFinding, ...]
    deny_new: tuple[Mapping[str, object], ...]
    deny_gone: tuple[Mapping[str, object], ...]
    claims: tuple[ChangedClaim, ...]

    @property
    def verdict(self) -> bool:
        """Does the verdict differ?"""
        return self.allow[0] is not self.allow[1]


def changes(before: Outcome, after: Outcome) -> Changes:
    """What differs between `before` and `after`."""
    new: list[tuple[str, Mapping[str, str]]] = []
    gone: list[tuple[str, Mapping[str, str]]] = []
    changed: list[ChangedFinding] = []
    findings = before.findings(), after.findings()
    for slot in sorted(findings[0].keys() | findings[1].keys()):
        rules = _by_rule(findings[0].get(slot, [])), _by_rule(findings[1].get(slot, []))
        for rule in sorted(rules[0].keys() | rules[1].keys()):
            old, current = rules[0].get(rule, []), rules[1].get(rule, [])
            pairs = min(len(old), len(current))
            changed += [ChangedFinding(slot, *pair) for pair in zip(old, current, strict=False) if pair[0] != pair[1]]
            gone += [(slot, finding) for finding in old[pairs:]]
            new += [(slot, finding) for finding in current[pairs:]]
    flat = dict(_flat(before.document(), "")), dict(_flat(after.document(), ""))
    return Changes(
        allow=(before.allow, after.allow),
        findings_new=tuple(new),
        findings_gone=tuple(gone),
        findings_changed=tuple(changed),
        deny_new=tuple(denial for denial in after.deny if denial not in before.deny),
        deny_gone=tuple(denial for denial in before.deny if denial not in after.deny),
        claims=tuple(
            ChangedClaim(path, flat[0].get(path), flat[1].get(path))
            for path in sorted(flat[0].keys() | flat[1].keys())
            if flat[0].get(path) != flat[1].get(path)
        ),
    )


def entry(package: Package) -> tuple[ProofBundle, Record] | None:
    """The log's entry that rests on a package's appraisal; None where the package has none.

    Digests lead from the entry's record to the appraisal's. That the entry is in the log is for
    `audit.proof.verify_bundle` to say, with the log's key.

    Raises:
        AppraisalRecordError: the entry rests on another appraisal, or was erased.
        MalformedError: the proof is no proof bundle.
    """
    if package.proof is None or package.decision is None:
        return None
    bundle = ProofBundle.parse(package.proof)
    if bundle.payload is None:
        raise AppraisalRecordError(f"proof: entry {bundle.index} was erased")
    record = Record.parse(bundle.payload)
    if record.input_digest != sha256(package.decision).hex():
        raise AppraisalRecordError(f"proof: entry {bundle.index} is about another decision")
    return bundle, record


def _submods(document: Mapping[str, JsonValue]) -> list[tuple[str, dict[str, JsonValue]]]:
    submods = document.get("submods")
    if not isinstance(submods, dict):
        raise AppraisalRecordError("claims: no submods")
    return [(slot, each) for slot, each in sorted(submods.items()) if isinstance(each, dict)]


def _findings(claims: Mapping[str, JsonValue]) -> list[dict[str, str]]:
    found = claims.get(_FINDINGS)
    if not isinstance(found, list):
        raise AppraisalRecordError(f"claims: {_FINDINGS} is not a list")
    findings = []
    for each in found:
        if not isinstance(each, dict) or not {"code", "field", "severity"} <= each.keys():
            raise AppraisalRecordError(f"claims: {_FINDINGS} holds what is no finding")
        findings.append({name: str(value) for name, value in each.items()})
    return findings


def _by_rule(findings: list[dict[str, str]]) -> dict[tuple[str, str], list[dict[str, str]]]:
    rules: defaultdict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for finding in findings:
        rules[finding["code"], finding["field"]].append(finding)
    return rules


def _flat(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    """Every claim that is no object, by its path; findings are not among them."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name != _FINDINGS:
                yield from _flat(each, f"{path}.{name}" if path else name)
    else:
        yield path, value
