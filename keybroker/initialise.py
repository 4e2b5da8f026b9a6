"""A first installation: configuration, every key, the certificate authority, one client certificate per role.

Nothing is overwritten: where an installation is, it refuses. What it makes appears all at once: it is built in a folder
beside the target and renamed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.reference.document import instant
from attestation.reference.signature import (
    REFERENCE_VALUES_TYPE,
    SIGNATURE_SUFFIX,
    private_pem,
    public_pem,
    sign_detached,
)
from audit.keyring import bind
from audit.log import append
from audit.note import NoteSigner
from audit.records import Kind, Record, Result
from audit.sequencer import Sequencer
from keybroker import pki, requests
from keybroker.broker import GRANT_KEY, LOG_KEY, RESULT_KEY, ROOT_KEY, log_origin
from keybroker.config import CONFIG_NAME, BrokerConfig
from keybroker.errors import AlreadyInitialisedError, SigningKeyError
from keybroker.keys.files import write_secret
from keybroker.keys.log_keys import log_keyring
from keybroker.keys.root import FileRootKey
from keybroker.keys.signing import SigningKey, parse_public_key
from keybroker.principals import Principal, Role
from keybroker.refusals import BROKER_ACTOR
from keybroker.statements import check_name
from keybroker.store.engine import open_engine
from keybroker.store.migrate import migrate

LOG_VERIFIER_KEY: Final = "log.vkey"
RESULT_PUBLIC_KEY: Final = "result.pub.pem"
REFERENCE_VALUES: Final = "reference.toml"
REFERENCE_KEY: Final = "reference.key"
REFERENCE_PUBLIC_KEY: Final = "reference.pub"
CLIENTS: Final = "clients"
AUTHORITIES: Final = "authorities"
_FACTORY: Final = (
    Principal(Role.OPERATOR, "operator", None),
    Principal(Role.AUDITOR, "auditor", None),
    Principal(Role.NODE, "node", None),
)

_TEMPLATE: Final = """\
# A Keystead broker. Paths are relative to this file.

[broker]
name = {name}                  # the logical service: the same on every replica, part of every transcript
trust_domain = {trust_domain}  # of the SPIFFE IDs in client certificates
listen = {listen}

[storage]
database = {database}

[keys]
directory = "keys"

[tls]
ca = "tls/ca.pem"
certificate = "tls/broker.pem"
key = "tls/broker.key"

[attestation]
# What is accepted: without reference values no evidence is. See docs/operations.md.
reference_values = "reference.toml"
# Who must have signed them (PEM); after a change: keystead reference sign reference.toml --key reference.key
# Keep that key away from this machine: whoever has it decides what is accepted. See docs/reference-values.md.
reference_signers = ["reference.pub"]
# Tables of published attacks, signed like the reference values; "shipped" is the one that comes with Keystead.
advisories = ["shipped"]
# Simulators' roots (DER). For demonstrations and tests only; the broker says so at every start.
simulated_amd_roots = []
simulated_nvidia_roots = []
# AMD's certificate revocation lists (DER), one for each product line in use: without it evidence is refused.
crls = []
# NVIDIA's reference manifests (RIM, XML) and OCSP responses (DER), for every kind and version of GPU and switch in use.
rims = []
ocsp = []
result_seconds = 300           # life of an Attestation Result

[policy]
# Compiled packs; the shipped ones where absent.
# appraisal = "policy/appraisal.tar.gz"
# release = "policy/release.tar.gz"

[policy.settings]
# See docs/policy-authoring.md; what is not named has its strict default.

[estate]
# Who signs for sites: name two parties at least, who answer to different people. See docs/operations.md.
site_signatures = 2
{authorities}
[limits]
lease_seconds = 3600
grant_seconds = 604800
epoch_seconds = 3600
nonce_seconds = 172800

[log]
# Where checkpoint, tiles and entry bundles are published for strangers (C2SP tlog-tiles); nowhere where absent.
# publish = "public"
# Or in a bucket of an S3 object store, with credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
# publish = "s3://bucket/prefix"
# publish_endpoint = "https://s3.example"
# Independent witnesses, and how many of them must have cosigned a checkpoint before anybody is shown it.
# witness_quorum = 1
# [[log.witnesses]]
# name = "w1"
# url = "https://witness.example/"
# key = "witness.example/w1+KEYID+BASE64"
"""

_REFERENCE: Final = """\
# Reference values: what this broker accepts. A section that is absent accepts nothing of its kind.
# The minima are examples of firmware levels in the field at the time of writing: set your own from AMD's bulletins.
# After every change raise the serial and sign again: keystead reference sign reference.toml --key reference.key

