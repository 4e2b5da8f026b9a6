"""How published manifests are judged by themselves, and what a manifest of cases calls their parts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from attestation.findings import CheckLog
from attestation.rim import checks
from attestation.rim.verify import RimAnchors, check_signer, verify_rim
from attestation.types import DeviceResult, Json
from attestation.verdict import Judged


def judge(data: bytes, *, anchors: RimAnchors, now: int | None) -> Judged:
    """Judge one manifest by the strict rules.

    Args:
        data: the document.
        anchors: pinned roots of manifests.
        now: verification time, seconds since the epoch; None where the case states none, and validity is not judged.
    """
    log = CheckLog()
    # Nothing but the signer's validity depends on the time.
    rim = verify_rim(data, anchors=anchors, now=now or 0, log=log)
    if rim is not None and now is not None:
        check_signer(rim, now=now, grace=0, log=log)
    fields: dict[str, Json] = {}
    passed, failed = {each.code for each in log.passed}, {each.code for each in log.findings}
    for name, check in (
        ("xml_digest", checks.DIGEST),
        ("xml_signature", checks.SIGNATURE),
        ("chain", checks.CHAIN),
    ):
        if check.code in passed | failed:
            fields[name] = check.code in passed
    if rim is not None:
        fields |= {
            "root_pinned": True,
            "product": rim.document.product,
            "rim_version": rim.document.version,
            "active": len(rim.document.active),
            "total": len(rim.document.measurements),
            "cert_window": window(rim.not_before, rim.not_after),
        }
    return Judged("fail" if log.findings else "pass", tuple(sorted(failed)), fields)


def manifest_fields(result: DeviceResult) -> dict[str, Json]:
    """What `result` says of the manifests used, under the names that a manifest of cases uses; empty unless it passed.

    Cases state comparisons with manifests that do not verify too; of those nothing is read here.
    """
    manifests = result.claims["reference_manifests"]
    if not result.ok or not isinstance(manifests, Mapping) or not manifests:
        return {}
    fields: dict[str, Json] = {}
    active = 0
    for name, rim in manifests.items():
        if not isinstance(rim, Mapping):
            raise TypeError(f"claims: reference_manifests.{name} is no object")
        fields[f"{name}_rim_id"] = f"{rim['product']} ['{rim['version']}']"
        fields[f"{name}_rim_cert_window"] = window(_whole(rim["signer_valid_from"]), _whole(rim["signer_valid_until"]))
        active += _whole(rim["active"])
    fields["rim_compare"] = {"active_golden": active, "mismatched_indexes": [], "conflicting_indexes": []}
    return fields


def window(not_before: int, not_after: int) -> list[Json]:
    """A validity window as manifests of cases write it."""
    return [datetime.fromtimestamp(each, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for each in (not_before, not_after)]


def _whole(value: Json) -> int:
    """A claim that is a whole number."""
    if not isinstance(value, int):
        raise TypeError(f"claims: {value!r:.40} is no whole number")
    return value
