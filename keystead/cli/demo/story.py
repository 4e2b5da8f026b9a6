"""The story that ``keystead demo`` tells, chapter by chapter, through the product's public interfaces only.

The two things done behind the product's back are attacks: one byte of a sealed file and one record of the log are
altered on disk, to show that it is noticed.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.simulator.snp import SnpDefect
from attester.client import BrokerClient, TlsMaterial
from attester.collect.collector import Collector
from attester.errors import AccessDeniedError, BrokerError
from attester.handshake import SignedGrant
from attester.lease import Lease, acquire
from audit.checkpoint import Checkpoint
from audit.database import snapshot
from audit.note import NoteVerifier, SignedNote
from audit.proof import ProofBundle, verify_bundle
from audit.records import Kind, Record
from audit.verify import verify_log
from keybroker.initialise import Installation, initialise
from keybroker.keys.signing import SigningKey
from keybroker.site_record import SiteRecord
from keystead.binding import AssetRef, hpke_seal, owner_key_info
from keystead.cli import instants, output
from keystead.cli.connection import Connection, request_id, to_timestamp
from keystead.cli.demo.factory import (
    ABROAD,
    DEBUGGED,
    GOOD,
    REFERENCE_SIGNER,
    REFERENCE_VALUES,
    SITES,
    STALE,
    Factory,
    Machine,
    Recorder,
    Replayer,
)
from keystead.cli.demo.model import FILE_NAME, make_tensors, write_model
from keystead.cli.demo.narrator import Narrator
from keystead.cli.demo.process import BrokerProcess, free_port
from keystead.cli.demo.safetensors import Tensor, read
from keystead.cli.exits import describe
from keystead.cli.profile import Profile
from keystead.cli.seal import create_data_key
from keystead.v1 import (
    asset_ref_pb2,
    asset_service_pb2,
    audit_service_pb2,
    constraints_pb2,
    job_service_pb2,
    node_service_pb2,
    site_service_pb2,
)
from sealed.asset import collect_sources, seal_asset, sealed_path
from sealed.errors import NotAuthenticError
from sealed.manifest import Manifest

TENANT: Final = "acme"
BROKER: Final = "keystead-demo"
MODEL: Final = AssetRef(f"{TENANT}/llm", 1)
PURPOSE: Final = "inference"

_MIB: Final = 1 << 20
_SITE_DAYS: Final = 365
_TIMEOUT: Final = 30.0
_SEQUENCED_SECONDS: Final = 15.0
"""How long the log may take to sequence what was answered; its proofs lag behind its receipts by that."""

_SHORT_GRANT: Final = 2
"""Seconds of the grant that is to expire."""

_GRANTED: Final = "granted"
_REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class _Job:
    """What a scheduler hands to a job's nodes."""

    job_uid: str
    grant: SignedGrant
    nonce: bytes
    expires: int


