"""What fuzzing begins with: sound inputs of every structure, from this project's own encoders and simulators.

Nothing here is copied from anywhere. The simulators' RSA keys take seconds to generate, so that they are kept below
``.cache/fuzz``; everything else is made anew.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import shutil
import tarfile
import tempfile
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import jwt
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import create_engine

from attestation import ear
from attestation.composite import NodeEvidence
from attestation.nvgpu.abi import Mode
from attestation.reference import signature
from attestation.rim.document import RimDocument
from attestation.rim.verify import RimAnchors, parse_rim
from attestation.scheme import ReferenceValues, TrustAnchors
from attestation.simulator.azure import SimulatedAzureVm
from attestation.simulator.node import SimulatedNode, SimulatedVendors
from attestation.simulator.nvgpu import Architecture, GpuConfiguration
from attestation.simulator.nvswitch import SimulatedSwitch
from attestation.simulator.ocsp import SimulatedOcsp
from attestation.simulator.rim import SimulatedRimAuthority
from attestation.simulator.snp import SimulatedSnp
from attestation.snp.abi import Product
from attestation.snp.cert_table import ARK_GUID, ASK_GUID, VCEK_GUID, cert_table_to_bytes
from attestation.spdm import dice
from attestation.spdm.abi import GetMeasurements, MeasurementBlock, Measurements, SignedMeasurements, record_to_bytes
from attestation.types import Collateral, Evidence
from attester.grant_file import FORMAT
from audit.checkpoint import Checkpoint
from audit.cosignature import Cosigner, WitnessPolicy
from audit.envelope import Leaf
from audit.log import append_many
from audit.note import NoteSigner
from audit.package.build import build_package
from audit.package.manifest import Scope
from audit.proof import ProofBundle
from audit.receipt import Receipt
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from audit.tables import METADATA
from audit.witness import AddCheckpoint
from keybroker.constraints import Areas, Constraints
from keybroker.keys.wrap import wrap
from keybroker.site_record import LegalEntity, SiteRecord
from keystead import binding
from keystead.binding import AssetRef, HpkePrivateKey, JobGrant, RuntimeData
from keystead.v1 import evidence_pb2
from sealed.manifest import Manifest, ManifestFile
from sealed.seal import seal_stream

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "fuzz"

NOW = 1_790_000_000
"""The appraisal time of every target: 21 September 2026."""
NONCE = b"\x11" * 32
REPORT_DATA = b"\x22" * 64
ISSUER = "broker.example"
OWNER_KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
EAR_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EAR_KEYS = {"result-1": EAR_KEY.public_key()}
HPKE_KEY = HpkePrivateKey.from_bytes(b"\x05" * 96)
LOG_SIGNER = NoteSigner(ISSUER, Ed25519PrivateKey.from_private_bytes(b"\x09" * 32))
LOG_SKEY = LOG_SIGNER.skey()
CHECKPOINT = Checkpoint(ISSUER, 7, bytes(32))
COSIGNER = Cosigner("witness.example", Ed25519PrivateKey.from_private_bytes(b"\x0a" * 32))
STATEMENT_KEY = Ed25519PrivateKey.from_private_bytes(b"\x0b" * 32)
SMALL_FILE = b"not evidence"
RECORD = record_to_bytes((MeasurementBlock(1, 1, b"\x33" * 48),))


def joined(*items: bytes) -> bytes:
    """What `fuzz_targets.parts` takes apart."""
    return b"".join(len(item).to_bytes(2, "big") + item for item in items)


# attestation


@cache
def _vendors() -> SimulatedVendors:
    folder = CACHE / "vendors"
    if not folder.is_dir():
        # Several processes may come here at once; the first to rename its folder wins, and all read that one.
        CACHE.mkdir(parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(dir=CACHE))
        SimulatedVendors.load_or_generate(own, now=NOW, seed=b"\x01" * 32)
        try:
            own.rename(folder)
        except OSError:
            shutil.rmtree(own)
    return SimulatedVendors.load_or_generate(folder, now=NOW, seed=b"\x01" * 32)


@cache
def _chips() -> tuple[SimulatedSnp, ...]:
    return tuple(SimulatedSnp(_vendors().amd, product=product, seed=b"fuzz", now=NOW) for product in Product)


@cache
def _authority() -> SimulatedRimAuthority:
    return SimulatedRimAuthority(vendor=_vendors().nvidia, not_before=NOW - 1)


@cache
def _node() -> SimulatedNode:
    return _vendors().node("fuzz", now=NOW, gpus=1)


@cache
def anchors() -> TrustAnchors:
    """The simulators' roots."""
    return _vendors().anchors()


