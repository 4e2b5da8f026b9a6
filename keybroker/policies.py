"""The two policies that a broker decides by, with the settings that they read as data, and what tenants add to them.

The factory's packs are the floor. A tenant's pack is asked the same questions besides, and can only deny and demand
(`policy.layers`). Where it cannot be loaded the broker starts, says so, and denies that tenant everything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from pydantic import JsonValue, ValidationError

from keybroker.config import BrokerConfig, TenantPolicySection
from keybroker.constraints import Jurisdictions
from keybroker.errors import ConfigError
from policy.bundle import MAX_COMPRESSED, Bundle
from policy.engine import PolicyEngine
from policy.errors import BundleError, PolicyError
from policy.inputs import Settings
from policy.layers import LayeredPolicy, TenantLayer, layers_digest
from policy.opa import Opa
from policy.sources import compile_pack

APPRAISAL: Final = "appraisal"
RELEASE: Final = "release"

TENANT_FUEL: Final = 50_000_000
"""Wasm instructions, about, that one decision of a tenant's pack may take: a quarter of what the floor's may."""


@dataclass(frozen=True, slots=True)
class TenantPolicies:
    """By what requests of one tenant are decided.

    Attributes:
        release: the floor, and the tenant's own release pack on it.
        appraisal: what the tenant adds to the floor's appraisal; None where nothing.
        digest: identifies all of it in leases and records (`policy.layers.layers_digest`).
        age_ceilings: the oldest appraisals that the layers' settings accept, in seconds, each once, sorted.
    """

    release: LayeredPolicy
    appraisal: TenantLayer | None
    digest: str
    age_ceilings: tuple[int, ...]

    def detail(self) -> dict[str, str]:
        """Digests of the single layers as a record's detail, where a tenant's stand on the floor."""
        layers = {"release": self.release.tenant, "appraisal": self.appraisal}
        named = {f"tenant_{name}_policy_digest": layer.digest.hex() for name, layer in layers.items() if layer}
        return {"floor_policy_digest": self.release.floor.digest} | named if named else {}


@dataclass(frozen=True, slots=True)
class Policies:
    """What evidence means (`appraisal`) and who gets what where (`release`).

    Attributes:
        appraisal, release: the engines.
        settings: what both read as data.
        appraisal_file: the compiled appraisal pack as it was read, for whoever runs an appraisal again.
        jurisdictions: the areas that the release pack's data name.
        tenants: what holds for each tenant that has policies of its own.
        unusable: what is wrong with packs of tenants that could not be loaded, in words, by tenant and pack.
    """

    appraisal: PolicyEngine
    release: PolicyEngine
    settings: Settings
    appraisal_file: bytes
    jurisdictions: Jurisdictions
    tenants: Mapping[str, TenantPolicies] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, config: BrokerConfig) -> Self:
        """Load the configured packs, or the shipped ones.

        Raises:
            ConfigError: a pack or the settings cannot be used.
        """
        settings = _settings(config.policy.settings, "policy.settings")
        data = settings.to_data()
        appraisal = _file(config, config.policy.appraisal, APPRAISAL)
        release_file = _file(config, config.policy.release, RELEASE)
        release = _engine(release_file, RELEASE, data)
        loader = _TenantLoader(config, {APPRAISAL: appraisal, RELEASE: release_file})
        tenants = {
            name: loader.load(name, section, floor=release, floor_settings=settings)
            for name, section in sorted(config.policy.tenants.items())
        }
        return cls(
            appraisal=_engine(appraisal, APPRAISAL, data),
            release=release,
            settings=settings,
            appraisal_file=appraisal,
            jurisdictions=_jurisdictions(release.data.get("jurisdictions")),
            tenants=MappingProxyType(tenants),
            unusable=MappingProxyType(loader.unusable),
        )

    def of(self, tenant: str) -> TenantPolicies:
        """By what requests of `tenant` are decided: the floor, and what it added."""
        known = self.tenants.get(tenant)
        if known is not None:
            return known
        ceilings = (self.settings.attestation_age_ceiling,)
        return TenantPolicies(LayeredPolicy(self.release), None, self.release.digest, ceilings)

    def known_places(self) -> frozenset[str]:
        """The countries and subdivisions that the release pack's data name: what a site can stand in."""
        return self.jurisdictions.places

    def known_areas(self) -> frozenset[str]:
        """The countries and groups of countries that the release pack's data name; its own packs may name none."""
        return self.jurisdictions.areas