class Story:
    """One telling of the story.

    Args:
        narrator: who tells it.
        folder: where everything goes; it is there and empty.
    """

    def __init__(self, narrator: Narrator, folder: Path) -> None:
        self._narrator = narrator
        self._folder = folder
        self._started = time.monotonic()
        self._sealed = folder / "sealed"
        self._tensors: dict[str, Tensor] = {}
        self._manifest: Manifest | None = None
        self._authorities = {name: SigningKey.generate() for name in ("facility", "legal")}

    def tell(self) -> None:
        """Tell it all. What goes otherwise than told is in the narrator's outcomes.

        Raises:
            Exception: the story cannot go on: whatever the product raised.
        """
        tell = self._narrator
        tell.title(
            "Keystead demo",
            "A model owner, a scheduler, four nodes and an auditor share one broker, which trusts none of them. "
            "You see the product itself at work: its broker process, its protocol, its policies, its log.",
            "Simulated: the CPUs and GPUs. Their evidence is signed bit for bit like the real thing, under private "
            "roots which this broker trusts because its configuration says so, and says so loudly.",
        )
        tell.chapter(1, "A factory comes to life")
        tell.says("setup", "makes simulated vendor roots (RSA-4096, a few seconds) and four machines")
        factory = Factory.build(now=instants.now())
        installation = self._install(factory)
        profiles = {name: Profile.load(path) for name, path in installation.profiles.items()}
        broker = BrokerProcess(installation.directory, log=self._folder / "broker.log", probe=profiles["operator"])
        with broker:
            broker.start()
            tell.says(
                "broker",
                f"runs as process {broker.pid} on {profiles['operator'].address}: mutual TLS, SQLite, Rego in Wasm",
            )
            with (
                Connection(profiles["operator"], timeout=_TIMEOUT) as operator,
                Connection(profiles[f"{TENANT}-owner"], timeout=_TIMEOUT) as owner,
                Connection(profiles[f"{TENANT}-scheduler"], timeout=_TIMEOUT) as scheduler,
                Connection(profiles["auditor"], timeout=_TIMEOUT) as auditor,
                _node_client(profiles["node"]) as client,
            ):
                self._enrol(operator, factory)
                self._register(owner)
                recorder = self._use(scheduler, client, factory)
                known = auditor.call(
                    auditor.audit.GetCheckpoint, audit_service_pb2.GetCheckpointRequest()
                ).checkpoint.encode("utf-8")
                self._refuse(scheduler, client, factory, recorder)
                verifier = NoteVerifier.parse(installation.log_verifier_key.read_text(encoding="ascii").strip())
                granted = self._audit(auditor, verifier, known)
        self._alter_the_log(installation.directory, verifier, known, granted)
        tell.says("broker", f"has ended; nothing is left running. {time.monotonic() - self._started:.0f} s in all")

    # 1. The factory

    def _install(self, factory: Factory) -> Installation:
        installation = initialise(
            self._folder / "broker",
            name=BROKER,
            tenants=(TENANT,),
            listen=f"127.0.0.1:{free_port()}",
            authorities={name: key.public_pem() for name, key in self._authorities.items()},
            now=instants.now(),
        )
        amd, nvidia, crls = factory.write(installation.directory / "simulated")
        configure(installation.config, amd=amd, nvidia=nvidia, crls=crls)
        return installation

    def _enrol(self, operator: Connection, factory: Factory) -> None:
        begins = instants.now()
        for site, (jurisdiction, facility, runs_it) in SITES.items():
            record = SiteRecord.read(
                {
                    "site": site,
                    "serial": 1,
                    "jurisdiction": jurisdiction,
                    "facility": facility,
                    "operator": {"name": runs_it, "jurisdiction": jurisdiction, "lei": None},
                    "controllers": [],
                    "certifications": [],
                    "network_zone": "",
                    "valid_from": begins,
                    "valid_until": begins + _SITE_DAYS * 86_400,
                }
            ).statement(author="operator")
            signatures = [record.sign(key.private_key, signer=name) for name, key in self._authorities.items()]
            operator.call(
                operator.sites.EnrolSite,
                site_service_pb2.EnrolSiteRequest(
                    request_id=request_id(),
                    record=site_service_pb2.SignedStatement(statement=record.payload, signatures=signatures),
                ),
            )
        for machine in factory.machines.values():
            operator.call(
                operator.nodes.EnrolNode,
                node_service_pb2.EnrolNodeRequest(
                    request_id=request_id(),
                    node=node_service_pb2.Node(
                        node_id=machine.node_id,
                        site_id=machine.site,
                        devices=[
                            node_service_pb2.DeviceIdentity(slot=slot, kind=identity.kind, value=identity.value)
                            for slot, identity in machine.hardware.identities().items()
                        ],
                    ),
                ),
            )
        self._narrator.says(
            "operator",
            "enrols two sites, each under a record that two parties signed, and four nodes by the identities burnt "
            "into their hardware, not by name",
        )
        self._narrator.table(
            ("node", "site", "law", "hardware (simulated)", "CPU identity"),
            (
                (
                    machine.node_id,
                    machine.site,
                    SITES[machine.site][0],
                    machine.description,
                    f"{machine.hardware.identities()['cpu0'].value[:16]}…",
                )
                for machine in factory.machines.values()
            ),
        )

    # 2. The model

    def _register(self, owner: Connection) -> None:
        tell = self._narrator
        tell.chapter(2, "An owner seals a model, for the EU only")
        self._tensors = make_tensors()
        plain = self._folder / FILE_NAME
        size = write_model(plain, self._tensors)
        tell.says(
            "owner", f"makes a model on the spot: {len(self._tensors)} tensors, {size / _MIB:.0f} MiB, no meaning"
        )
        key = create_data_key(self._folder / "model.key")
        self._manifest = seal_asset(
            collect_sources((plain,)), self._sealed, ref=MODEL, key=key, signing_key=Ed25519PrivateKey.generate()
        )
        plain.unlink()
        tell.says(
            "owner",
            "seals it under a key of its own (AES-256-GCM, Tink's streaming format), signs the manifest, deletes the "
            "plaintext",
        )
        owner.call(
            owner.assets.RegisterAsset,
            asset_service_pb2.RegisterAssetRequest(
                request_id=request_id(),
                asset=MODEL.asset,
                kind=asset_service_pb2.ASSET_KIND_MODEL,
                constraints=constraints_pb2.Constraints(
                    classification=4,
                    purposes=constraints_pb2.NameSet(names=[PURPOSE]),
                    residency=constraints_pb2.Areas(allowed=[constraints_pb2.AreaClause(areas=["EU"])]),
                ),
            ),
        )
        wrapping = owner.call(owner.assets.GetWrappingKey, asset_service_pb2.GetWrappingKeyRequest())
        info = owner_key_info(broker=wrapping.broker, ref=MODEL, key_id=self._manifest.key_id)
        owner.call(
            owner.assets.AddAssetVersion,
            asset_service_pb2.AddAssetVersionRequest(
                request_id=request_id(),
                ref=_ref(MODEL),
                key_id=self._manifest.key_id,
                manifest_digest=self._manifest.digest(),
                wrapped_key=hpke_seal(key, public_key=wrapping.hpke_key, info=info),
            ),
        )
        tell.says(
            "owner",
            f"registers {MODEL.asset}: only in the EU, only for {PURPOSE}; its key travels wrapped (HPKE, ML-KEM-768 + "
            "X25519)",
        )

    # 3. The good node

    def _use(self, scheduler: Connection, client: BrokerClient, factory: Factory) -> Recorder:
        tell = self._narrator
        tell.chapter(3, "A sound node opens it")
        job = self._authorize(scheduler, "slurm:4711")
        tell.says("scheduler", f"opens job {job.job_uid} for {PURPOSE}; the broker decides and signs a grant")
        recorder = Recorder(factory.machines[GOOD])
        before = time.monotonic()
        with self._acquire(client, recorder, job, GOOD) as lease:
            took = time.monotonic() - before
            tell.says(
                GOOD,
                f"attests its CPU and {len(recorder.machine.gpus)} GPUs and gets lease and key in one round trip: "
                f"{took * 1_000:.0f} ms",
            )
            with lease.open(MODEL, self._sealed) as reader, reader.file() as file:
                opened = read(file)
            same = opened == self._tensors
            tell.outcome(
                "sound-node-opens-the-model",
                expected="tensors equal",
                actual="tensors equal" if same else "tensors differ",
                text=f"{len(opened)} tensors opened in memory, equal to the original bit for bit",
            )
        tell.says(GOOD, "erases the key from memory and returns the lease, signed by its attested key")
        return recorder

    # 4. Refusals

    def _refuse(self, scheduler: Connection, client: BrokerClient, factory: Factory, recorder: Recorder) -> None:
        tell = self._narrator
        tell.chapter(4, "Everyone else is refused, and told every reason")
        job = self._authorize(scheduler, "slurm:4712")
        machines = factory.machines

        def attempt(machine: Collector, node_id: str, *, using: _Job | None = None) -> Callable[[], object]:
            return lambda: self._acquire(client, machine, using or job, node_id)

        abroad = machines[ABROAD]
        self._refusal(
            "wrong-jurisdiction",
            ABROAD,
            "is sound, but stands in the US; its site follows from its enrolled CPU, whatever it says",
            attempt(abroad, ABROAD),
            {"JURISDICTION_NOT_PERMITTED"},
        )
        self._refusal(
            "debug-enabled-guest",
            DEBUGGED,
            "starts its guest with debugging on: the host could read the key out of its memory",
            attempt(machines[DEBUGGED].broken(SnpDefect.DEBUG), DEBUGGED),
            {"SNP_DEBUG_ALLOWED"},
        )
        self._refusal(
            "stale-firmware",
            STALE,
            "runs CPU firmware with known holes",
            attempt(machines[STALE].broken(SnpDefect.STALE_TCB), STALE),
            {"SNP_TCB_BELOW_MINIMUM"},
        )
        self._refusal(
            "foreign-gpu",
            DEBUGGED,
            f"presents the GPU of {STALE}: genuine, fresh and vouched for, but enrolled elsewhere",
            attempt(machines[DEBUGGED].carrying(*machines[STALE].gpus), DEBUGGED),
            {"DEVICE_OF_ANOTHER_NODE"},
        )
        if recorder.recorded_cpu is not None:
            self._refusal(
                "replayed-evidence",
                "a thief",
                f"recorded the evidence of {GOOD} and presents it with keys of their own",
                attempt(Replayer(recorder.recorded_cpu, recorder.recorded_devices), GOOD),
                {"SNP_REPORT_DATA", "NVGPU_NONCE"},
            )
        self._refusal(
            "purpose-not-permitted",
            "scheduler",
            "asks to train on the model; its owner permits inference",
            lambda: self._authorize(scheduler, "slurm:4713", purpose="pretraining"),
            {"PURPOSE_NOT_PERMITTED"},
        )
        short = self._authorize(scheduler, "slurm:4714", seconds=_SHORT_GRANT)
        time.sleep(max(0.0, short.expires + 1 - time.time()))
        self._refusal(
            "expired-grant",
            GOOD,
            f"waited in the queue past the end of a grant of {_SHORT_GRANT} seconds",
            attempt(machines[GOOD], GOOD, using=short),
            {"GRANT_EXPIRED"},
        )
        self._tampered_file(client, machines[GOOD], job)

    def _tampered_file(self, client: BrokerClient, machine: Machine, job: _Job) -> None:
        tell = self._narrator
        tell.says("a thief", "has write access to the storage and flips one bit in the middle of the sealed model")
        copy = self._folder / "sealed-tampered"
        shutil.copytree(self._sealed, copy)
        flip_bit(sealed_path(copy, FILE_NAME))
        with self._acquire(client, machine, job, GOOD) as lease:
            actual, text = "opened", "it was opened all the same"
            try:
                with lease.open(MODEL, copy) as reader, reader.file() as file:
                    read(file)
            except NotAuthenticError as error:
                code, line = describe(error)
                actual, text = _REFUSED, f"{GOOD} opens nothing of that segment: {code}: {line}"
        tell.outcome("tampered-file", expected=_REFUSED, actual=actual, text=text)

    def _refusal(self, step: str, actor: str, what: str, action: Callable[[], object], codes: set[str]) -> None:
        """Carry out `action`, which the broker must refuse for at least these reasons."""
        tell = self._narrator
        tell.says(actor, what)
        expected = f"{_REFUSED}: {', '.join(sorted(codes))}"
        try:
            action()
        except AccessDeniedError as error:
            found = {reason.code for reason in error.reasons}
            actual = expected if codes <= found else f"{_REFUSED}: {', '.join(sorted(found))}"
            count = f"{len(error.reasons)} reason{'s' if len(error.reasons) > 1 else ''}"
            tell.outcome(
                step, expected=expected, actual=actual, text=f"refused and recorded, {count}", reasons=error.reasons
            )
        except BrokerError as error:
            tell.outcome(step, expected=expected, actual=f"{error.code} {error.reason}".strip(), text=str(error))
        else:
            tell.outcome(step, expected=expected, actual=_GRANTED, text="the key was released")

    # 5. The auditor

    def _audit(self, auditor: Connection, verifier: NoteVerifier, known: bytes) -> int:
        """Ask who used the model and prove an answer; returns the index of the record that says so."""
        tell = self._narrator
        tell.chapter(5, "An auditor asks who used the model, and checks the answer")
        records = self._records(auditor)
        tell.says("auditor", f"asks the log about {MODEL.asset}: who, where, on what, for what, and how it ended")
        tell.table(
            ("entry", "when", "what", "job", "node", "law", "result", "because"),
            (
                (
                    index,
                    output.instant(record.time)[11:19],
                    record.kind.value,
                    record.job,
                    record.node,
                    record.jurisdiction,
                    record.result.value,
                    ", ".join(record.reasons),
                )
                for index, record in records
            ),
        )
        granted = [index for index, record in records if record.kind is Kind.LEASE_GRANTED]
        refused = [index for index, record in records if record.kind in {Kind.LEASE_REFUSED, Kind.JOB_REFUSED}]
        tell.outcome(
            "the-log-knows",
            expected="2 granted, 7 refused",
            actual=f"{len(granted)} granted, {len(refused)} refused",
            text=f"{len(granted)} uses and {len(refused)} refusals are on record",
        )
        answer = auditor.call(
            auditor.audit.ProveRecord,
            audit_service_pb2.ProveRecordRequest(leaf_index=granted[0], old_checkpoint=known.decode("utf-8")),
        )
        (self._folder / "proof.json").write_bytes(answer.bundle)
        result = verify_bundle(ProofBundle.parse(answer.bundle), verifier, known=known)
        size = 0 if result.checkpoint is None else result.checkpoint.size
        tell.says("auditor", "asks for a proof, and checks it offline with the log's key alone, got by another way")
        tell.outcome(
            "proof-holds-offline",
            expected="proven",
            actual="proven" if result.ok else "; ".join(problem.code.value for problem in result.problems),
            text=f"entry {granted[0]} is among the {size} signed entries (inclusion), and the log has only grown since "
            f"the {_size(known)} that the auditor saw earlier (consistency)",
        )
        return granted[0]

    def _records(self, auditor: Connection) -> list[tuple[int, Record]]:
        """Every record about the model, once the log has sequenced what was answered."""
        deadline = time.monotonic() + _SEQUENCED_SECONDS
        while True:
            page = auditor.call(
                auditor.audit.QueryRecords, audit_service_pb2.QueryRecordsRequest(asset=MODEL.asset, page_size=1_000)
            )
            records = [
                (record.leaf_index, Record.parse(record.payload))
                for record in page.records
                if record.HasField("leaf_index")
            ]
            returned = sum(record.kind is Kind.LEASE_RETURNED for _, record in records)
            # The last thing that happened to the model is the return of the second lease.
            if returned >= 2 or time.monotonic() > deadline:
                return records
            time.sleep(0.2)

    def _alter_the_log(self, installation: Path, verifier: NoteVerifier, known: bytes, index: int) -> None:
        tell = self._narrator
        database = installation / "keystead.db"
        url = f"sqlite:///{database}"
        with snapshot(url) as connection:
            whole = verify_log(connection, verifier, known=[known])
        tell.says("auditor", f"checks all {whole.entries} entries of the log's own database against what was signed")
        tell.outcome(
            "log-is-whole",
            expected="whole",
            actual="whole" if whole.ok else "; ".join(problem.code.value for problem in whole.problems),
            text="every entry, tile, counter and checkpoint agrees",
        )
        tell.says("an insider", f"rewrites entry {index} in the database: the lease was granted in the US, it says now")
        rewrite_record(database, index)
        with snapshot(url) as connection:
            altered = verify_log(connection, verifier, known=[known])
        tell.outcome(
            "altered-record-is-named",
            expected=f"entry {index} altered",
            actual="whole" if altered.ok else f"entry {altered.first_bad_index} altered",
            text=f"verification names entry {altered.first_bad_index}",
        )
        tell.table(
            ("problem", "entry", "what", "how to mend it"),
            ((problem.code.value, problem.index, problem.field, problem.remedy) for problem in altered.problems),
        )

    # What several chapters do

    def _authorize(self, scheduler: Connection, job_uid: str, *, purpose: str = PURPOSE, seconds: int = 600) -> _Job:
        expires = instants.now() + seconds
        response = scheduler.call(
            scheduler.jobs.AuthorizeJob,
            job_service_pb2.AuthorizeJobRequest(
                request_id=request_id(),
                job_uid=job_uid,
                assets=[_ref(MODEL)],
                purposes=[purpose],
                node_ceiling=1,
                expire_time=to_timestamp(expires),
            ),
        )
        return _Job(job_uid, SignedGrant.from_proto(response.grant), response.nonce, expires)

    def _acquire(self, client: BrokerClient, collector: Collector, job: _Job, node_id: str) -> Lease:
        return acquire(client, collector, grant=job.grant, assets=[MODEL], node_id=node_id, nonce=job.nonce)


