"""Inputs that the packs allow, to be spoiled one member at a time, and engines over the packs that ship."""

from __future__ import annotations

import pytest

from policy.engine import PolicyEngine
from policy.inputs import (
    AppraisalInput,
    AreasInput,
    AssetInput,
    AttestationInput,
    BudgetInput,
    DeviceInput,
    FindingInput,
    GrantInput,
    HoldersInput,
    JobInput,
    NodeInput,
    ReleaseInput,
    SiteInput,
)
from policy.sources import default_bundle


@pytest.fixture(scope="session")
def release() -> PolicyEngine:
    return PolicyEngine(default_bundle("release"))


@pytest.fixture(scope="session")
def appraisal() -> PolicyEngine:
    return PolicyEngine(default_bundle("appraisal"))


@pytest.fixture
def acquire() -> ReleaseInput:
    return ReleaseInput(
        stage="acquire",
        now=2000,
        grant=GrantInput(
            grant_id="grant-1",
            tenant="acme",
            job_uid="job-1",
            scheduler="slurm",
            assets=("acme/llm@3",),
            purposes=("train",),
            nodes=("node-1",),
            sites=("munich",),
            node_ceiling=2,
            not_before=1000,
            not_after=9000,
            project="llm-de",
            user="alice",
            stage="training",
            image="c0de",
            network="fabric",
        ),
        job=JobInput(state="open", live_nodes=("node-2",)),
        asset=AssetInput(
            asset="acme/llm",
            version=3,
            tenant="acme",
            kind="model",
            state="active",
            classification=2,
            purposes=("train",),
            residency=AreasInput(allowed=(("EU",),), forbidden=("FR",)),
            exposure=AreasInput(allowed=(("EEA",),), forbidden=("US",)),
            sites=("munich",),
            retain_until=9000,
            assurance="cpu-and-devices",
            node_ceiling=2,
            copy_ceiling=4,
            projects=("llm-de",),
            users=("alice",),
            stages=("training",),
            images=("c0de",),
            networks=("fabric", "none"),
            obligations={"no_logits": {}},
        ),
        holders=HoldersInput(nodes=2, leases=4),
        budgets=(BudgetInput(name="opens", scope="asset", limit=9, spent=1),),
        reporting=None,
        node=NodeInput(
            node_id="node-1", state="active", custody="installed", claimed_node_id="node-1", device_set_matches=True
        ),
        site=SiteInput(
            site_id="munich",
            jurisdiction="DE-BY",
            exposures=("DE", "NO"),
            certifications=("iso-27001",),
            network_zone="zone-1",
            state="active",
            valid_from=1000,
            valid_until=8000,
        ),
        attestation=AttestationInput(
            allow=True,
            status=2,
            simulated=False,
            policy_digest="ab",
            codes=(),
            age=0,
            assurance="cpu-and-devices",
            host_data="c0de",
        ),
        candidate_sites=None,
    )


@pytest.fixture
def node_evidence() -> AppraisalInput:
    finding = FindingInput(
        code="SNP_CRL_MISSING",
        severity="inform",
        field="CRL",
        expected="a CRL",
        actual="none",
        title="No CRL was given",
        remedy="Import one.",
        reference="AMD 57230, section 3",
    )
    cpu = DeviceInput(
        slot="cpu0",
        scheme="snp",
        simulated=False,
        identity="amd-chip-id:00ff",
        claims={"debug": False, "measurement": "aa"},
        findings=(finding,),
        collateral_age={"crl": 60},
    )
    gpu = DeviceInput(
        slot="gpu0",
        scheme="nvgpu",
        simulated=False,
        identity="nvidia-gpu:4100",
        claims={"driver": "570.1"},
        findings=(),
        collateral_age={},
    )
    return AppraisalInput(now=2000, binding_level="key-and-devices", node_findings=(), devices=(cpu, gpu))
