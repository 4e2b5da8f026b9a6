"""Evidence of Azure's paravisor before the shipped appraisal policy: accepted where settings name its scheme."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.composite import NodeEvidence
from attestation.simulator.azure import HclDefect, SimulatedAzureVm
from attestation.simulator.node import SimulatedVendors
from keybroker.judgement import Judgement, judge
from keybroker.trust import Material, Trust
from keystead.binding import HPKE_PUBLIC_KEY_SIZE, NONCE_SIZE, RuntimeData
from policy.engine import PolicyEngine
from policy.inputs import Settings
from policy.sources import default_bundle

NOW = 1_790_000_000
SESSION = RuntimeData(
    broker="broker.example",
    nonce=bytes(NONCE_SIZE),
    grant=bytes(32),
    node_id="azure-1",
    hpke_key=bytes(HPKE_PUBLIC_KEY_SIZE),
    signing_key=Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw(),
    assets=bytes(32),
    lease_id="",
    devices=(),
)


@pytest.fixture(scope="module")
def vendors() -> SimulatedVendors:
    return SimulatedVendors.generate(now=NOW, seed=bytes(32))


def _judged(vendors: SimulatedVendors, *defects: HclDefect, schemes: tuple[str, ...]) -> Judgement:
    reference = vendors.reference()
    settings = Settings(allow_simulated=True, binding_levels=("key",), cpu_schemes=schemes)
    vm = SimulatedAzureVm(chip=vendors.node("azure-1", now=NOW, gpus=0).cpu)
    return judge(
        NodeEvidence(vm.evidence(SESSION.report_data(), defects=frozenset(defects))),
        runtime=SESSION,
        trust=Trust(
            anchors=vendors.anchors(),
            reference=replace(reference, snp=None, snp_azure_hcl=reference.snp),
            collateral=vendors.collateral(this_update=NOW - 60),
            simulated=True,
            floors=(),
            material=Material(),
        ),
        policy=PolicyEngine(default_bundle("appraisal"), data=settings.to_data()),
        verifier="broker.example",
        lifetime=300,
        now=NOW,
    )


def test_settings_decide_whether_a_paravisor_proves_a_node(vendors: SimulatedVendors) -> None:
    refused = _judged(vendors, schemes=("snp", "tdx"))
    assert refused.result.ok
    assert not refused.allow
    assert "CPU_MISSING" in {denial.code for denial in refused.decision.deny}
    accepted = _judged(vendors, schemes=("snp-azure-hcl",))
    assert accepted.decision.deny == ()
    assert accepted.allow
    assert accepted.claims["submods"]["cpu0"]["keystead.scheme"] == "snp-azure-hcl"


def test_no_settings_accept_a_report_that_binds_no_session(vendors: SimulatedVendors) -> None:
    for defect in (HclDefect.BOOT_REPORT, HclDefect.NO_USER_DATA, HclDefect.ALTERED_RUNTIME_DATA):
        judged = _judged(vendors, defect, schemes=("snp-azure-hcl",))
        assert not judged.result.ok
        assert not judged.allow
        assert judged.decision.deny
