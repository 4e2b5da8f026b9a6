"""The two policies that a broker decides by, with the settings that they read as data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Self

from pydantic import ValidationError

from keybroker.config import BrokerConfig
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
    """

    appraisal: PolicyEngine
    release: PolicyEngine
    settings: Settings
    appraisal_file: bytes

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
        return cls(
            appraisal=_engine(appraisal, APPRAISAL, data),
            release=_engine(_file(config, config.policy.release, RELEASE), RELEASE, data),
            settings=settings,
            appraisal_file=appraisal,
        )

    def known_areas(self) -> frozenset[str]:
        """The countries and groups of countries that the release pack's data name; its own packs may name none."""
        data = self.release.data.get("jurisdictions")
        names: set[str] = set()
        if isinstance(data, dict):
            for kind in ("countries", "groups"):
                section = data.get(kind)
                names |= section.keys() if isinstance(section, dict) else set()
        return frozenset(names)


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
