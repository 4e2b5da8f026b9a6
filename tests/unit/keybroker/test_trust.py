"""What a broker believes: nothing that its configuration does not name, and simulators never by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from keybroker.config import BrokerConfig
from keybroker.errors import ConfigError
from keybroker.trust import Trust

BASE = """
[broker]
name = "keys"
trust_domain = "factory.test"
[storage]
database = "sqlite:///keystead.db"
[attestation]
"""


def load(folder: Path, text: str) -> Trust:
    """Trust as configured in `folder`."""
    path = folder / "keystead.toml"
    path.write_text(BASE + text)
    return Trust.load(BrokerConfig.load(path))


def test_nothing_is_accepted_by_default(tmp_path: Path) -> None:
    trust = load(tmp_path, "")
    assert trust.simulated is False
    assert (trust.reference.snp, trust.reference.nvgpu) == (None, None)
    assert trust.collateral.crls == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('reference_values = "none.toml"', "attestation.reference_values"),
        ('reference_values = "junk"', "junk"),
        ('simulated_amd_roots = ["none.der"]', "attestation.simulated_amd_roots"),
        ('simulated_nvidia_roots = ["none.der"]', "attestation.simulated_nvidia_roots"),
        ('simulated_amd_roots = ["junk"]', "attestation"),
        ('simulated_nvidia_roots = ["junk"]', "attestation"),
        ('crls = ["none.der"]', "attestation.crls"),
        ('crls = ["junk"]', "attestation.crls"),
        ('crls = ["."]', "attestation.crls"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "junk").write_bytes(b"[snp]\npolicy_allowed = 7\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert named in str(caught.value)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.der").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(ConfigError, match="longer"):
        load(tmp_path, 'crls = ["huge.der"]')
