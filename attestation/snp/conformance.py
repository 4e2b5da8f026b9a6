"""How published SEV-SNP evidence is judged: the one conformance profile of this scheme, never production's.

The rules are those of the shared vectors' README: signature, chain, the leaf's TCB and HWID, MIGRATE_MA and what a
case's ``policy_input`` pins decide; everything else informs, each for the reason that stands beside it. The reference
values ask for nothing, so that a minimum or a pin comes from ``policy_input`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from attestation.errors import AttestationError, MalformedError, UnsupportedError
from attestation.findings import CheckLog, Severity
from attestation.pem import certificates_from_pem
from attestation.profile import Deviation, Profile
from attestation.snp import azure_checks, checks
from attestation.snp.abi import SUPPORTED_VERSIONS, AttestationReport, GuestPolicy, Product, TcbVersion
from attestation.snp.azure_hcl import HclReport
from attestation.snp.cert_table import VCEK_GUID, VLEK_GUID, parse_cert_table
from attestation.snp.certificate import AmdCertificate
from attestation.snp.claims import report_claims
from attestation.snp.endorsements import SnpAnchors, crl_content
from attestation.snp.verify import SCHEME, SnpReference, verify
from attestation.types import Collateral, DeviceResult, Evidence, Json
from attestation.verdict import Judged

_SPEC_DEFAULTS: Final = (
    (checks.DEBUG, "debug guests are published as good evidence; only a case that enforces the defaults refuses them"),
    (checks.POLICY_RESERVED, "only a case that enforces the specification's defaults judges reserved policy bits"),
)
_INFORMS: Final = (
    (checks.VERSION, "version 2 reports are published and carry no CPUID"),
    (checks.VMPL, "the AWS sample was asked for at VMPL 1"),
    (checks.CRL_MISSING, "most samples come without a CRL"),
    (checks.CHIP_ID_MASKED, "the AWS sample's chip id is masked"),
    (checks.PROVISIONAL, "published samples run firmware that is not committed yet"),
    (checks.ALIAS_CHECK, "samples older than the alias check are published"),
    (checks.PLATFORM_UNKNOWN, "the Turin sample has platform bit 6 set, which the specification reserves"),
    (checks.POLICY_PLATFORM, "the vectors do not judge the platform's set-up"),
)
PROFILE: Final = Profile(
    "snp-conformance",
    MappingProxyType(
        {check.code: Deviation(Severity.INFORM, reason) for check, reason in (*_INFORMS, *_SPEC_DEFAULTS)}
    ),
)
"""Which findings inform instead of failing, and why."""

PROFILE_SPEC_DEFAULTS: Final = Profile(
    "snp-conformance with enforce_spec_defaults",
    MappingProxyType({check.code: Deviation(Severity.INFORM, reason) for check, reason in _INFORMS}),
)
"""The same for cases whose ``policy_input`` says ``enforce_spec_defaults``."""

REFERENCE: Final = SnpReference(
    minimum_tcb=MappingProxyType(
        {
            Product.MILAN: TcbVersion(bl=0, tee=0, snp=0, ucode=0),
            Product.GENOA: TcbVersion(bl=0, tee=0, snp=0, ucode=0),
            Product.TURIN: TcbVersion(fmc=0, bl=0, tee=0, snp=0, ucode=0),
        }
    ),
    versions=SUPPORTED_VERSIONS,
    policy_allowed=GuestPolicy.SMT | GuestPolicy.CXL,
)
"""The vectors ask for no TCB, policy or platform of their own."""

_PINS: Final = {
    "expected_measurement_hex": "measurements",
    "expected_host_data_hex": "host_data",
    "expected_id_key_digest_hex": "id_key_digests",
    "expected_author_key_digest_hex": "author_key_digests",
    "expected_family_id_hex": "family_ids",
    "expected_image_id_hex": "image_ids",
}
_MINIMA: Final = ("bl", "tee", "snp", "ucode", "fmc")
REPORT_ROLES: Final = frozenset({"report", "vek", "ca_chain", "crl", "hcl_report", "cert_table"})
"""What is read; other roles carry the same evidence in another envelope and are not."""


@dataclass(frozen=True, slots=True)
class _Policy:
    """A case's ``policy_input`` as reference values."""

    reference: SnpReference
    profile: Profile
    report_data: bytes | None


