"""Judges a manifest of published evidence under one documented conformance profile per TEE.

The profiles are data (``PROFILE`` in ``attestation.snp.conformance``, ``attestation.nvgpu.conformance`` and
``attestation.nvswitch.conformance``), each deviation from the strict list with its reason, and none is keyed by a
case's name. Manifests by themselves are judged by the strict rules. A manifest's ``policy_input`` and
``injected_root`` are honoured here and nowhere else. Verdicts:

- ``pass``: authentic, and nothing that the profile holds against it.
- ``fail``: must be rejected.
- ``parse``: decoded; there is nothing to verify it with.
- ``sig-only``: the signature holds, but no collateral or chain was published.
- ``unsupported``: this verifier cannot judge the case, and says so instead of guessing.

A case agrees where the verdict is the expected one and every expected field that was computed is equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

from attestation.errors import AttestationError, ManifestError, UnsupportedError
from attestation.findings import Severity
from attestation.nvgpu import conformance as nvgpu_conformance
from attestation.nvgpu import verify as nvgpu
from attestation.nvgpu.endorsements import NvGpuAnchors
from attestation.nvidia.endorsements import DeviceAnchors
from attestation.nvswitch import conformance as nvswitch_conformance
from attestation.nvswitch import verify as nvswitch
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.pem import certificates_from_pem
from attestation.profile import Profile
from attestation.rim import conformance as rim_conformance
from attestation.rim.verify import RimAnchors
from attestation.snp import conformance as snp_conformance
from attestation.types import Collateral, DeviceResult, Evidence, Json
from attestation.verdict import Judged

MAX_FILE_SIZE: Final = 16 << 20
PROFILES: Final[tuple[Profile, ...]] = (
    snp_conformance.PROFILE,
    snp_conformance.PROFILE_SPEC_DEFAULTS,
    nvgpu_conformance.PROFILE,
    nvswitch_conformance.PROFILE,
)
"""Every profile that a case can be judged under."""

VERDICTS: Final = frozenset({"pass", "fail", "parse", "sig-only", "unsupported"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case of a manifest, its files read and their digests checked.

    Attributes:
        name, tee: as in the manifest.
        files: contents by role.
        expected: the manifest's ``expected``.
        policy_input: policy options, empty where there are none.
        injected_root: trust the case's own root.
        now: verification time, seconds since the epoch; None where the case states none.
    """

    name: str
    tee: str
    files: Mapping[str, bytes]
    expected: Mapping[str, Json]
    policy_input: Mapping[str, Json]
    injected_root: bool
    now: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """How one case was judged.

    Attributes:
        name, tee: as in the manifest.
        expected: the expected verdict.
        verdict: ours.
        agree: same verdict, and every expected field that was computed is equal.
        findings: finding codes, failing and informing, sorted.
        mismatches: expected fields that differ, each as ``name: expected …, found …``.
        why: what could not be decided, or empty.
    """

    name: str
    tee: str
    expected: str
    verdict: str
    agree: bool
    findings: tuple[str, ...]
    mismatches: tuple[str, ...] = ()
    why: str = ""

    def to_json(self) -> dict[str, Json]:
        """As in ``--json`` output."""
        return {
            "name": self.name,
            "tee": self.tee,
            "expected": self.expected,
            "verdict": self.verdict,
            "agree": self.agree,
            "findings": list(self.findings),
            "mismatches": list(self.mismatches),
            "why": self.why,
        }


class _Judge(Protocol):
    def __call__(self, case: Case) -> Judged: ...


def _judge_snp(case: Case) -> Judged:
    return snp_conformance.judge(
        case.files, policy_input=case.policy_input, injected_root=case.injected_root, now=case.now
    )


class _DeviceVerifier(Protocol):
    def __call__(
        self, evidence: Evidence, *, collateral: Collateral, nonce: bytes | None, now: int, case: Case
    ) -> DeviceResult: ...


def _verify_nvgpu(
    evidence: Evidence, *, collateral: Collateral, nonce: bytes | None, now: int, case: Case
) -> DeviceResult:
    return nvgpu.verify(
        evidence,
        anchors=_nvidia_anchors(NvGpuAnchors, case),
        reference=nvgpu_conformance.REFERENCE,
        expected_nonce=nonce,
        now=now,
        collateral=collateral,
        profile=nvgpu_conformance.PROFILE,
        allow_trailing_byte=True,
    )


def _verify_nvswitch(
    evidence: Evidence, *, collateral: Collateral, nonce: bytes | None, now: int, case: Case
) -> DeviceResult:
    return nvswitch.verify(
        evidence,
        anchors=_nvidia_anchors(NvSwitchAnchors, case),
        reference=nvswitch_conformance.REFERENCE,
        expected_nonce=nonce,
        now=now,
        collateral=collateral,
        profile=nvswitch_conformance.PROFILE,
        allow_trailing_byte=True,
    )