@cache
def reference() -> ReferenceValues:
    """Values that sound simulated devices meet."""
    values = _vendors().reference(GpuConfiguration(mode=Mode.SINGLE_GPU))
    return replace(values, snp_azure_hcl=values.snp)


@cache
def collateral() -> Collateral:
    """Sound revocation lists, OCSP responses and manifests."""
    return Collateral(crls=crls(), ocsp=ocsp_responses(), rims=rims())


def rim_anchors() -> RimAnchors:
    """The root of the simulated manifests."""
    return _authority().anchors()


def pinned_nvidia_roots() -> frozenset[bytes]:
    """The simulated GPUs' root."""
    return _vendors().nvidia.anchors().simulated_roots


@cache
def _gpus() -> tuple[Evidence, ...]:
    return tuple(_vendors().nvidia.gpu(9, architecture=each).evidence("gpu0", NONCE) for each in Architecture)


@cache
def _switch() -> Evidence:
    return SimulatedSwitch(vendor=_vendors().nvidia, pdi=1, gpu_pdis=(1,)).evidence("nvswitch0", NONCE)


@cache
def evidence() -> tuple[tuple[Evidence, bytes], ...]:
    """One CPU's and one GPU's evidence, each with what binds it."""
    chip = _chips()[0]
    return (
        (Evidence("cpu0", "snp", chip.report(REPORT_DATA), chip.certificates()), REPORT_DATA),
        (_gpus()[0], NONCE),
    )


@cache
def sound_evidence(scheme: str) -> tuple[bytes, ...]:
    """Evidence with its certificates, as `fuzz_targets.parts` takes it apart."""
    if scheme == "snp":
        devices = [Evidence("cpu0", "snp", chip.report(REPORT_DATA), chip.certificates()) for chip in _chips()]
    elif scheme == "snp-azure-hcl":
        devices = [_azure().evidence(REPORT_DATA)]
    else:
        devices = [*_gpus()] if scheme == "nvgpu" else [_switch()]
    return tuple(joined(each.data, *each.certificates) for each in devices)


@cache
def snp_reports() -> tuple[bytes, ...]:
    """Every version and product line."""
    return tuple(chip.report(REPORT_DATA, version=version) for chip in _chips() for version in (2, 3, 4, 5))


def veks() -> tuple[bytes, ...]:
    """A VCEK of each product line."""
    return tuple(chip.certificates()[0] for chip in _chips())


def amd_certificates() -> tuple[bytes, ...]:
    """Leaves and authorities."""
    return tuple(der for chip in _chips() for der in chip.certificates())


@cache
def crls() -> tuple[bytes, ...]:
    """Each product line's list, one with an entry."""
    amd = _vendors().amd
    return (
        *(amd.crl(product, this_update=NOW - 60) for product in Product),
        amd.crl(Product.GENOA, this_update=NOW - 60, revoked_serials=(7, 8)),
    )


def cert_tables() -> tuple[bytes, ...]:
    """A table of DER and one of PEM."""
    leaf, ask, ark = _chips()[0].certificates()
    pem = pem_bundles()[0]
    return (cert_table_to_bytes({VCEK_GUID: leaf, ASK_GUID: ask, ARK_GUID: ark}), cert_table_to_bytes({VCEK_GUID: pem}))


