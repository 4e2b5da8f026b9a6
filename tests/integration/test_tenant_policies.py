"""Tenants' own policies on the factory's floor, with real packs, through the real broker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import acquire_request, read_refusal
from factory import Factory, furnish, recorded
from sqlalchemy import select

import attester.errors
from keybroker.store.schema import LEASE
from keystead.binding import AssetRef
from policy.errors import OpaMissingError, OpaVersionError
from policy.layers import layers_digest
from policy.opa import Opa
from policy.sources import compile_pack

STRICT = """# METADATA
# title: What globex adds
# custom:
#   policy_version: globex/1.0.0
package strict

# METADATA
# entrypoint: true
decision := {"allow": count(deny) == 0, "deny": deny, "obligations": obligations, "policy_version": "globex/1.0.0"}

deny contains {
	"code": "EVALUATION_ONLY",
	"message": "Globex opens its models for evaluation only",
	"field": "grant.purposes",
	"expected": "evaluation",
	"actual": $"{input.grant.purposes}",
	"remedy": "ask for evaluation",
} if {
	some purpose in input.grant.purposes
	purpose != "evaluation"
}

obligations contains {"code": "lease_ceiling", "params": {"seconds": 77}} if input.stage != "authorize"

obligations contains {"code": "no_logits", "params": {}} if input.stage != "authorize"
"""

FREE = """package free

# METADATA
# entrypoint: true
decision := {
	"allow": true,
	"deny": [],
	"obligations": [{"code": "lease_ceiling", "params": {"seconds": 999999}}],
	"policy_version": "free/1",
}
"""

UNDEFINED = """package undefined

# METADATA
# entrypoint: true
decision := {"allow": true, "deny": [], "obligations": [], "policy_version": "x"} if input.stage == "never"
"""

ENDLESS = f"""package endless

# METADATA
# entrypoint: true
decision := {{"allow": count(sums) > 0, "deny": [], "obligations": [], "policy_version": "x"}}

numbers := {list(range(300))}

sums := {{[a, b, c] | some a in numbers; some b in numbers; some c in numbers}}
"""

APPRAISAL = """package own

# METADATA
# entrypoint: true
decision := {
	"allow": count(deny) == 0,
	"deny": deny,
	"obligations": [],
	"policy_version": "own/1",
}

deny contains {
	"code": "TWO_GPUS_WANTED",
	"message": "Globex trusts nodes with two GPUs only",
	"field": "devices",
	"expected": "2",
	"actual": $"{count(gpus)}",
	"remedy": "use a bigger node",
} if count(gpus) != 2