def configure(config: Path, *, amd: Sequence[str], nvidia: Sequence[str], crls: Sequence[str]) -> None:
    """Tell a new installation's configuration file to trust simulated hardware, as an operator would by hand.

    Args:
        config: what `keystead init` wrote.
        amd: file names of simulated AMD roots in the folder ``simulated`` beside it.
        nvidia: the same of simulated NVIDIA roots.
        crls: the same of revocation lists.

    Raises:
        ValueError: the file is not laid out as `keystead init` lays it out.
    """
    text = config.read_text(encoding="utf-8")
    changes = {
        'reference_values = "reference.toml"': f'reference_values = "simulated/{REFERENCE_VALUES}"',
        'reference_signers = ["reference.pub"]': f'reference_signers = ["simulated/{REFERENCE_SIGNER}"]',
        "simulated_amd_roots = []": f"simulated_amd_roots = {_names(amd)}",
        "simulated_nvidia_roots = []": f"simulated_nvidia_roots = {_names(nvidia)}",
        "crls = []": f"crls = {_names(crls)}",
        "[policy.settings]\n": "[policy.settings]\nallow_simulated = true\n",
    }
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ValueError(f"{config}: {text.count(old)} times {old!r}, expected once")
        text = text.replace(old, new)
    config.write_text(text, encoding="utf-8")