@cache
def _azure() -> SimulatedAzureVm:
    return SimulatedAzureVm(chip=_chips()[0])


def hcl_reports() -> tuple[bytes, ...]:
    """An HCL report around a simulated report, in a whole NV index."""
    return (_azure().evidence(REPORT_DATA).data,)


def hcl_runtime_data() -> tuple[bytes, ...]:
    """The paravisor's JSON, with and without what the guest wrote."""
    return _azure().runtime_data(REPORT_DATA), _azure().runtime_data(None)


def spkis() -> tuple[bytes, ...]:
    """Keys on both curves."""
    return tuple(
        ec.derive_private_key(7, curve).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for curve in (ec.SECP256R1(), ec.SECP384R1())
    )


def pem_bundles() -> tuple[bytes, ...]:
    """One certificate, and two with text between them."""
    blocks = [
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
        for der in _chips()[0].certificates()[:2]
    ]
    return blocks[0], b"the leaf\n".join(blocks)


def collateral_parts() -> tuple[bytes, ...]:
    """A revocation list with OCSP responses."""
    return tuple(joined(crl, *ocsp_responses()[:2]) for crl in crls()[:2])


def node_evidence(*, devices: tuple[Evidence, ...]) -> NodeEvidence:
    """A sound CPU beside `devices`."""
    return NodeEvidence(cpu=evidence()[0][0], devices=devices)


def node_parts() -> tuple[bytes, ...]:
    """Runtime data with a device."""
    return (joined(runtime_data()[0], _gpus()[0].data), joined(runtime_data()[0]))


def spdm_messages() -> tuple[bytes, ...]:
    """A request with its response."""
    request = GetMeasurements(attributes=1, operation=255, nonce=NONCE, slot_id=0)
    response = Measurements(
        total_indices=0,
        slot_id=0,
        block_count=1,
        record=RECORD,
        nonce=NONCE,
        opaque=b"\1\0\1\0x",
        signature=bytes(96),
    )
    return (SignedMeasurements(request, response, b"").to_bytes(), *gpu_reports())


def gpu_reports() -> tuple[bytes, ...]:
    """Of each architecture."""
    return tuple(each.data for each in _gpus())


def switch_reports() -> tuple[bytes, ...]:
    """A switch's."""
    return (_switch().data,)


def dice_structures() -> tuple[bytes, ...]:
    """Both structures."""
    return (
        dice.composite_device_id_to_bytes(device_key=b"\4" + bytes(96), fwid=bytes(48)),
        dice.dice_tcb_info_to_bytes(model="GB100", fwid=bytes(48), flags=()),
    )


def nvidia_chains() -> tuple[bytes, ...]:
    """Of each architecture, and one leaf by itself."""
    chains = [each.certificates for each in _gpus()]
    return (*(joined(*chain) for chain in chains), joined(chains[0][0]), joined(chains[0][-1]))


@cache
def ocsp_responses() -> tuple[bytes, ...]:
    """Good, revoked, and with a nonce."""
    ocsp = SimulatedOcsp(vendor=_vendors().nvidia)
    chain = _gpus()[0].certificates
    return (
        *ocsp.responses(chain, this_update=NOW - 60, first=1),
        ocsp.responses(chain, this_update=NOW - 60, first=1, revoked=(1,), nonce=b"\x01" * 32)[0],
    )


@cache
def rims() -> tuple[bytes, ...]:
    """A driver's and a VBIOS's manifest."""
    gpu = _vendors().nvidia.gpu(9)
    return _authority().driver(gpu), _authority().vbios(gpu)


@cache
def rim_documents() -> tuple[RimDocument, ...]:
    """What `rims` say."""
    return tuple(parse_rim(data)[0] for data in rims())


