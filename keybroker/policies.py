"""The two policies that a broker decides by, with the settings that they read as data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Self

from pydantic import ValidationError

from keybroker.config import BrokerConfig
from keybroker.constraints import Jurisdictions
from keybroker.errors import ConfigError
from policy.bundle import MAX_COMPRESSED, Bundle
from policy.engine import PolicyEngine
from policy.errors import PolicyError
from policy.inputs import Settings

APPRAISAL: Final = "appraisal"
RELEASE: Final = "release"


@dataclass(frozen=True, slots=True)
class Policies:
    """What evidence means (`appraisal`) and who gets what where (`release`).

    Attributes:
        appraisal, release: the engines.
        settings: what both read as data.
        appraisal_file: the compiled appraisal pack as it was read, for whoever runs an appraisal again.
        jurisdictions: the areas that the release pack's data name.
    """

    appraisal: PolicyEngine
    release: PolicyEngine
    settings: Settings
    appraisal_file: bytes
    jurisdictions: Jurisdictions

    @classmethod
    def load(cls, config: BrokerConfig) -> Self:
        """Load the configured packs, or the shipped ones.

        Raises:
            ConfigError: a pack or the settings cannot be used.
        """
        try:
            settings = Settings.model_validate_json(json.dumps(config.policy.settings))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"policy.settings.{where}: {first['msg']}") from None
        data = settings.to_data()
        appraisal = _file(config, config.policy.appraisal, APPRAISAL)
        release = _engine(_file(config, config.policy.release, RELEASE), RELEASE, data)
        return cls(
            appraisal=_engine(appraisal, APPRAISAL, data),
            release=release,
            settings=settings,
            appraisal_file=appraisal,
            jurisdictions=_jurisdictions(release.data.get("jurisdictions")),
        )

    def known_places(self) -> frozenset[str]:
        """The countries and subdivisions that the release pack's data name: what a site can stand in."""
        return self.jurisdictions.places

    def known_areas(self) -> frozenset[str]:
        """The countries and groups of countries that the release pack's data name; its own packs may name none."""
        return self.jurisdictions.areas


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