class _TenantLoader:
    """Loads what tenants add; what cannot be loaded denies them, and is remembered in `unusable`.

    Args:
        config: says where the packs are.
        floor: the floor's packs as they were read, by name.
    """

    def __init__(self, config: BrokerConfig, floor: Mapping[str, bytes]) -> None:
        self._config = config
        self._floor = floor
        self.unusable: Final[dict[str, str]] = {}

    def load(
        self, tenant: str, section: TenantPolicySection, *, floor: PolicyEngine, floor_settings: Settings
    ) -> TenantPolicies:
        """The layers of one tenant.

        Raises:
            ConfigError: its settings are not settings.
        """
        where = f"policy.tenants.{tenant}"
        settings = _settings(self._config.policy.settings | section.settings, f"{where}.settings")
        named = {APPRAISAL: section.appraisal, RELEASE: section.release}
        layers = {
            name: self._layer(f"{where}.{name}", name, path, settings)
            for name, path in named.items()
            if path is not None or section.settings
        }
        release, appraisal = layers.get(RELEASE), layers.get(APPRAISAL)
        return TenantPolicies(
            release=LayeredPolicy(floor, release),
            appraisal=appraisal,
            digest=layers_digest(floor=floor.digest, release=release, appraisal=appraisal),
            age_ceilings=tuple(sorted({floor_settings.attestation_age_ceiling, settings.attestation_age_ceiling})),
        )

    def _layer(self, where: str, name: str, path: str | None, settings: Settings) -> TenantLayer:
        try:
            source = self._floor[name] if path is None else self._read(self._config.path(path))
            return TenantLayer(PolicyEngine(Bundle.load(source), data=settings.to_data(), fuel=TENANT_FUEL))
        except PolicyError as error:
            self.unusable[where] = str(error)
            return TenantLayer(None, error.code)

    @staticmethod
    def _read(path: Path) -> bytes:
        """A compiled pack, or what `opa` makes of a directory of sources."""
        if path.is_dir():
            return compile_pack(Opa.find(), path)[1]
        try:
            with path.open("rb") as file:
                return file.read(MAX_COMPRESSED + 1)  # the bundle's own reader refuses what is longer
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror}") from None


def _settings(values: Mapping[str, JsonValue], where: str) -> Settings:
    try:
        return Settings.model_validate_json(json.dumps(dict(values)))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}.{path}: {first['msg']}") from None


def _jurisdictions(data: object) -> Jurisdictions:
    """What the release pack's data name; a pack of one's own may name nothing."""

    def section(name: str) -> dict[str, object]:
        value = data.get(name) if isinstance(data, dict) else None
        return value if isinstance(value, dict) else {}

    return Jurisdictions(
        countries=frozenset(section("countries")),
        groups={name: frozenset(members) for name, members in section("groups").items() if isinstance(members, dict)},
        subdivisions=frozenset(section("subdivisions")),
    )


def shipped(name: str) -> bytes:
    """The compiled default pack `name`, as it ships with the package."""
    return files("policy").joinpath("compiled", f"{name}.tar.gz").read_bytes()


def _file(config: BrokerConfig, path: str | None, name: str) -> bytes:
    if path is None:
        return shipped(name)
    try:
        with config.path(path).open("rb") as file:
            return file.read(MAX_COMPRESSED + 1)  # the bundle's own reader refuses what is longer
    except OSError as error:
        raise ConfigError(f"policy.{name}: {config.path(path)}: {error.strerror}") from None


def _engine(source: bytes, name: str, data: dict[str, object]) -> PolicyEngine:
    try:
        return PolicyEngine(Bundle.load(source), data=data)
    except PolicyError as error:
        raise ConfigError(f"policy.{name}: {error}") from error