def inspected() -> tuple[bytes, ...]:
    """Evidence of every scheme."""
    return tuple(each for scheme in ("snp", "nvgpu", "nvswitch") for each in sound_evidence(scheme))


def reference_files() -> tuple[bytes, ...]:
    """Reference values of every section."""
    digest = "ab" * 48
    return (
        f"""
[snp]
policy_allowed = ["SMT"]
measurements = ["{digest}"]
[snp.minimum_tcb.Genoa]
bl = 10
tee = 0
snp = 23
ucode = 84
[snp.minimum_tcb.Turin]
fmc = 1
bl = 10
tee = 0
snp = 23
ucode = 84
[snp.crl_number_floor]
Genoa = 3
""".encode(),
        f"""
[nvgpu]
products = ["GH100"]
modes = ["spt"]
measurements.9 = ["{digest}"]
[nvswitch]
products = ["LS_10"]
bios = ["96.10"]
[fabric]
gpus = 8
switches = 4
""".encode(),
    )


def advisory_tables() -> tuple[bytes, ...]:
    """Advisories about CPUs and GPUs."""
    return (
        b"""[about]
issuer = "fuzz"
serial = 3
issued = "2026-09-01T00:00:00Z"
next_update = "2026-12-01T00:00:00Z"
[[advisory]]
id = "AMD-SB-1"
title = "firmware"
products = ["Genoa"]
basis = "bulletin"
published = "2026-08-01"
minimum_tcb = { bl = 10, snp = 23 }
minimum_firmware = [1, 55, 1]
platform_forbidden = ["SMT_EN"]
[[advisory]]
id = "NV-1"
title = "driver"
products = ["GH100"]
basis = "bulletin"
minimum_driver = ["550.90.07"]
minimum_vbios = "96.00.88.00.11"
""",
    )


SIGNATURE_KIND = "keystead-reference+jws"
SIGNED = b"[snp]\n"


def reference_signatures() -> tuple[bytes, ...]:
    """One signature, and two, one by a key that nobody knows."""
    own, other = (
        signature.sign_detached(SIGNED, key=key, kind=SIGNATURE_KIND).encode() + b"\n" for key in (OWNER_KEY, EAR_KEY)
    )
    return own, other + own


def signing_keys() -> tuple[bytes, ...]:
    """Both halves of a key."""
    return signature.public_pem(OWNER_KEY.public_key()), signature.private_pem(OWNER_KEY)


def conformance_manifests() -> tuple[bytes, ...]:
    """A case of each TEE, whose only file lies beside it."""
    digest = binding.sha256(SMALL_FILE).hex()
    return tuple(
        json.dumps(
            [
                {
                    "name": "case",
                    "tee": tee,
                    "files": dict.fromkeys(roles, "report.bin"),
                    "sha256": dict.fromkeys(roles, digest),
                    "expected": {"verdict": "fail", "verification_time": "2026-09-21T00:00:00Z", "nonce": "11"},
                    "policy_input": {},
                    "injected_root": False,
                }
            ]
        ).encode()
        for tee, roles in (
            ("snp", ("report", "vcek", "ca_chain", "crl")),
            ("nvidia", ("report", "cert_chain", "rim")),
            ("nvidia-rim", ("rim", "rim_root")),
            ("nvswitch", ("report", "cert_chain", "ocsp_leaf")),
            ("other", ("quote",)),
        )
    )


@cache
def _ear_claims() -> dict[str, object]:
    return {
        "eat_profile": ear.EAT_PROFILE,
        "iss": ISSUER,
        "iat": NOW,
        "exp": NOW + 300,
        "eat_nonce": base64.urlsafe_b64encode(bytes(56)).rstrip(b"=").decode(),
        "cnf": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(bytes(32))[:43].decode()}},
        "keystead.binding-level": "none",
        "keystead.findings": [],
        "keystead.simulated": True,
        "submods": {
            "cpu0": {
                "ear.status": "affirming",
                "ear.appraisal-policy-id": "ab" * 32,
                "keystead.identity": "amd-snp-chip:00",
                "keystead.findings": [{"severity": "fail", "code": "X"}],
            }
        },
    }