_Anchors = TypeVar("_Anchors", bound=DeviceAnchors)


def _nvidia_anchors(kind: type[_Anchors], case: Case) -> _Anchors:
    """NVIDIA's roots, or the case's own where it injects them."""
    anchors = kind.nvidia()
    if case.injected_root:
        anchors = kind.simulated(certificates_from_pem(case.files["device_root"])[-1])
        if "rim_root" in case.files:
            anchors = anchors.with_rims(RimAnchors.simulated(certificates_from_pem(case.files["rim_root"])[-1]))
    return anchors


def _judge_nvidia(case: Case, *, slot: str, scheme: str, verify: _DeviceVerifier, fields: _FieldReader) -> Judged:
    """Evidence of an NVIDIA device with the manifests and OCSP responses that are given.

    A role that is not known could only turn a pass into a fail, so evidence that fails by itself fails, and evidence
    that passes by itself is ``unsupported`` where such a role is left.
    """
    if "report" not in case.files or "cert_chain" not in case.files or case.now is None:
        return Judged("unsupported", (), {}, "no report, no certificate chain or no verification time")
    if case.policy_input:
        return Judged("unsupported", (), {}, "policy_input is not understood for this TEE")
    nonce = case.expected.get("nonce")
    rims = [role for role in case.files if role == "rim" or role.endswith("_rim")]
    responses = [role for role in case.files if role.startswith("ocsp")]
    try:
        result = verify(
            Evidence(slot, scheme, case.files["report"], certificates_from_pem(case.files["cert_chain"])),
            collateral=Collateral(
                rims=tuple(case.files[role] for role in rims), ocsp=tuple(case.files[role] for role in responses)
            ),
            nonce=bytes.fromhex(nonce) if isinstance(nonce, str) else None,
            now=case.now,
            case=case,
        )
    except UnsupportedError as error:
        return Judged("unsupported", (error.code,), {}, str(error))
    except AttestationError as error:
        return Judged("fail", (error.code,), {}, str(error))
    except (ValueError, KeyError) as error:
        raise ManifestError(f"{case.name}: expected.nonce or device_root: {error}") from None
    codes = tuple(sorted({finding.code for finding in result.findings}))
    computed = fields(result)
    if any(finding.severity is Severity.FAIL for finding in result.findings):
        return Judged("fail", codes, computed)
    unread = sorted(case.files.keys() - {"report", "cert_chain", "device_root", "rim_root", *rims, *responses})
    if unread:
        return Judged("unsupported", codes, computed, f"not judged: {', '.join(unread)}")
    return Judged("pass", codes, computed)


class _FieldReader(Protocol):
    def __call__(self, result: DeviceResult) -> dict[str, Json]: ...


def _judge_nvgpu(case: Case) -> Judged:
    return _judge_nvidia(
        case, slot="gpu0", scheme=nvgpu.SCHEME, verify=_verify_nvgpu, fields=nvgpu_conformance.conformance_fields
    )


def _judge_nvswitch(case: Case) -> Judged:
    return _judge_nvidia(
        case,
        slot="nvswitch0",
        scheme=nvswitch.SCHEME,
        verify=_verify_nvswitch,
        fields=nvswitch_conformance.conformance_fields,
    )


def _judge_rim(case: Case) -> Judged:
    """A manifest by itself: well-formed, its signature and chain good, at the verification time where one is stated."""
    if "rim" not in case.files:
        return Judged("unsupported", (), {}, "no manifest")
    if case.policy_input:
        return Judged("unsupported", (), {}, "policy_input is not understood for this TEE")
    anchors = RimAnchors.nvidia()
    try:
        if case.injected_root:
            anchors = RimAnchors.simulated(certificates_from_pem(case.files["rim_root"])[-1])
        return rim_conformance.judge(case.files["rim"], anchors=anchors, now=case.now)
    except AttestationError as error:
        return Judged("fail", (error.code,), {}, str(error))
    except KeyError as error:
        raise ManifestError(f"{case.name}: injected_root, but no {error}") from None


_JUDGES: Final[Mapping[str, _Judge]] = MappingProxyType(
    {"snp": _judge_snp, "nvidia": _judge_nvgpu, "nvidia-rim": _judge_rim, "nvswitch": _judge_nvswitch}
)
SUPPORTED_TEES: Final = tuple(sorted(_JUDGES))
"""The TEEs that can be judged; cases of others are ``unsupported``."""


def judge(manifest: Path, tees: Collection[str] | None = None) -> list[CaseResult]:
    """Judge every case of a manifest, in its order.

    Args:
        manifest: the JSON manifest; files are relative to its folder.
        tees: only cases of these; all where None.

    Raises:
        ManifestError: the manifest or a file cannot be used: malformed, missing, or another digest.
    """
    return [judge_case(case) for case in load_manifest(manifest, tees)]