def flip_bit(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    with file.open("r+b") as target:
        middle = file.stat().st_size // 2
        target.seek(middle)
        (byte,) = target.read(1)
        target.seek(middle)
        target.write(bytes([byte ^ 1]))


def rewrite_record(database: Path, index: int) -> None:
    """Rewrite the jurisdiction in one record, in the database's own file, as someone with access to it could."""
    connection = sqlite3.connect(database)
    try:
        (payload,) = connection.execute("SELECT payload FROM audit_entry WHERE leaf_index = ?", (index,)).fetchone()
        record = json.loads(payload)
        record["jurisdiction"] = "US"
        forged = json.dumps(record, separators=(",", ":"), sort_keys=True).encode("utf-8")
        connection.execute("UPDATE audit_entry SET payload = ? WHERE leaf_index = ?", (forged, index))
        connection.commit()
    finally:
        connection.close()


@contextmanager
def _node_client(profile: Profile) -> Iterator[BrokerClient]:
    tls = TlsMaterial.from_files(ca=profile.ca, certificate=profile.certificate, key=profile.key)
    with BrokerClient(profile.address, tls=tls, timeout=_TIMEOUT) as client:
        yield client


def _names(files: Sequence[str]) -> str:
    return json.dumps([f"simulated/{name}" for name in files])


def _ref(ref: AssetRef) -> asset_ref_pb2.AssetRef:
    return asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version)


def _size(note: bytes) -> int:
    return Checkpoint.parse_text(SignedNote.parse(note).text).size