def ear_payloads() -> tuple[bytes, ...]:
    """The claims of a token."""
    return (ear.canonical(_ear_claims()),)


def ear_token(payload: bytes) -> str:
    """`payload` signed with the key that is trusted."""
    return jwt.PyJWS().encode(
        payload, EAR_KEY, algorithm=ear.ALGORITHM, headers={"typ": ear.MEDIA_TYPE, "kid": "result-1"}
    )


def ear_tokens() -> tuple[bytes, ...]:
    """A sound token."""
    return (ear.sign(_ear_claims(), EAR_KEY, key_id="result-1").encode(),)


# keystead


@cache
def grants() -> tuple[bytes, ...]:
    """A grant."""
    grant = JobGrant(
        broker=ISSUER,
        grant_id="g1",
        tenant="acme",
        job_uid="job-1",
        scheduler="slurm",
        assets=(AssetRef("acme/llm", 7),),
        purposes=("inference",),
        nodes=("node-1",),
        sites=("fra1",),
        node_ceiling=8,
        not_before=NOW,
        not_after=NOW + 3600,
    )
    return (grant.to_bytes(),)


@cache
def runtime_data() -> tuple[bytes, ...]:
    """Runtime data of a node with one device."""
    data = RuntimeData(
        broker=ISSUER,
        nonce=bytes(binding.NONCE_SIZE),
        grant=bytes(32),
        node_id="node-1",
        hpke_key=HPKE_KEY.public_key,
        signing_key=bytes(32),
        assets=bytes(32),
        lease_id="",
        devices=(bytes(32),),
    )
    return (data.to_bytes(),)


# audit


@cache
def cosignatures() -> tuple[bytes, ...]:
    """A witness's answers: signature lines, and a tree size."""
    return (f"{COSIGNER.cosign(CHECKPOINT.to_text(), NOW)}\n".encode(), b"7\n")


def add_checkpoints() -> tuple[bytes, ...]:
    """What a log asks of a witness."""
    note = CHECKPOINT.sign(LOG_SIGNER)
    return tuple(
        AddCheckpoint(old_size=old, proof=proof, note=note).to_bytes()
        for old, proof in ((0, ()), (3, (bytes(32), b"\x01" * 32)))
    )


def constraints() -> tuple[bytes, ...]:
    """Constraints in canonical form, few and many."""
    many = Constraints(
        classification=4,
        purposes=frozenset({"inference", "evaluation"}),
        residency=Areas.of(allowed=["EU", "CH"], forbidden=["HU"]),
        retain_until=NOW,
        node_ceiling=2,
        stages=frozenset({"inference"}),
        budgets={"opens": 5},
        obligations={"no_logits": {}, "output_ceiling": {"bytes": 200, "tokens": 100}},
    )
    return (Constraints().to_json().encode(), many.to_json().encode())


def statements() -> tuple[bytes, ...]:
    """A site record with its signature, in `parts`."""
    record = SiteRecord(
        site="ber1",
        serial=1,
        jurisdiction="DE",
        facility="Berlin 1",
        operator=LegalEntity(name="ACME", jurisdiction="DE", lei=None),
        controllers=(),
        certifications=(),
        network_zone="",
        valid_from=NOW,
        valid_until=NOW + 1000,
    )
    statement = record.statement(author="signer")
    token = statement.sign(STATEMENT_KEY, signer="signer").encode()
    return (b"".join(len(each).to_bytes(2, "big") + each for each in (statement.payload, token)),)


def public_keys() -> tuple[bytes, ...]:
    """An Ed25519 public key, and one of another kind."""
    other = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    return tuple(
        each.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for each in (STATEMENT_KEY.public_key(), other)
    )