def judge(
    files: Mapping[str, bytes], *, policy_input: Mapping[str, Json], injected_root: bool, now: int | None
) -> Judged:
    """Judge one SEV-SNP case.

    Args:
        files: contents by role.
        policy_input: the case's policy options; one that is not known makes the case ``unsupported``.
        injected_root: trust the case's own ARK.
        now: the case's verification time, seconds since the epoch; None where it states none.
    """
    try:
        if "report" not in files:
            return _judge_crl(files, injected_root=injected_root, now=now)
        if "vek" not in files:
            report = AttestationReport.parse(files["report"])
            return Judged(
                "parse", (), _fields(report_claims(report, product=report.product, vek=None, authentic=False))
            )
        policy = _policy(policy_input)
        if now is None:
            return Judged("unsupported", (), {}, "the case states no verification time")
        return _judge_report(files, policy=policy, injected_root=injected_root, now=now)
    except UnsupportedError as error:
        return Judged("unsupported", (error.code,), {}, str(error))
    except AttestationError as error:
        return Judged("fail", (error.code,), {}, str(error))


def _judge_report(files: Mapping[str, bytes], *, policy: _Policy, injected_root: bool, now: int) -> Judged:
    authorities = certificates_from_pem(files["ca_chain"]) if "ca_chain" in files else ()
    anchors = SnpAnchors.simulated(authorities[-1]) if injected_root and authorities else SnpAnchors.amd()
    result = verify(
        Evidence("cpu0", SCHEME, files["report"], (files["vek"], *authorities)),
        collateral=Collateral(crls=_current_crls(files, now)),
        anchors=anchors,
        reference=policy.reference,
        expected_report_data=policy.report_data,
        now=now,
        profile=policy.profile,
    )
    log = CheckLog()
    _check_envelopes(files, result, log)
    findings = (*result.findings, *log.findings)
    failing = {finding.code for finding in findings if finding.severity is Severity.FAIL}
    verdict = "fail" if failing else "pass"
    if not authorities and failing == {checks.CHAIN_SHAPE.code}:
        verdict = "sig-only"
    return Judged(verdict, tuple(sorted({finding.code for finding in findings})), _fields(result.claims))


def _current_crls(files: Mapping[str, bytes], now: int) -> tuple[bytes, ...]:
    """The case's CRL where its window covers `now`; the profile consults no other."""
    if "crl" not in files:
        return ()
    crl = crl_content(files["crl"])
    return (files["crl"],) if crl.this_update <= now < crl.next_update else ()


def _check_envelopes(files: Mapping[str, bytes], result: DeviceResult, log: CheckLog) -> None:
    """An HCL report binds its runtime data; a certificate table carries the leaf that the case names."""
    if "hcl_report" in files:
        hcl = HclReport.parse(files["hcl_report"])
        stated, expected = result.claims["report_data"], hcl.expected_report_data.hex()
        log.require(
            azure_checks.HCL_RUNTIME_DATA,
            ok=hcl.report == files["report"] and stated == expected,
            expected=expected,
            actual=str(stated),
        )
    if "cert_table" in files:
        table = parse_cert_table(files["cert_table"])
        log.require(
            checks.CHAIN_SHAPE,
            ok=files["vek"] in (table.get(VCEK_GUID), table.get(VLEK_GUID)),
            expected="the leaf",
            actual=f"{len(table)} certificates",
            where="in the certificate table",
        )