[about]
issuer = {issuer}
serial = 1
issued = "{issued}"

[snp]
policy_allowed = ["SMT"]
platform_required = ["ALIAS_CHECK_COMPLETE"]

[snp.minimum_tcb.Milan]
bl = 4
tee = 0
snp = 24
ucode = 219

[snp.minimum_tcb.Genoa]
bl = 10
tee = 0
snp = 23
ucode = 84

[snp.minimum_tcb.Turin]
fmc = 1
bl = 1
tee = 1
snp = 4
ucode = 81

[nvgpu]
products = ["GH100", "GB100"]
modes = ["spt", "mpt", "ppcie"]
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where a first installation put things.

    Attributes:
        directory: everything is below it.
        config: the configuration file.
        log_verifier_key: the log's verifier key (C2SP signed-note): give it to auditors.
        profiles: client profile (TOML) by name, for example ``operator`` or ``acme-owner``.
    """

    directory: Path
    config: Path
    log_verifier_key: Path
    profiles: dict[str, Path]


def initialise(
    directory: Path,
    *,
    name: str = "keystead",
    trust_domain: str = "keystead.internal",
    tenants: Sequence[str] = (),
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    listen: str = "127.0.0.1:8750",
    database: str | None = None,
    authorities: Mapping[str, bytes] | None = None,
    now: int,
) -> Installation:
    """Make a first installation in `directory`, which must not exist or be empty.

    Args:
        directory: where.
        name: the broker's logical name.
        trust_domain: of the SPIFFE IDs.
        tenants: each gets an owner and a scheduler certificate.
        hosts: names and addresses in the server's certificate.
        listen: the broker's address.
        database: SQLAlchemy URL; SQLite in `directory` where None.
        authorities: who signs for sites: Ed25519 public keys in PEM by name; none can be enrolled without.
        now: integer seconds since the Unix epoch.

    Raises:
        AlreadyInitialisedError: something is there already.
        InvalidRequestError: a name is malformed.
        SigningKeyError, StatementError: an authority's name or key cannot be used.
        KeybrokerError: the database cannot be used.
    """
    for field, value in (("name", name), ("trust_domain", trust_domain), *(("tenant", tenant) for tenant in tenants)):
        requests.asset_name(f"{value}/x", field)
    parties = authorities or {}
    for party, pem in parties.items():
        parse_public_key(pem, what=check_name(party, "authority"))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise AlreadyInitialisedError(f"{directory} exists and is not empty; nothing was changed. Name another folder")
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        profiles = _build(
            draft,
            name=name,
            trust_domain=trust_domain,
            tenants=tenants,
            hosts=hosts,
            listen=listen,
            database=database,
            authorities=parties,
            now=now,
        )
        if directory.exists():
            directory.rmdir()
        draft.rename(directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Installation(
        directory=directory,
        config=directory / CONFIG_NAME,
        log_verifier_key=directory / LOG_VERIFIER_KEY,
        profiles={profile: directory / CLIENTS / f"{profile}.toml" for profile in profiles},
    )


def issue_client(config: BrokerConfig, principal: Principal, *, now: int) -> Path:
    """Issue one more client certificate from the installation's own authority; returns its profile.

    Raises:
        SigningKeyError: the authority's key is not here, or others may read it.
        AlreadyInitialisedError: a client of this name is there already.
    """
    directory = config.base
    ca = pki.load_ca(directory / "tls" / "ca.pem", directory / "tls" / "ca.key")
    profile = profile_name(principal)
    path = directory / CLIENTS / f"{profile}.toml"
    if path.exists():
        raise AlreadyInitialisedError(f"{path} is there already; nothing was overwritten")
    server = pki.load_certificate(config.path(config.tls.certificate))
    _client(
        directory,
        ca,
        principal,
        trust_domain=config.broker.trust_domain,
        address=_address(pki.hosts(server), config.broker.listen),
        now=now,
    )
    return path


def profile_name(principal: Principal) -> str:
    """What a principal's client profile is called."""
    name = principal.name if principal.name == principal.role.value else f"{principal.role.value}-{principal.name}"
    return name if principal.tenant is None else f"{principal.tenant}-{name}"