def checkpoints() -> tuple[bytes, ...]:
    """A signed checkpoint."""
    return (CHECKPOINT.sign(LOG_SIGNER).to_bytes(),)


@cache
def receipts() -> tuple[bytes, ...]:
    """A receipt."""
    return (Receipt.issue(entry_hash=bytes(32), time=NOW, signer=LOG_SIGNER).to_bytes(),)


@cache
def records() -> tuple[bytes, ...]:
    """An appraisal and a denial."""
    actor = Actor(role="node", name="n")
    return (
        Record(kind=Kind.APPRAISAL, time=NOW, actor=actor, result=Result.RECORDED).payload(),
        Record.build(
            kind=Kind.APPRAISAL,
            time=NOW,
            actor=actor,
            tenant="acme",
            hardware=["gpu:0a"],
            jurisdiction="DE",
            assets=["acme/llm@7"],
            result=Result.DENIED,
            reasons=["NO"],
            detail={"seconds": 5, "names": ["a"]},
        ).payload(),
    )


PAYLOAD_CIPHER = AESGCM(bytes(32))
_NONCE = bytes(12)
SEALED_PAYLOAD = _NONCE + PAYLOAD_CIPHER.encrypt(
    _NONCE, bytes(32) + b"{}", binding.encode("keystead/v1/audit-payload", b"fuzz", bytes(32))
)
"""What `audit.payload.seal` would make with a nonce of zeroes."""


@cache
def proofs() -> tuple[bytes, ...]:
    """A bundle about the one entry of a log."""
    payload = records()[1]
    leaf = Leaf.commit(salt=bytes(32), payload=payload)
    bundle = ProofBundle(
        index=0,
        leaf=leaf.to_bytes(),
        salt=bytes(32),
        payload=payload,
        inclusion_proof=(),
        checkpoint=Checkpoint(ISSUER, 1, leaf.entry_hash()).sign(LOG_SIGNER).to_bytes(),
        older_checkpoint=checkpoints()[0],
        consistency_proof=(bytes(32),),
    )
    return (bundle.to_bytes(),)


@cache
def packages() -> tuple[bytes, ...]:
    """An evidence package about a log of two entries."""
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    sequencer = Sequencer(engine, LOG_SIGNER, LOG_SIGNER.verifier.name)
    sequencer.initialise(NOW)
    with engine.begin() as connection:
        append_many(connection, [Record.parse(each) for each in records()])
    sequencer.run_once(NOW)
    file = io.BytesIO()
    with engine.connect() as connection:
        build_package(
            connection, file, scope=Scope(asset="acme/llm"), signer=LOG_SIGNER, witnesses=WitnessPolicy((COSIGNER.key,))
        )
    engine.dispose()
    return (file.getvalue(),)