def _judge_crl(files: Mapping[str, bytes], *, injected_root: bool, now: int | None) -> Judged:
    """A revocation list by itself: signed by the pinned ARK, current, and ASK not on it."""
    if "crl" not in files or "ca_chain" not in files or now is None:
        return Judged("unsupported", (), {}, "neither a report nor a CRL with its issuer and a time")
    authorities = certificates_from_pem(files["ca_chain"])
    anchors = SnpAnchors.simulated(authorities[-1]) if injected_root else SnpAnchors.amd()
    log = CheckLog()
    ask, ark = (AmdCertificate.parse(der, what="authority") for der in (authorities[0], authorities[-1]))
    if not anchors.is_pinned(authorities[-1]):
        raise MalformedError("CRL case", "ca_chain does not end in a pinned ARK")
    log.require(checks.CHAIN_SIGNATURE, ok=ask.is_signed_by(ark), expected="signed by the ARK", actual=ask.common_name)
    anchors.check_revocation(ask=ask, ark=ark, crls=(files["crl"],), number_floor=0, now=now, log=log)
    crl = crl_content(files["crl"])
    return Judged(
        "fail" if log.findings else "pass",
        tuple(sorted({finding.code for finding in log.findings})),
        {
            "revoked_serials": [f"{serial:#x}" for serial in sorted(crl.revoked_serials)],
            "this_update": _iso(crl.this_update),
            "next_update": _iso(crl.next_update),
        },
    )


def _policy(policy_input: Mapping[str, Json]) -> _Policy:
    """Reference values of a ``policy_input``.

    Raises:
        UnsupportedError: an option that is not known, or a value of another type than it has.
    """
    options = policy_input.get("policy", {})
    unknown = sorted(policy_input.keys() - {"policy"})
    if unknown or not isinstance(options, Mapping):
        raise UnsupportedError(f"policy_input: {unknown or 'policy'} is not understood")
    reference, profile, report_data = REFERENCE, PROFILE, None
    minima: dict[str, int] = {}
    for name, value in options.items():
        if name == "enforce_spec_defaults" and isinstance(value, bool):
            profile = PROFILE_SPEC_DEFAULTS if value else PROFILE
        elif name in _PINS:
            reference = _pinned(reference, _PINS[name], _hex(name, value))
        elif name == "expected_report_data_hex":
            report_data = _hex(name, value)
        elif (
            name.startswith("min_tcb_")
            and name.endswith("_spl")
            and name[8:-4] in _MINIMA
            and isinstance(value, int)
            and not isinstance(value, bool)
        ):
            minima[name[8:-4]] = value
        elif name == "min_guest_svn" and isinstance(value, int) and not isinstance(value, bool):
            reference = replace(reference, minimum_guest_svn=value)
        else:
            raise UnsupportedError(f"policy_input.policy.{name} is not understood")
    if minima:
        reference = replace(
            reference,
            minimum_tcb=MappingProxyType(
                {
                    product: TcbVersion(
                        bl=minima.get("bl", 0),
                        tee=minima.get("tee", 0),
                        snp=minima.get("snp", 0),
                        ucode=minima.get("ucode", 0),
                        fmc=minima.get("fmc", 0) if product is Product.TURIN else None,
                    )
                    for product in Product
                }
            ),
        )
    return _Policy(reference, profile, report_data)


def _pinned(reference: SnpReference, field: str, value: bytes) -> SnpReference:
    pin = frozenset({value})
    match field:
        case "measurements":
            return replace(reference, measurements=pin)
        case "host_data":
            return replace(reference, host_data=pin)
        case "id_key_digests":
            return replace(reference, id_key_digests=pin)
        case "author_key_digests":
            return replace(reference, author_key_digests=pin)
        case "family_ids":
            return replace(reference, family_ids=pin)
        case _:
            return replace(reference, image_ids=pin)


def _hex(name: str, value: Json) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else _refuse(name)
    except ValueError:
        return _refuse(name)


def _refuse(name: str) -> bytes:
    raise UnsupportedError(f"policy_input.policy.{name} is not hex")


def _fields(claims: Mapping[str, Json]) -> dict[str, Json]:
    """`claims` under the names that a manifest's ``expected`` uses."""
    fields = {
        name: claims[name]
        for name in (
            "report_version",
            "report_data",
            "measurement",
            "host_data",
            "vmpl",
            "policy",
            "debug",
            "chip_id",
            "chip_id_masked",
            "product",
            "reported_tcb",
            "reported_tcb_raw",
            "cpuid",
        )
        if name in claims
    }
    vek = claims.get("vek")
    if isinstance(vek, Mapping):
        for name in ("not_before", "not_after"):
            instant = vek[name]
            if isinstance(instant, int):
                fields[f"vek_{name}"] = _iso(instant)
        if vek["csp_id"] is not None:
            fields["csp_id"] = vek["csp_id"]
    return fields


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