def judge_case(case: Case) -> CaseResult:
    """Judge one case."""
    judge_tee = _JUDGES.get(case.tee)
    unsupported = Judged("unsupported", (), {}, f"TEE {case.tee} is not supported")
    judged = unsupported if judge_tee is None else judge_tee(case)
    expected = str(case.expected["verdict"])
    mismatches = tuple(_mismatches(case.expected, judged.fields))
    return CaseResult(
        name=case.name,
        tee=case.tee,
        expected=expected,
        verdict=judged.verdict,
        agree=judged.verdict == expected and not mismatches,
        findings=judged.codes,
        mismatches=mismatches,
        why=judged.why,
    )


def _mismatches(expected: Mapping[str, Json], fields: Mapping[str, Json]) -> list[str]:
    differing = []
    for name, found in sorted(fields.items()):
        if name not in expected:
            continue
        wanted = expected[name]
        # A TCB that the case writes as raw bytes is compared as raw bytes.
        value = fields.get(f"{name}_raw", found) if isinstance(wanted, str) else found
        if wanted != value:
            differing.append(f"{name}: expected {wanted}, found {value}")
    return differing


def load_manifest(path: Path, tees: Collection[str] | None = None) -> list[Case]:
    """Read a manifest and the files of its cases.

    Raises:
        ManifestError: malformed, a file missing or too long, outside the manifest's folder, or of another digest.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
        if len(data) > MAX_FILE_SIZE:
            raise ManifestError(f"{path}: longer than {MAX_FILE_SIZE} bytes")
        document = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: {error}") from None
    if not isinstance(document, list) or not document:
        raise ManifestError(f"{path}: not a list of cases")
    cases = []
    for index, entry in enumerate(document):
        where = f"{path.name}[{index}]"
        if not isinstance(entry, dict):
            raise ManifestError(f"{where}: not an object")
        if tees is None or _text(entry, "tee", where) in tees:
            cases.append(_load_case(entry, path.parent, where))
    return cases


def _load_case(entry: dict[str, Any], folder: Path, where: str) -> Case:
    name = _text(entry, "name", where)
    where = f"{where} ({name})"
    expected = _object(entry, "expected", where)
    _text(expected, "verdict", f"{where}.expected")
    paths, digests = _object(entry, "files", where), _object(entry, "sha256", where)
    files: dict[str, bytes] = {}
    for role in paths:
        data = _read(folder, _text(paths, role, f"{where}.files"), f"{where}.files.{role}")
        digest = hashlib.sha256(data).hexdigest()
        if digests.get(role) != digest:
            raise ManifestError(f"{where}.sha256.{role}: manifest says {digests.get(role)}, the file has {digest}")
        files[role] = data
    injected_root = _either(entry, expected, "injected_root", default=False)
    policy_input = _either(entry, expected, "policy_input", default={})
    if not isinstance(injected_root, bool) or not isinstance(policy_input, dict):
        raise ManifestError(f"{where}: injected_root is not a boolean or policy_input is not an object")
    return Case(
        name=name,
        tee=_text(entry, "tee", where),
        files=files,
        expected=expected,
        policy_input=policy_input,
        injected_root=injected_root,
        now=_instant(expected, f"{where}.expected"),
    )


def _read(folder: Path, relative: str, where: str) -> bytes:
    try:
        path = (folder / relative).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        # A NUL or half a surrogate pair in the name, a name that is too long, links that go round in a circle.
        raise ManifestError(f"{where}: {relative!r:.80}: {error}") from None
    if not path.is_relative_to(folder.resolve()):
        raise ManifestError(f"{where}: {relative!r:.80} is outside the manifest's folder")
    try:
        if path.stat().st_size > MAX_FILE_SIZE:
            raise ManifestError(f"{where}: {relative} is longer than {MAX_FILE_SIZE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{where}: {error}") from None


def _instant(expected: dict[str, Any], where: str) -> int | None:
    if "verification_time" not in expected:
        return None
    text = _text(expected, "verification_time", where)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise ManifestError(f"{where}.verification_time: {error}") from None
    if instant.tzinfo is None:
        raise ManifestError(f"{where}.verification_time: {text} has no time zone")
    return int(instant.timestamp())


def _either(entry: dict[str, Any], expected: dict[str, Any], name: str, *, default: object) -> object:
    return entry.get(name, expected.get(name, default))


def _text(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise ManifestError(f"{where}.{name}: not a string")
    return value


def _object(entry: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    value = entry.get(name)
    if not isinstance(value, dict):
        raise ManifestError(f"{where}.{name}: not an object")
    return value