def _build(
    draft: Path,
    *,
    name: str,
    trust_domain: str,
    tenants: Sequence[str],
    hosts: Sequence[str],
    listen: str,
    database: str | None,
    authorities: Mapping[str, bytes],
    now: int,
) -> list[str]:
    draft.chmod(0o700)
    for folder in ("keys", "tls", AUTHORITIES, CLIENTS):
        (draft / folder).mkdir(mode=0o700)
    for party, pem in authorities.items():
        pki.write_new(draft / AUTHORITIES / f"{party}.pem", pem)
    text = _TEMPLATE.format(
        name=json.dumps(name),
        trust_domain=json.dumps(trust_domain),
        listen=json.dumps(listen),
        database=json.dumps(database or "sqlite:///keystead.db"),
        authorities="".join(
            f'\n[[estate.authorities]]\nname = "{party}"\npublic_key = "{AUTHORITIES}/{party}.pem"\n'
            for party in authorities
        ),
    )
    pki.write_new(draft / CONFIG_NAME, text.encode("utf-8"))
    _write_reference_values(draft, issuer=name, now=now)
    config = BrokerConfig.load(draft)

    root = FileRootKey.create(draft / "keys" / ROOT_KEY)
    SigningKey.create(draft / "keys" / GRANT_KEY)
    result = SigningKey.create(draft / "keys" / RESULT_KEY)
    log = NoteSigner(log_origin(config), SigningKey.create(draft / "keys" / LOG_KEY).private_key)
    pki.write_new(draft / LOG_VERIFIER_KEY, f"{log.verifier}\n".encode("ascii"))
    pki.write_new(draft / RESULT_PUBLIC_KEY, result.public_pem())

    ca = pki.create_ca(name, now=now)
    ca.write(draft / "tls" / "ca.pem", draft / "tls" / "ca.key")
    server = pki.issue_server(ca, name, hosts=hosts, now=now)
    server.write(draft / "tls" / "broker.pem", draft / "tls" / "broker.key")
    principals = [*_FACTORY]
    for tenant in tenants:
        principals += [Principal(Role.OWNER, "owner", tenant), Principal(Role.SCHEDULER, "scheduler", tenant)]
    for principal in principals:
        _client(draft, ca, principal, trust_domain=trust_domain, address=_address(hosts, listen), now=now)

    engine = open_engine(config.database_url)
    try:
        migrate(engine)
        Sequencer(engine, log, log_origin(config)).initialise(now)
        with bind(engine, log_keyring(root, origin=log_origin(config))).begin() as connection:
            append(
                connection,
                Record.build(
                    kind=Kind.BROKER_INITIALISED,
                    time=now,
                    actor=BROKER_ACTOR,
                    result=Result.RECORDED,
                    detail={"broker": name, "trust_domain": trust_domain, "tenants": tuple(sorted(tenants))},
                ),
            )
    finally:
        engine.dispose()
    return [profile_name(principal) for principal in principals]


def _write_reference_values(draft: Path, *, issuer: str, now: int) -> None:
    """First reference values, a key to sign them with, and the signature."""
    key = Ed25519PrivateKey.generate()
    values = _REFERENCE.format(issuer=json.dumps(issuer), issued=instant(now)).encode("utf-8")
    write_secret(draft / REFERENCE_KEY, private_pem(key), error=SigningKeyError)
    pki.write_new(draft / REFERENCE_PUBLIC_KEY, public_pem(key.public_key()))
    pki.write_new(draft / REFERENCE_VALUES, values)
    signature = sign_detached(values, key=key, kind=REFERENCE_VALUES_TYPE)
    pki.write_new(draft / f"{REFERENCE_VALUES}{SIGNATURE_SUFFIX}", f"{signature}\n".encode("ascii"))


def _client(
    directory: Path, ca: pki.Issued, principal: Principal, *, trust_domain: str, address: str, now: int
) -> None:
    profile = profile_name(principal)
    issued = pki.issue_client(ca, principal, trust_domain=trust_domain, now=now)
    issued.write(directory / CLIENTS / f"{profile}.pem", directory / CLIENTS / f"{profile}.key")
    text = (
        f"# {principal.key}\n"
        f"address = {json.dumps(address)}\n"
        f'ca = "../tls/ca.pem"\n'
        f'certificate = "{profile}.pem"\n'
        f'key = "{profile}.key"\n'
    )
    pki.write_new(directory / CLIENTS / f"{profile}.toml", text.encode("utf-8"))


def _address(hosts: Sequence[str], listen: str) -> str:
    """Where clients find the broker: the first name in its certificate, not the address that it listens on."""
    host = hosts[0]
    return f"[{host}]:{listen.rpartition(':')[2]}" if ":" in host else f"{host}:{listen.rpartition(':')[2]}"
