"""What SEV-SNP evidence claims, by the specification's names in lower_snake; byte strings are lower-case hex."""

from __future__ import annotations

from attestation.snp.abi import (
    GUEST_POLICY_BITS,
    PLATFORM_INFO_BITS,
    AttestationReport,
    Product,
    TcbVersion,
)
from attestation.snp.endorsements import VekCertificate
from attestation.types import Json


def tcb_claim(tcb: TcbVersion) -> dict[str, Json]:
    """A TCB version as JSON; ``fmc`` is null before Turin."""
    return {"bl": tcb.bl, "tee": tcb.tee, "snp": tcb.snp, "ucode": tcb.ucode, "fmc": tcb.fmc}


def report_claims(
    report: AttestationReport, *, product: Product | None, vek: VekCertificate | None, authentic: bool
) -> dict[str, Json]:
    """Every field of the report, with the product line and the leaf's certified values.

    Args:
        report: the parsed report.
        product: product line, or None where neither CPUID nor leaf say; TCB versions are then left as hex alone.
        vek: the leaf certificate, or None where none came.
        authentic: does the signature verify with a leaf that chains to a pinned root, valid at the time?
    """
    tcbs = {
        "current_tcb": report.current_tcb,
        "reported_tcb": report.reported_tcb,
        "committed_tcb": report.committed_tcb,
        "launch_tcb": report.launch_tcb,
    }
    claims: dict[str, Json] = {
        "authentic": authentic,
        "report_version": report.version,
        "guest_svn": report.guest_svn,
        "policy": f"{report.policy:#018x}",
        "policy_abi": f"{report.policy >> 8 & 0xFF}.{report.policy & 0xFF}",
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "vmpl": report.vmpl,
        "platform_info": f"{report.platform_info:#018x}",
        "signing_key": None if report.signing_key is None else report.signing_key.name,
        "author_key_enabled": report.author_key_enabled,
        "mask_chip_key": report.mask_chip_key,
        "report_data": report.report_data.hex(),
        "measurement": report.measurement.hex(),
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "chip_id": report.chip_id.hex(),
        "chip_id_masked": report.chip_id_masked,
        "current_firmware": str(report.current_firmware),
        "committed_firmware": str(report.committed_firmware),
        "launch_mit_vector": f"{report.launch_mit_vector:#018x}",
        "current_mit_vector": f"{report.current_mit_vector:#018x}",
        "product": None if product is None else product.value,
        "debug": bool(report.policy & GUEST_POLICY_BITS["debug_allowed"]),
        "guest_policy": {name: bool(report.policy & bit) for name, bit in GUEST_POLICY_BITS.items()},
        "platform": {name: bool(report.platform_info & bit) for name, bit in PLATFORM_INFO_BITS.items()},
    }
    if report.version >= 3:
        claims["cpuid"] = f"{report.cpuid_fam_id:02x}{report.cpuid_mod_id:02x}{report.cpuid_step:02x}"
    for name, raw in tcbs.items():
        claims[f"{name}_raw"] = raw.hex()
    if product is not None:
        parsed = {raw: tcb_claim(TcbVersion.parse(raw, product)) for raw in set(tcbs.values())}
        claims.update((name, parsed[raw]) for name, raw in tcbs.items())
    if vek is not None:
        claims["vek"] = {
            "kind": vek.kind.value,
            "product_name": vek.product_name,
            "tcb": tcb_claim(vek.tcb),
            "hwid": None if vek.hwid is None else vek.hwid.hex(),
            "csp_id": vek.csp_id,
            "not_before": vek.certificate.not_before,
            "not_after": vek.certificate.not_after,
        }
    return claims
