"""The policies that a broker loads: settings and packs that cannot be used are configuration errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from keybroker.config import BrokerConfig
from keybroker.errors import ConfigError
from keybroker.policies import APPRAISAL, RELEASE, Policies, shipped

BASE = """
[broker]
name = "keys"
trust_domain = "factory.test"
[storage]
database = "sqlite:///keystead.db"
"""


def config(folder: Path, text: str) -> BrokerConfig:
    """A configuration in `folder`."""
    path = folder / "keystead.toml"
    path.write_text(BASE + text)
    return BrokerConfig.load(path)


def test_the_shipped_packs_are_strict(tmp_path: Path) -> None:
    policies = Policies.load(config(tmp_path, ""))
    assert policies.settings.allow_simulated is False
    assert policies.appraisal.digest != policies.release.digest
    assert policies.release.evaluate({}).allow is False
    assert policies.appraisal.evaluate({}).allow is False


def test_packs_of_ones_own(tmp_path: Path) -> None:
    for name in (APPRAISAL, RELEASE):
        (tmp_path / f"{name}.tar.gz").write_bytes(shipped(name))
    own = Policies.load(config(tmp_path, '[policy]\nappraisal = "appraisal.tar.gz"\nrelease = "release.tar.gz"\n'))
    assert own.release.digest == Policies.load(config(tmp_path, "")).release.digest


def test_settings_are_part_of_the_digest(tmp_path: Path) -> None:
    strict = Policies.load(config(tmp_path, ""))
    loose = Policies.load(config(tmp_path, "[policy.settings]\nallow_simulated = true\n"))
    assert loose.settings.allow_simulated is True
    assert strict.release.digest != loose.release.digest or strict.appraisal.digest != loose.appraisal.digest


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[policy.settings]\nallow_everything = true\n", "policy.settings.allow_everything"),
        ('[policy.settings]\nallow_simulated = "yes"\n', "policy.settings.allow_simulated"),
        ('[policy]\nrelease = "none.tar.gz"\n', "policy.release"),
        ('[policy]\nappraisal = "junk.tar.gz"\n', "policy.appraisal"),
        ('[policy]\nrelease = "cut.tar.gz"\n', "policy.release"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "junk.tar.gz").write_bytes(b"junk")
    (tmp_path / "cut.tar.gz").write_bytes(shipped(RELEASE)[:-40])
    loaded = config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Policies.load(loaded)
    assert named in str(caught.value)
