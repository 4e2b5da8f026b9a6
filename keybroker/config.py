"""A broker's configuration: one TOML file, every key checked, none guessed.

Paths in the file are relative to the file. `keystead init` writes a complete one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from keybroker.bucket_address import ENDPOINT, BucketAddress, is_address
from keybroker.errors import ConfigError
from keystead.toml import TomlError, read_toml

CONFIG_NAME: Final = "keystead.toml"
MAX_CONFIG: Final = 1 << 18
"""Bytes; `keystead init` writes less than a thousandth of it."""
_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BrokerSection(_Section):
    """Who this broker is: `name` is the logical service, the same for every replica."""

    name: Annotated[str, Field(pattern=_NAME)]
    trust_domain: Annotated[str, Field(pattern=_NAME)]
    listen: str = "127.0.0.1:8750"


class StorageSection(_Section):
    """Where state lives: an SQLAlchemy URL (``sqlite:///…`` or ``postgresql+psycopg://…``)."""

    database: str


class KeysSection(_Section):
    """Where the broker's private keys and root key lie; files readable by their owner only."""

    directory: str = "keys"


class TlsSection(_Section):
    """PEM files: the CA for client certificates, and the server's certificate chain and key."""

    ca: str = "tls/ca.pem"
    certificate: str = "tls/broker.pem"
    key: str = "tls/broker.key"


class AttestationSection(_Section):
    """Reference values, collateral, and simulators' roots, which are trusted only because they stand here.

    Where `reference_signers` names public keys (PEM, Ed25519), `reference_threshold` of them must have signed the
    reference values and every table of advisories, in NAME.jws beside each. `advisories` may name ``shipped``, the
    table that comes with Keystead.
    """

    reference_values: str | None = None
    reference_signers: tuple[str, ...] = ()
    reference_threshold: Annotated[int, Field(ge=1, le=16)] = 1
    advisories: tuple[str, ...] = ()
    simulated_amd_roots: tuple[str, ...] = ()
    simulated_nvidia_roots: tuple[str, ...] = ()
    crls: tuple[str, ...] = ()
    rims: tuple[str, ...] = ()
    ocsp: tuple[str, ...] = ()
    result_seconds: Annotated[int, Field(ge=10, le=86_400)] = 300


class TenantPolicySection(_Section):
    """What one tenant's policies add to the factory's, which they cannot loosen.

    `appraisal` and `release` name a compiled pack, or a directory of Rego that `opa` compiles at the start. `settings`
    are laid over the factory's, for this tenant's layer only; where they stand without a pack, the factory's own pack
    is asked once more with them.
    """

    appraisal: str | None = None
    release: str | None = None
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class PolicySection(_Section):
    """Which compiled packs decide (the shipped ones where None), and the settings that they read as data.

    They are the floor: `tenants`, by name, may add what holds for one tenant besides.
    """

    appraisal: str | None = None
    release: str | None = None
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    tenants: dict[Annotated[str, Field(pattern=_NAME)], TenantPolicySection] = Field(default_factory=dict)


class AuthoritySection(_Section):
    """One of the parties that sign for sites: its name, and a PEM file with its Ed25519 public key."""

    name: Annotated[str, Field(pattern=_NAME)]
    public_key: str


class EstateSection(_Section):
    """Who signs for sites, and how many of them must. Without authorities no site can be enrolled."""

    site_signatures: Annotated[int, Field(ge=2, le=16)] = 2
    authorities: tuple[AuthoritySection, ...] = ()


class LimitsSection(_Section):
    """Bounds. Challenge keys must outlive the longest lease and its grace, so that a renewal's nonce always checks.

    `evidence_days` is how long appraisals are kept to be run again: a year and a month where nothing is said.
    """

    lease_seconds: Annotated[int, Field(ge=10, le=86_400)] = 3_600
    grant_seconds: Annotated[int, Field(ge=10, le=90 * 86_400)] = 7 * 86_400
    epoch_seconds: Annotated[int, Field(ge=60, le=86_400)] = 3_600
    nonce_seconds: Annotated[int, Field(ge=60, le=7 * 86_400)] = 2 * 86_400
    message_bytes: Annotated[int, Field(ge=64 << 10, le=64 << 20)] = 4 << 20
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    concurrent_calls: Annotated[int, Field(ge=1, le=65_536)] = 1_024
    unauthenticated_records_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 60
    evidence_days: Annotated[int, Field(ge=1, le=36_500)] = 400


class LogWitness(_Section):
    """An independent witness of the log (C2SP tlog-witness): a name for people, its address and its verifier key."""

    name: Annotated[str, Field(pattern=_NAME)]
    url: Annotated[str, Field(pattern=r"^https?://[!-~]{1,500}$")]
    key: Annotated[str, Field(max_length=1_000)]


class LogSection(_Section):
    """The log outside: where to publish tiles (a folder, or ``s3://BUCKET/PREFIX``), and witnesses.

    `publish_endpoint` and `publish_region` say which object store has the bucket: where they are absent, the
    environment does (``AWS_ENDPOINT_URL``, ``AWS_REGION``), else it is Amazon's. Credentials come from the environment
    alone.
    Where `witness_quorum` is above 0, a checkpoint that fewer of `witnesses` cosigned is not shown to anybody.
    `witness_seconds` bounds how long each of them is waited for. Releases never wait for either.
    """

    publish: str | None = None
    publish_endpoint: Annotated[str, Field(pattern=f"^{ENDPOINT.pattern}$")] | None = None
    publish_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")] | None = None
    witnesses: tuple[LogWitness, ...] = ()
    witness_quorum: Annotated[int, Field(ge=0, le=64)] = 0
    witness_seconds: Annotated[int, Field(ge=1, le=60)] = 5

    def check(self, file: Path) -> None:
        """Check what no single key shows; `file` is named where something is wrong.

        Raises:
            ConfigError: `publish` is an address of no bucket, or a folder with an endpoint or region.
        """
        if self.publish is not None and is_address(self.publish):
            try:
                BucketAddress.parse(self.publish)
            except ConfigError as error:
                raise ConfigError(f"{file}: log.publish: {error}") from None
        elif self.publish_endpoint is not None or self.publish_region is not None:
            raise ConfigError(f"{file}: log.publish_endpoint and publish_region are for publish = 's3://BUCKET/PREFIX'")


class BrokerConfig(_Section):
    """The whole file."""

    broker: BrokerSection
    storage: StorageSection
    keys: KeysSection = Field(default_factory=KeysSection)
    tls: TlsSection = Field(default_factory=TlsSection)
    attestation: AttestationSection = Field(default_factory=AttestationSection)
    policy: PolicySection = Field(default_factory=PolicySection)
    estate: EstateSection = Field(default_factory=EstateSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    log: LogSection = Field(default_factory=LogSection)
    base: Path = Field(default=Path(), exclude=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the configuration from `path`, or from ``keystead.toml`` in it if it is a directory.

        Raises:
            ConfigError: not readable, not TOML, or a key that is missing, unknown or of the wrong type.
        """
        file = path / CONFIG_NAME if path.is_dir() else path
        try:
            with file.open("rb") as source:
                document = read_toml(source.read(MAX_CONFIG + 1), limit=MAX_CONFIG)
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}; `keystead init` makes a first one") from None
        except TomlError as error:
            raise ConfigError(f"{file}: not TOML: {error}") from None
        if "base" in document:
            raise ConfigError(f"{file}: base: unknown key; remove it")
        try:
            config = cls.model_validate_json(_json(document))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{file}: {where}: {first['msg']}") from None
        if config.limits.nonce_seconds < config.limits.lease_seconds + config.limits.epoch_seconds:
            raise ConfigError(f"{file}: limits.nonce_seconds must be at least limits.lease_seconds + epoch_seconds")
        config.log.check(file)
        names = [authority.name for authority in config.estate.authorities]
        if len(set(names)) != len(names):
            raise ConfigError(f"{file}: estate.authorities: a name is there twice")
        if names and len(names) < config.estate.site_signatures:
            raise ConfigError(
                f"{file}: estate.authorities: {len(names)} cannot make {config.estate.site_signatures} signatures "
                "(estate.site_signatures): name as many authorities at least"
            )
        return config.model_copy(update={"base": file.parent.resolve()})

    def path(self, name: str) -> Path:
        """A path from the file, taken relative to the file."""
        return self.base / name

    @property
    def database_url(self) -> str:
        """The database URL, with a relative SQLite path taken relative to the file."""
        prefix = "sqlite:///"
        url = self.storage.database
        if url.startswith(prefix):
            return prefix + str(self.base / url.removeprefix(prefix))
        return url


def _json(document: dict[str, object]) -> str:
    # Strict models take tuples from JSON arrays; TOML's dates have no JSON form and no place in this file.
    try:
        return json.dumps(document)
    except TypeError as error:
        raise ConfigError(f"configuration: {error}; dates are written as strings") from None
    except RecursionError:
        raise ConfigError("configuration: nested too deep") from None