@cache
def package_files() -> dict[str, bytes]:
    """What is in it, by name."""
    with zipfile.ZipFile(io.BytesIO(packages()[0])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def package_contents() -> tuple[bytes, ...]:
    """Its description and its records, in `parts`."""
    files = package_files()
    return (b"".join(len(files[name]).to_bytes(2, "big") + files[name] for name in ("package.json", "records.jsonl")),)


# sealed


@cache
def sealed_files() -> tuple[bytes, ...]:
    """A short file, and an empty one."""
    files = []
    for plain in (b"weights" * 20, b""):
        sink = io.BytesIO()
        seal_stream(io.BytesIO(plain), sink, key=bytes(32), context=b"fuzz")
        files.append(sink.getvalue())
    return tuple(files)


def sealed_manifests() -> tuple[bytes, ...]:
    """Two files in folders."""
    return (
        Manifest(
            asset="acme/llm",
            version=7,
            key_id="00ff00ff00ff00ff",
            files=tuple(
                ManifestFile(name=name, size=0, sealed_size=56, sealed_sha256="0" * 64) for name in ("a/b", "a/c")
            ),
        ).to_bytes(),
    )


# policy


def decisions() -> tuple[bytes, ...]:
    """A denial with everything, and an allowance."""
    denial = dict.fromkeys(("code", "message", "field", "expected", "actual", "remedy", "reference"), "x")
    return (
        json.dumps(
            {
                "allow": False,
                "deny": [denial],
                "obligations": [{"code": "lease_ceiling", "params": {"seconds": 60, "list": [None, True]}}],
                "policy_version": "1",
                "trust_vectors": {"cpu0": {"hardware": 2}},
            }
        ).encode(),
        b'{"allow":true,"deny":[],"obligations":[],"policy_version":"1"}',
    )


_BUNDLE_MANIFEST = b'{"revision":"","wasm":[{"entrypoint":"p/decision","module":"/policy.wasm"}]}'


def gzipped(tar: bytes) -> bytes:
    """`tar` as a tarball, the same bytes every time."""
    return gzip.compress(tar, 1, mtime=0)


@cache
def tarballs() -> tuple[bytes, ...]:
    """An archive of each format that Python writes, one with a name that its header cannot hold."""
    archives = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            long = "p/" + "n" * 110 if form != tarfile.USTAR_FORMAT else "p/p.rego"
            for name, content in (
                ("/.manifest", _BUNDLE_MANIFEST),
                ("/data.json", b"{}"),
                ("/policy.wasm", b"\0asm"),
                (long, b"package p"),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        archives.append(out.getvalue())
    return tuple(archives)


def bundles() -> tuple[bytes, ...]:
    """Compressed archives."""
    return tuple(gzipped(tar) for tar in tarballs())


def bundle_parts() -> tuple[bytes, ...]:
    """The three files of a bundle."""
    return (joined(_BUNDLE_MANIFEST, b'{"settings":{"a":[1]}}', b"\0asm"),)


# keybroker, attester


def configs() -> tuple[bytes, ...]:
    """A small configuration and one with most sections."""
    small = b'[broker]\nname = "keys"\ntrust_domain = "factory.test"\n[storage]\ndatabase = "sqlite:///keystead.db"\n'
    return (
        small,
        small
        + b'[attestation]\nreference_values = "values.toml"\ncrls = ["a.crl"]\nresult_seconds = 300\n'
        + b"[policy]\nsettings = { purposes = { a = [1, true] } }\n[limits]\nlease_seconds = 600\n",
    )


@cache
def wrapped_keys() -> tuple[bytes, ...]:
    """A key under the target's key."""
    return (wrap(b"data key", key=bytes(32), key_id="root", context=b"fuzz"),)


@cache
def appraisals() -> tuple[bytes, ...]:
    """A record, the circumstances, a package of them, and a record as it is stored."""
    from keybroker import appraisal_record as kept

    trust = rfc8785.dumps({"type": kept.TRUST_TYPE, "files": {}, "options": {"a": True}})
    certificates = rfc8785.dumps({"type": kept.CERTIFICATES_TYPE, "chains": [[]]})
    policy_bundle = b"bundle"
    policy = rfc8785.dumps(
        {"type": kept.POLICY_TYPE, "bundle": binding.sha256(policy_bundle).hex(), "data": {"a": [1]}}
    )
    documents = {binding.sha256(each): each for each in (trust, policy, policy_bundle)}
    document_input = b"{}"
    header, claims, signed = ear_tokens()[0].decode().split(".")
    record = rfc8785.dumps(
        {
            "type": kept.RECORD_TYPE,
            "appraised_at": NOW,
            "verifier": ISSUER,
            "lifetime": 300,
            "profile": "strict",
            "build": ear.BUILD,
            "runtime_data": base64.b64encode(runtime_data()[0]).decode(),
            "devices": [{"slot": "cpu0", "scheme": "snp", "data": base64.b64encode(b"report").decode()}],
            "certificates": binding.sha256(certificates).hex(),
            "trust": binding.sha256(trust).hex(),
            "policy": binding.sha256(policy).hex(),
            "outcome": {
                "allow": False,
                "deny": [{"code": "X"}],
                "input": binding.sha256(document_input).hex(),
                "result": {
                    "header": header,
                    "claims": base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).decode(),
                    "signature": signed,
                },
            },
        }
    )
    circumstances = kept.Circumstances(
        trust=binding.sha256(trust), policy=binding.sha256(policy), documents=documents
    ).to_bytes()
    everything = documents | {binding.sha256(each): each for each in (record, certificates)}
    package = rfc8785.dumps(
        {
            "type": kept.PACKAGE_TYPE,
            "record": binding.sha256(record).hex(),
            "documents": {digest.hex(): base64.b64encode(content).decode() for digest, content in everything.items()},
            "decision": None,
            "proof": None,
        }
    )
    return package, record, circumstances, kept.compress(record)


@cache
def evidence_messages() -> tuple[bytes, ...]:
    """A node's evidence."""
    cpu = evidence_pb2.DeviceEvidence(slot="cpu0", scheme="snp", data=b"report", certificates=[b"a", b"b"])
    gpu = evidence_pb2.DeviceEvidence(slot="gpu0", scheme="nvgpu", data=b"report")
    return (evidence_pb2.NodeEvidence(cpu=cpu, devices=[gpu]).SerializeToString(),)


def grant_files() -> tuple[bytes, ...]:
    """A grant's file."""
    return (
        json.dumps(
            {
                "format": FORMAT,
                "broker": ISSUER,
                "grant": base64.b64encode(grants()[0]).decode(),
                "signature": base64.b64encode(bytes(64)).decode(),
                "key_id": "k",
                "nonce": base64.b64encode(bytes(56)).decode(),
            }
        ).encode(),
    )


def descriptions() -> tuple[bytes, ...]:
    """Croissant with all that is read of it, and each kind of OpenLineage event."""
    croissant = {
        "@context": {"@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/", "sha": "cr:sha256"},
        "@type": "Dataset",
        "dct:conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": {"en": "Notes"},
        "version": 1.5,
        "license": [{"@id": "CC0-1.0"}],
        "isBasedOn": "raw",
        "prov:wasDerivedFrom": {"name": "more"},
        "distribution": [
            {"@type": "cr:FileObject", "contentUrl": "https://h/a.csv", "contentSize": "8 B", "sha": "ab" * 32},
            {"@type": "cr:FileObject", "contentUrl": "https://h/", "encodingFormat": "git+https"},
            {"@type": "cr:FileSet", "includes": "*.csv"},
        ],
    }
    data_set = {"namespace": "lake", "name": "a", "facets": {"version": {"datasetVersion": "1"}}}
    head = {"schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent", "producer": "urn:x"}
    run = head | {"job": {}, "inputs": [data_set], "outputs": [data_set]}
    lineage = {"inputs": [{"namespace": "lake", "name": "b", "type": "DATASET"}]}
    alone = head | {"dataset": data_set | {"facets": {"lineage": lineage, "dataSource": {"uri": "s3://b"}}}}
    return tuple(json.dumps(each).encode() for each in (croissant, run, alone))


def drafts() -> tuple[bytes, ...]:
    """A draft with every member."""
    draft = {
        "draft": 1,
        "asset": "acme/notes",
        "kind": "preprocessed",
        "form": "croissant-1.1",
        "description_digest": "ab" * 32,
        "name": "Notes",
        "version": "1.5",
        "licences": ["CC0-1.0"],
        "sources": ["https://h/"],
        "files": [{"name": "a/b.csv", "size": 8, "sha256": "ab" * 32, "url": "https://h/b.csv"}],
        "inputs": [{"name": "raw", "ref": "acme/raw@1"}, {"name": "more", "outside": True}],
        "left_out": ["creator"],
    }
    return (json.dumps(draft).encode(),)