gpus := {device.slot | some device in input.devices; startswith(device.slot, "gpu")}
"""


@pytest.fixture(scope="module")
def opa() -> Opa:
    try:
        return Opa.find()
    except (OpaMissingError, OpaVersionError) as error:
        pytest.skip(f"NO OPA: {error}")


@pytest.fixture
def build(opa: Opa, tmp_path: Path) -> Callable[[str, str], Path]:
    """Compiles a pack of one file."""

    def make(name: str, text: str) -> Path:
        folder = tmp_path / "packs" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.rego").write_text(text)
        target = tmp_path / f"{name}.tar.gz"
        target.write_bytes(compile_pack(opa, folder)[1])
        return target

    return make


Make = Callable[..., Factory]


def started(make_factory: Make, **sections: Any) -> Factory:
    """A factory whose tenants have policies of their own: keys are theirs in the configuration."""
    added = "".join(
        f"\n[policy.tenants.{tenant}]\n"
        + "".join(f"{name} = {json.dumps(str(value))}\n" for name, value in keys.items())
        for tenant, keys in sections.items()
    )
    return furnish(make_factory(edit=lambda text: text + added))


def both(factory: Factory) -> tuple[AssetRef, AssetRef]:
    return factory.register_asset(), factory.register_asset("globex/model")


def refused(call: Callable[[], Any]) -> set[str]:
    with pytest.raises((grpc.RpcError, attester.errors.AccessDeniedError)) as caught:
        call()
    if isinstance(caught.value, attester.errors.AccessDeniedError):
        return {reason.code for reason in caught.value.reasons}
    return set(read_refusal(caught.value).denied)


def test_a_tenants_pack_denies_and_demands_for_that_tenant_only(
    make_factory: Make, build: Callable[[str, str], Path]
) -> None:
    factory = started(make_factory, globex={"release": build("strict", STRICT)})
    ours, theirs = both(factory)
    leases = factory.stubs("node").leases
    lease = leases.AcquireLease(acquire_request(factory, "node-a", factory.authorize(ours), ours))
    assert {item.code for item in lease.obligations} == {"lease_ceiling", "re_attest", "zeroise_on_end"}
    assert refused(lambda: factory.authorize(theirs, tenant="globex")) == {"EVALUATION_ONLY"}
    authorized = factory.authorize(theirs, tenant="globex", purposes=["evaluation"])
    lease = leases.AcquireLease(acquire_request(factory, "node-a", authorized, theirs))
    assert "no_logits" in {item.code for item in lease.obligations}
    policies = factory.broker.policies
    tenant = policies.of("globex")
    with factory.broker.read() as connection:
        digests = {row.tenant: row.policy_digest.hex() for row in connection.execute(select(LEASE))}
        spans = {row.tenant: row.expires_at - row.granted_at for row in connection.execute(select(LEASE))}
        records = [record.to_json() for record in recorded(connection, "lease.granted")]
    assert digests == {"acme": policies.release.digest, "globex": tenant.digest}
    assert spans["globex"] == 77
    assert tenant.digest == layers_digest(floor=policies.release.digest, release=tenant.release.tenant, appraisal=None)
    by_tenant = {record["tenant"]: record for record in records}
    assert by_tenant["globex"]["policy_digest"] == tenant.digest
    assert by_tenant["globex"]["detail"]["floor_policy_digest"] == policies.release.digest
    assert by_tenant["globex"]["detail"]["tenant_release_policy_digest"] == tenant.release.tenant.digest.hex()
    assert "floor_policy_digest" not in by_tenant["acme"]["detail"]


def test_a_pack_that_allows_everything_frees_nothing(make_factory: Make, build: Callable[[str, str], Path]) -> None:
    factory = started(make_factory, acme={"release": build("free", FREE)})
    ours, _ = both(factory)
    authorized = factory.authorize(ours)
    assert refused(lambda: factory.acquire("node-us", authorized, ours)) == {"JURISDICTION_NOT_PERMITTED"}
    assert factory.acquire("node-a", authorized, ours)
    with factory.broker.read() as connection:
        (row,) = connection.execute(select(LEASE)).all()
    assert row.expires_at - row.granted_at <= factory.broker.policies.settings.lease_ceiling


@pytest.mark.parametrize(("name", "text"), [("undefined", UNDEFINED), ("endless", ENDLESS)])
def test_a_pack_that_cannot_decide_denies_its_tenant_only(
    make_factory: Make, build: Callable[[str, str], Path], name: str, text: str
) -> None:
    factory = started(make_factory, globex={"release": build(name, text)})
    ours, theirs = both(factory)
    assert refused(lambda: factory.authorize(theirs, tenant="globex")) == {"TENANT_POLICY_UNDECIDED"}
    assert factory.acquire("node-a", factory.authorize(ours), ours)


def test_a_pack_that_cannot_be_loaded_denies_its_tenant_only(make_factory: Make, tmp_path: Path) -> None:
    (tmp_path / "junk.tar.gz").write_bytes(b"junk")
    factory = started(
        make_factory, globex={"release": tmp_path / "junk.tar.gz"}, acme={"appraisal": tmp_path / "none.tar.gz"}
    )
    assert set(factory.broker.policies.unusable) == {"policy.tenants.acme.appraisal", "policy.tenants.globex.release"}
    ours, theirs = both(factory)
    assert refused(lambda: factory.authorize(theirs, tenant="globex")) == {"TENANT_POLICY_UNDECIDED"}
    authorized = factory.authorize(ours)
    assert refused(lambda: factory.acquire("node-a", authorized, ours)) == {"TENANT_POLICY_UNDECIDED"}
    with factory.broker.read() as connection:
        (started_as,) = recorded(connection, "broker.started")
    assert started_as.detail["unusable_policies"] == tuple(sorted(factory.broker.policies.unusable))


def test_settings_alone_ask_the_factorys_packs_once_more(make_factory: Make) -> None:
    added = '\n[policy.tenants.globex.settings]\nlease_ceiling = 61\nmeasurements = ["ab"]\n'
    factory = furnish(make_factory(edit=lambda text: text + added))
    ours, theirs = both(factory)
    assert factory.acquire("node-a", factory.authorize(ours), ours)
    authorized = factory.authorize(theirs, tenant="globex")
    assert refused(lambda: factory.acquire("node-a", authorized, theirs)) == {"MEASUREMENT_NOT_APPROVED"}


def test_a_tenants_appraisal_pack_judges_the_same_evidence(
    make_factory: Make, build: Callable[[str, str], Path]
) -> None:
    factory = started(make_factory, globex={"appraisal": build("own", APPRAISAL)})
    ours, theirs = both(factory)
    assert factory.acquire("node-b", factory.authorize(ours), ours)
    authorized = factory.authorize(theirs, tenant="globex")
    assert factory.acquire("node-a", authorized, theirs)
    assert refused(lambda: factory.acquire("node-b", authorized, theirs)) == {"TWO_GPUS_WANTED"}


def test_sources_are_compiled_at_the_start(make_factory: Make, opa: Opa, tmp_path: Path) -> None:
    del opa
    folder = tmp_path / "sources" / "strict"
    folder.mkdir(parents=True)
    (folder / "strict.rego").write_text(STRICT)
    factory = started(make_factory, globex={"release": folder})
    assert not factory.broker.policies.unusable
    _, theirs = both(factory)
    assert refused(lambda: factory.authorize(theirs, tenant="globex")) == {"EVALUATION_ONLY"}
