"""Appraisals of a real broker, run again: byte for byte the same, and what something else would change."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import Session, acquire_request, add_client, evidence, refusal
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from factory import Factory, furnish
from sqlalchemy import delete, func, select, update

import attester
from attestation.simulator.snp import SnpDefect
from attestation.snp.abi import Product
from attester.collect.simulated import SimulatedCollector
from audit import query
from audit.note import NoteSigner, NoteVerifier
from audit.proof import verify_bundle
from audit.records import Record
from keybroker import replay
from keybroker.appraisal_record import AppraisalRecord, Circumstances, Package
from keybroker.archive import Archive
from keybroker.errors import AppraisalRecordError
from keybroker.maintenance import Maintenance
from keybroker.principals import Principal, Role
from keybroker.replay import Alternative, Inputs
from keybroker.store import appraisals
from keybroker.store.schema import APPRAISAL, APPRAISAL_DOCUMENT
from keybroker.trust import TrustFile
from keystead.binding import AssetRef, asset_list_digest, grant_digest, passport_message, sha256
from keystead.cli import main
from keystead.v1 import asset_ref_pb2, attestation_service_pb2, audit_service_pb2, lease_service_pb2

Shared = tuple[Factory, AssetRef]


def sequenced(factory: Factory) -> list[tuple[int, Record]]:
    """Every record of the log."""
    factory.broker.sequencer.run_once(factory.clock())
    with factory.broker.read() as connection:
        page = query.query(connection, query.Filter(), limit=1000, cursor="")
    return [(entry.index, record) for entry in page.entries if (record := entry.record()) is not None]


def newest(factory: Factory, kind: str) -> int:
    """The index of the newest record of `kind`."""
    return [index for index, record in sequenced(factory) if record.kind.value == kind][-1]


def fetch(
    factory: Factory, entry: int | bytes, *, profile: str = "auditor", today: bool = False
) -> tuple[bytes, bytes]:
    """The package of an entry's appraisal, and the broker's circumstances, over the wire."""
    request = audit_service_pb2.GetAppraisalRequest(with_today=today)
    if isinstance(entry, bytes):
        request.leaf_hash = entry
    else:
        request.leaf_index = entry
    package = circumstances = b""
    for piece in factory.stubs(profile).audit.GetAppraisal(request):
        package += piece.package
        circumstances += piece.today
    return package, circumstances


def package_of(factory: Factory, kind: str) -> Package:
    """The package of the newest record of `kind`."""
    return Package.parse(fetch(factory, newest(factory, kind))[0])


def appraise(factory: Factory, node_id: str, session: Session, **changes: Any) -> Any:
    """Have a node appraised for no particular job."""
    stub = factory.stubs("node").attestation
    nonce = stub.GetChallenge(attestation_service_pb2.GetChallengeRequest()).nonce
    made = evidence(factory, node_id, nonce=nonce, grant=None, session=session, **changes)
    return stub.Appraise(attestation_service_pb2.AppraiseRequest(evidence=made))


def test_acquire_renew_and_appraise_are_replayed_to_the_byte(any_factory: Factory) -> None:
    factory = any_factory
    ref = factory.register_asset()
    with factory.client() as client:
        authorized = factory.authorize(ref)
        lease = attester.acquire(
            client,
            SimulatedCollector(factory.nodes["node-a"]),
            grant=attester.SignedGrant.from_proto(authorized.grant),
            assets=[ref],
            node_id="node-a",
            nonce=authorized.nonce,
        )
        lease.renew()
    answer = appraise(factory, "node-b", Session())
    for kind in ("lease.granted", "lease.renewed", "appraisal"):
        package = package_of(factory, kind)
        run = replay.replay(package)
        assert run.identical, replay.changes(run.then, run.again)
        assert run.again.allow
        found = replay.entry(package)
        assert found is not None
        assert found[1].kind.value == kind
        assert Package.parse(package.to_bytes()) == package
        assert not any(key.hex().encode() in package.to_bytes() for key in factory.data_keys.values())
    assert package.record.token == answer.attestation_result


@pytest.mark.parametrize(
    "defect", [SnpDefect.DEBUG, SnpDefect.BAD_SIGNATURE, SnpDefect.STALE_TCB, SnpDefect.OTHER_CHIP]
)
def test_a_denied_appraisal_is_replayed_to_the_byte(shared: Shared, defect: SnpDefect) -> None:
    factory, ref = shared
    unsound = factory.nodes["node-a"].with_defects(cpu=[defect])
    with pytest.raises(grpc.RpcError):
        appraise(factory, "node-a", Session(), node=unsound)
    package = package_of(factory, "appraisal")
    with pytest.raises(attester.AccessDeniedError):
        factory.acquire("node-a", factory.authorize(ref), ref, node=unsound)
    for each in (package, package_of(factory, "lease.refused")):
        run = replay.replay(each)
        assert run.identical, replay.changes(run.then, run.again)
        assert not run.again.allow
        assert any(finding["severity"] == "fail" for found in run.then.findings().values() for finding in found)


@dataclass(frozen=True)
class Told:
    """A factory with one lease, and the package of its appraisal."""

    factory: Factory
    ref: AssetRef
    entry: int
    data: bytes
    circumstances: Circumstances

    @property
    def package(self) -> Package:
        """The package, read anew."""
        return Package.parse(self.data)


@pytest.fixture(scope="module")
def told(shared: Shared) -> Told:
    """A lease of node-a and what it rests on."""
    factory, ref = shared
    assert factory.acquire("node-a", factory.authorize(ref), ref) is not None
    entry = newest(factory, "lease.granted")
    data, today = fetch(factory, entry, today=True)
    return Told(factory, ref, entry, data, Circumstances.parse(today))


def codes(found: Any) -> set[tuple[str, str]]:
    """Slots and codes of findings."""
    return {(slot, finding["code"]) for slot, finding in found}


def changed(told: Told, alternative: Alternative) -> replay.Changes:
    """What `alternative` changes."""
    inputs = Inputs.of(told.package)
    return replay.changes(inputs.judge(), alternative.apply(inputs).judge())


def test_the_same_again_changes_nothing(told: Told) -> None:
    nothing = changed(told, Alternative())
    assert (nothing.verdict, nothing.findings_new, nothing.findings_gone, nothing.claims) == (False, (), (), ())
    assert (nothing.deny_new, nothing.deny_gone, nothing.findings_changed) == ((), (), ())


def test_an_expired_revocation_list_would_deny(told: Told) -> None:
    later = changed(told, Alternative(now=told.package.record.appraised_at + 3 * 365 * 86_400))
    assert later.allow == (True, False)
    assert ("cpu0", "SNP_CRL_WINDOW") in codes(later.findings_new)
    assert {"iat", "exp"} <= {each.path for each in later.claims}
    assert later.deny_new


def test_a_revoked_authority_would_deny(told: Told) -> None:
    from cryptography import x509

    amd = told.factory.vendors.amd
    ask = x509.load_der_x509_certificate(amd.certificates[Product.GENOA].ask)
    crl = amd.crl(Product.GENOA, this_update=int(time.time()) - 60, revoked_serials=(ask.serial_number,))
    found = changed(told, Alternative(files={"crls": (TrustFile("today.crl", crl),)}))
    assert found.allow == (True, False)
    assert ("cpu0", "SNP_REVOKED") in codes(found.findings_new)


def test_other_reference_values_would_deny(told: Told) -> None:
    (file,) = told.package.material().of("reference_values")
    text = file.content.decode()
    assert 'modes = ["spt", "mpt", "ppcie"]' in text
    other = text.replace('modes = ["spt", "mpt", "ppcie"]', 'modes = ["ppcie"]').encode()
    found = changed(told, Alternative(files={"reference_values": (TrustFile("other.toml", other),)}))
    assert found.allow == (True, False)
    assert {slot for slot, _ in codes(found.findings_new)} == {"gpu0", "gpu1"}


def test_another_policy_would_deny(told: Told) -> None:
    data = dict(told.package.policy().data)
    settings = data["settings"]
    assert isinstance(settings, dict)
    assert settings["allow_simulated"] is True
    found = changed(told, Alternative(data={**data, "settings": {**settings, "allow_simulated": False}}))
    assert found.allow == (True, False)
    assert found.findings_new == found.findings_gone == ()
    assert any("SIMULATED" in str(denial["code"]) for denial in found.deny_new)
    assert any(each.path.endswith("ear.appraisal-policy-id") for each in found.claims)


def test_what_the_broker_believes_today_comes_along(told: Told) -> None:
    assert told.circumstances.material() == told.package.material()
    assert told.circumstances.appraisal_policy() == told.package.policy()
    assert Circumstances.parse(told.circumstances.to_bytes()) == told.circumstances
    today = Alternative(
        material=told.circumstances.material(),
        bundle=told.circumstances.appraisal_policy().bundle,
        data=told.circumstances.appraisal_policy().data,
    )
    assert not changed(told, today).claims


def test_the_log_proves_what_it_rests_on(told: Told) -> None:
    found = replay.entry(told.package)
    assert found is not None
    bundle, record = found
    assert (bundle.index, record.kind.value) == (told.entry, "lease.granted")
    verifier = NoteVerifier.parse(told.factory.installation.log_verifier_key.read_text().strip())
    assert verify_bundle(bundle, verifier).ok
    with told.factory.broker.read() as connection:
        by_hash = query.get(connection, told.entry).entry_hash
    assert Package.parse(fetch(told.factory, by_hash)[0]).record == told.package.record
    assert told.package.decision is not None
    other = replace(told.package, decision=told.package.decision.replace(b"null", b"[]") + b" ")
    with pytest.raises(AppraisalRecordError, match="another decision"):
        replay.entry(other)


def altered(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that are not what was exported."""
    document = json.loads(data)

    def dumped(**changes: Any) -> bytes:
        return json.dumps({**document, **changes}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    assert dumped() == data
    record = document["record"]
    for digest, content in document["documents"].items():
        flipped = bytearray(base64.b64decode(content))
        flipped[len(flipped) // 2] ^= 1
        changed_content = {**document["documents"], digest: base64.b64encode(flipped).decode()}
        yield f"altered {digest}", dumped(documents=changed_content)
        yield f"without {digest}", dumped(documents={k: v for k, v in document["documents"].items() if k != digest})
    extra = b"one more"
    more = {**document["documents"], sha256(extra).hex(): base64.b64encode(extra).decode()}
    yield "one more document", dumped(documents=more)
    yield "another version", dumped(type="keystead-appraisal-package/v2")
    yield "unknown member", dumped(comment="")
    yield "white space", data + b"\n"
    yield "not JSON", data[:-1]
    yield "another decision", dumped(decision='{"appraisal":null,"evidence":null,"release":[]}')
    yield "a record that is none", dumped(record=next(each for each in document["documents"] if each != record))
    for name, value in (("type", "keystead-appraisal/v2"), ("lifetime", -1), ("devices", []), ("later", 1)):
        inner = json.loads(base64.b64decode(document["documents"][record]))
        made = json.dumps({**inner, name: value}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        others = {k: v for k, v in document["documents"].items() if k != record}
        digest = sha256(made).hex()
        yield (
            f"a record with {name}={value}",
            dumped(record=digest, documents={**others, digest: base64.b64encode(made).decode()}, decision=None),
        )


def test_an_altered_package_is_refused(told: Told) -> None:
    tried = 0
    for name, data in altered(told.data):
        with pytest.raises(AppraisalRecordError):
            Package.parse(data)
            pytest.fail(name)
        tried += 1
    assert tried > 30


def test_a_record_that_was_made_up_is_not_replayed_to_the_byte(told: Told) -> None:
    """With digests that fit, and without the log: what it says does not follow from what it names."""
    package = told.package
    record = json.loads(package.documents[package.record.digest])
    record["appraised_at"] += 1
    data = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    others = {digest: each for digest, each in package.documents.items() if digest != package.record.digest}
    run = replay.replay(Package.of(data, others))
    assert not run.identical
    record["profile"] = "lax"
    data = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(AppraisalRecordError, match="profile"):
        replay.replay(Package.of(data, others))


def test_what_was_altered_in_the_store_is_not_handed_out(make_factory: Callable[..., Factory]) -> None:
    factory = furnish(make_factory())
    ref = factory.register_asset()
    factory.acquire("node-a", factory.authorize(ref), ref)
    entry = newest(factory, "lease.granted")
    package = Package.parse(fetch(factory, entry)[0])
    victim = package.record.trust
    content = package.documents[victim].replace(b"crl0.der", b"crl9.der")
    statement = update(APPRAISAL_DOCUMENT).where(APPRAISAL_DOCUMENT.c.digest == victim).values(content=content)
    factory.broker.commit(lambda connection: connection.execute(statement))
    refused = refusal(lambda: fetch(factory, entry))
    assert (refused.status, refused.reason) == (grpc.StatusCode.INTERNAL, "BAD_APPRAISAL_RECORD")


def test_another_tenants_auditor_gets_what_is_not_there(shared: Shared) -> None:
    factory, ref = shared
    factory.acquire("node-a", factory.authorize(ref), ref)
    entry = newest(factory, "lease.granted")
    with factory.broker.read() as connection:
        name = query.get(connection, entry).entry_hash
    ours = add_client(factory, Principal(Role.AUDITOR, "ours", "acme"))
    theirs = add_client(factory, Principal(Role.AUDITOR, "theirs", "globex"))
    assert replay.replay(Package.parse(fetch(factory, entry, profile=ours)[0])).identical
    for there, nowhere in ((entry, 10**6), (name, sha256(name))):
        told, none = (refusal(lambda each=each: fetch(factory, each, profile=theirs)) for each in (there, nowhere))
        for found, each in ((told, there), (none, nowhere)):
            shown = each.hex() if isinstance(each, bytes) else str(each)
            assert found.message == f"entry {shown}: not in the log"
        assert (
            (told.status, told.reason) == (none.status, none.reason) == (grpc.StatusCode.NOT_FOUND, "ENTRY_NOT_FOUND")
        )
    # What is appraised for no job is no tenant's.
    appraise(factory, "node-b", Session())
    general = newest(factory, "appraisal")
    assert refusal(lambda: fetch(factory, general, profile=ours)).reason == "ENTRY_NOT_FOUND"
    assert fetch(factory, general)[0]


def test_an_entry_that_waits_looks_like_none_to_a_tenant(make_factory: Callable[..., Factory]) -> None:
    factory = furnish(make_factory())
    factory.server._maintenance.stop()
    ref = factory.register_asset()
    lease = factory.stubs("node").leases.AcquireLease(acquire_request(factory, "node-a", factory.authorize(ref), ref))
    profile = add_client(factory, Principal(Role.AUDITOR, "ours", "acme"))
    waiting = lease.receipt.entry_hash
    assert "waits" in refusal(lambda: fetch(factory, waiting)).message
    assert "not in the log" in refusal(lambda: fetch(factory, waiting, profile=profile)).message


def test_reading_is_recorded_and_what_has_no_appraisal_says_so(told: Told) -> None:
    factory = told.factory
    reader = add_client(factory, Principal(Role.AUDITOR, "replayer", None))
    fetch(factory, told.entry, profile=reader)
    reads = [record for _, record in sequenced(factory) if record.actor.name == "replayer"]
    assert [dict(record.detail) for record in reads] == [{"appraisal_of_index": told.entry}]
    for kind in ("site.enrolled", "job.authorized"):
        refused = refusal(lambda kind=kind: fetch(factory, newest(factory, kind)))
        assert (refused.status, refused.reason) == (grpc.StatusCode.NOT_FOUND, "NO_APPRAISAL")
    for bad in (
        audit_service_pb2.GetAppraisalRequest(),
        audit_service_pb2.GetAppraisalRequest(leaf_hash=b"short"),
    ):
        refused = refusal(lambda bad=bad: list(factory.stubs("auditor").audit.GetAppraisal(bad)))
        assert refused.reason == "INVALID_REQUEST"
    huge = audit_service_pb2.GetAppraisalRequest(leaf_index=2**64 - 1)
    assert refusal(lambda: list(factory.stubs("auditor").audit.GetAppraisal(huge))).reason == "ENTRY_NOT_FOUND"


def count(factory: Factory) -> tuple[int, int]:
    """Appraisals and documents that are stored."""
    with factory.broker.read() as connection:
        return (
            connection.execute(select(func.count()).select_from(APPRAISAL)).scalar_one(),
            connection.execute(select(func.count()).select_from(APPRAISAL_DOCUMENT)).scalar_one(),
        )


def test_an_appraisal_is_one_row_and_its_documents_are_shared(
    any_factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = any_factory
    appraise(factory, "node-a", Session())
    first = count(factory)
    for _ in range(3):
        appraise(factory, "node-a", Session())
    assert count(factory) == (first[0] + 3, first[1])
    appraise(factory, "node-b", Session())
    appraisals_now, documents = count(factory)
    assert appraisals_now == first[0] + 4
    # The node's own: the document about its certificates, and those that no other device has.
    assert first[1] < documents < 2 * first[1]
    # A transaction that failed has stored nothing, and nobody believes that it did.
    factory.broker.commit(lambda connection: connection.execute(delete(APPRAISAL_DOCUMENT)))
    restarted = Archive(factory.broker.trust, factory.broker.policies, verifier=factory.broker.name)
    monkeypatch.setattr(factory.broker, "archive", restarted)
    with pytest.raises(RuntimeError):
        factory.broker.commit(lambda connection: fail(factory, connection))
    assert count(factory)[1] == 0
    appraise(factory, "node-b", Session())
    assert replay.replay(package_of(factory, "appraisal")).identical


def fail(factory: Factory, connection: Any) -> None:
    """Store what every appraisal shares, then fail."""
    trust = factory.broker.archive.trust
    appraisals.put_documents(connection, trust.contents, used_at=appraisals.period_of(factory.clock()))
    raise RuntimeError


def test_old_appraisals_are_forgotten_and_shared_documents_stay_while_needed(any_factory: Factory) -> None:
    factory = any_factory
    maintenance = Maintenance(factory.broker)
    day, days = 86_400, factory.broker.config.limits.evidence_days
    assert days == 400
    appraise(factory, "node-a", Session())
    old = newest(factory, "appraisal")
    factory.clock.offset += 100 * day
    appraise(factory, "node-b", Session(), node=factory.nodes["node-b"])
    young, documents = newest(factory, "appraisal"), count(factory)[1]
    maintenance.sweep()
    assert count(factory) == (2, documents)
    factory.clock.offset += (days - 50) * day
    maintenance.sweep()
    assert refusal(lambda: fetch(factory, old)).reason == "NO_APPRAISAL"
    assert replay.replay(Package.parse(fetch(factory, young)[0])).identical
    # Only what node-a's certificates alone needed is gone.
    assert count(factory)[0] == 1
    assert 0 < count(factory)[1] <= documents
    factory.clock.offset += 150 * day
    maintenance.sweep()
    assert count(factory) == (0, 0)


def test_forgetting_is_bounded(factory: Factory) -> None:
    for _ in range(5):
        appraise(factory, "node-a", Session())
    later = factory.clock() + 86_400
    assert factory.broker.commit(lambda connection: appraisals.forget_before(connection, later, limit=2)) == 2
    assert count(factory)[0] == 3


def test_a_passport_leads_back_to_its_appraisal(factory: Factory) -> None:
    ref = factory.register_asset()
    session, authorized = Session(), factory.authorize(ref)
    result = appraise(factory, "node-a", session).attestation_result
    appraised = package_of(factory, "appraisal")
    message = passport_message(
        ear=result,
        nonce=authorized.nonce,
        grant=grant_digest(authorized.grant.grant),
        assets=asset_list_digest([ref]),
        hpke_key=session.hpke.public_key,
    )
    factory.stubs("node").leases.AcquireLease(
        lease_service_pb2.AcquireLeaseRequest(
            grant=authorized.grant,
            assets=[asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version)],
            passport=lease_service_pb2.Passport(
                attestation_result=result,
                hpke_key=session.hpke.public_key,
                nonce=authorized.nonce,
                signature=session.signing.sign(message),
            ),
        )
    )
    package = package_of(factory, "lease.granted")
    assert package.record.digest == appraised.record.digest
    assert replay.replay(package).identical
    found = replay.entry(package)
    assert found is not None
    assert found[1].kind.value == "lease.granted"


def test_long_evidence_is_kept_of_nobody(shared: Shared) -> None:
    factory, _ = shared
    stub = factory.stubs("node").attestation
    for size, reason in ((140 << 10, ""), (2 << 20, "INVALID_REQUEST")):
        nonce = stub.GetChallenge(attestation_service_pb2.GetChallengeRequest()).nonce
        made = evidence(factory, "node-a", nonce=b"\0" * len(nonce), grant=None)
        made.cpu.certificates.append(bytes(size))
        refused = refusal(lambda made=made: stub.Appraise(attestation_service_pb2.AppraiseRequest(evidence=made)))
        if reason:
            assert (refused.reason, refused.field) == (reason, "evidence")
        else:
            assert refused.denied
            assert refusal(lambda: fetch(factory, newest(factory, "appraisal"))).reason == "NO_APPRAISAL"


@pytest.fixture
def keystead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any]]:
    """Runs ``keystead evidence … --json`` in `tmp_path`; its exit code and what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main.run(["evidence", *arguments, "--json"])
        shown = capsys.readouterr().out
        return code, json.loads(shown[shown.index("{\n") :])  # after what the broker in this process logs

    return call


def test_a_file_is_replayed_where_there_is_no_broker(
    make_factory: Callable[..., Factory], keystead: Callable[..., tuple[int, Any]], tmp_path: Path
) -> None:
    factory = furnish(make_factory())
    ref = factory.register_asset()
    factory.acquire("node-a", factory.authorize(ref), ref)
    entry, profile = newest(factory, "lease.granted"), str(auditor_profile(factory))
    code, said = keystead("export", str(entry), "--out", "a.json", "--profile", profile)
    assert (code, said["written"]) == (0, "a.json")
    code, said = keystead("replay", str(entry), "--today", "--profile", profile)
    assert (code, said["identical"], said["instead"]["verdict_differs"]) == (0, True, False)
    key = str(factory.installation.log_verifier_key)
    configuration = str(factory.installation.config)
    factory.close()
    alone = run("replay", "a.json", "--log-key", key, "--json", folder=tmp_path)
    code, said = alone.returncode, json.loads(alone.stdout)
    assert (code, said["identical"], said["proven"], said["allow"], said["entry"]) == (0, True, True, True, entry)
    record = AppraisalRecord.parse(
        Package.parse((tmp_path / "a.json").read_bytes()).documents[bytes.fromhex(said["appraisal"])]
    )
    assert json.loads(record.claims) == said["claims"]
    code, said = keystead("replay", "a.json", "--collateral", configuration)
    assert (code, said["instead"]["changes"]["claims"]) == (0, [])
    code, said = keystead("replay", "a.json", "--at", "2036-01-01")
    assert (code, said["instead"]["allow"], said["instead"]["verdict_differs"]) == (1, False, True)
    (tmp_path / "strict.toml").write_text("allow_simulated = false\n")
    code, said = keystead("replay", "a.json", "--settings", "strict.toml")
    assert (code, said["instead"]["changes"]["allow"]) == (1, [True, False])
    (tmp_path / "bad.toml").write_text("allow_simulators = false\n")
    code, said = keystead("replay", "a.json", "--settings", "bad.toml")
    assert (code, said["error"]["code"]) == (2, "WRONG_USE")
    data = (tmp_path / "a.json").read_bytes()
    (tmp_path / "b.json").write_bytes(data.replace(b"appraisal-package/v1", b"appraisal-package/v9"))
    code, said = keystead("replay", "b.json")
    assert (code, said["error"]["code"]) == (2, "BAD_APPRAISAL_RECORD")
    code, said = keystead("replay", "4711")
    assert (code, said["error"]["code"]) == (2, "WRONG_USE")


def test_a_person_sees_what_today_would_change(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files in place of the recorded ones, one by one, as a person runs it."""
    factory = told.factory
    monkeypatch.chdir(tmp_path)

    def printed(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main.run(["evidence", "replay", "a.json", *arguments])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out

    (tmp_path / "a.json").write_bytes(told.data)
    material = told.package.material()
    for number, content in enumerate(material.contents("crls")):
        (tmp_path / f"{number}.crl").write_bytes(content)
    (tmp_path / "pack.tar.gz").write_bytes(told.package.policy().bundle)
    (reference,) = material.of("reference_values")
    (tmp_path / "same.toml").write_bytes(reference.content)
    (tmp_path / "other.toml").write_bytes(reference.content.replace(b'modes = ["spt", ', b"modes = ["))
    crls = [option for number in range(len(material.of("crls"))) for option in ("--crl", f"{number}.crl")]
    same = ("--policy", "pack.tar.gz", *crls, "--reference", "same.toml", "--at", str(told.package.record.appraised_at))
    code, text = printed(*same)
    assert code == 0, text
    assert "byte-identical" in text
    assert "not proven to be in the log: give --log-key" in text
    assert "verdict: accepted, as then" in text
    code, text = printed("--reference", "other.toml")
    assert code == 1
    for part in ("Findings that are new", "NVGPU_MODE", "verdict: accepted then, NOT accepted now", "other.toml"):
        assert part in text
    profile = str(auditor_profile(factory))
    code, text = printed("--today", "--profile", profile)
    assert code == 0, text
    assert "what the broker believes and decides by today" in text
    (tmp_path / "wrong.vkey").write_text("log+00000000+AAAA")
    code, text = printed("--log-key", "wrong.vkey", "--json")
    assert (code, json.loads(text)["error"]["code"]) == (2, "WRONG_USE")
    stranger = NoteSigner(factory.broker.keys.log.verifier.name, Ed25519PrivateKey.generate()).verifier
    (tmp_path / "stranger.vkey").write_text(str(stranger))
    code, text = printed("--log-key", "stranger.vkey", "--json")
    said = json.loads(text)
    assert (code, said["proven"], said["identical"]) == (1, False, True)
    assert [problem["code"] for problem in said["problems"]] == ["CHECKPOINT_ALTERED"]


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``keystead evidence`` in a process of its own, with nothing around it that says where a broker is."""
    return subprocess.run(
        [sys.executable, "-m", "keystead.cli.main", "evidence", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": "", "COLUMNS": "200"},
    )


def auditor_profile(factory: Factory) -> Path:
    """A profile of the auditor for the port that the broker listens on."""
    folder: Path = factory.installation.directory / "clients"
    path = folder / "replay.toml"
    text = (folder / "auditor.toml").read_text()
    path.write_text(
        text.replace("127.0.0.1:8750", f"localhost:{factory.port}").replace(
            "localhost:8750", f"localhost:{factory.port}"
        )
    )
    return path
