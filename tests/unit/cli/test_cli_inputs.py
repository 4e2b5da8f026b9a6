"""What people write on the command line: instants, durations, devices, assets, profiles, grant files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attester.errors import CredentialError
from attester.grant_file import GrantFile
from keystead.binding import AssetRef, JobGrant
from keystead.cli import instants
from keystead.cli.exits import UsageError
from keystead.cli.job import parse_ref
from keystead.cli.node import parse_device, read_devices
from keystead.cli.profile import Profile, find_profile

GRANT = JobGrant(
    broker="keystead",
    grant_id="g1",
    tenant="acme",
    job_uid="slurm:1",
    scheduler="slurm",
    assets=(AssetRef("acme/llm", 1),),
    purposes=("inference",),
    nodes=(),
    sites=(),
    node_ceiling=1,
    not_before=1,
    not_after=2,
).to_bytes()
FILE = GrantFile("keystead", GRANT, b"s" * 64, "k1", b"n" * 56)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("45m", 2_700), ("8h", 28_800), ("365d", 31_536_000)])
def test_durations(text: str, seconds: int) -> None:
    assert instants.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "0h", "-1h", "1.5h", "8H", "8h ", "1w", "9999999999s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="duration"):
        instants.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1795353480", 1_795_353_480),
        ("2026-11-22T13:18:00Z", 1_795_353_480),
        ("2026-11-22T14:18:00+01:00", 1_795_353_480),
        ("2026-11-22", 1_795_305_600),
    ],
)
def test_instants(text: str, seconds: int) -> None:
    assert instants.parse_instant(text) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-22T13:18:00", "2026-13-01", "٣"])
def test_no_instants(text: str) -> None:
    with pytest.raises(UsageError):
        instants.parse_instant(text)


def test_a_device_is_read_and_its_hex_lowered() -> None:
    device = parse_device("cpu0=amd-chip-id:9F3A")
    assert (device.slot, device.kind, device.value) == ("cpu0", "amd-chip-id", "9f3a")


@pytest.mark.parametrize("text", ["", "cpu0", "cpu0=amd-chip-id", "cpu0=amd-chip-id:xyz", "CPU0=a:00", "cpu=a:00"])
def test_no_devices(text: str) -> None:
    with pytest.raises(UsageError, match="cpu0=amd-chip-id"):
        parse_device(text)


def test_devices_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "node.json"
    file.write_text(json.dumps({"cpu0": "amd-chip-id:00", "gpu0": "nvidia-gpu:01"}))
    assert [device.slot for device in read_devices(file)] == ["cpu0", "gpu0"]
    for text in ("[]", "{}", "{", '{"cpu0": "00"}', '{"cpu0": 3}'):
        file.write_text(text)
        with pytest.raises(UsageError):
            read_devices(file)


def test_an_asset_needs_its_version() -> None:
    ref = parse_ref("acme/llm@2")
    assert (ref.asset, ref.version) == ("acme/llm", 2)
    with pytest.raises(UsageError, match="TENANT/NAME@VERSION"):
        parse_ref("acme/llm")


def _profile(folder: Path, **changes: str) -> Path:
    values = {"address": "127.0.0.1:1", "ca": "ca.pem", "certificate": "o.pem", "key": "o.key", **changes}
    file = folder / "o.toml"
    file.write_text("".join(f'{name} = "{value}"\n' for name, value in values.items()))
    return file


def test_a_profile_names_files_beside_itself(tmp_path: Path) -> None:
    profile = Profile.load(_profile(tmp_path, ca="../ca.pem"))
    assert profile == Profile("127.0.0.1:1", tmp_path / "../ca.pem", tmp_path / "o.pem", tmp_path / "o.key")


def test_options_win_over_the_profile(tmp_path: Path) -> None:
    found = find_profile(profile=_profile(tmp_path), address="b:2", ca=Path("other.pem"), certificate=None, key=None)
    assert found == Profile("b:2", Path("other.pem"), tmp_path / "o.pem", tmp_path / "o.key")


def test_options_alone_are_enough() -> None:
    found = find_profile(profile=None, address="b:2", ca=Path("a"), certificate=Path("c"), key=Path("k"))
    assert found == Profile("b:2", Path("a"), Path("c"), Path("k"))


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="--broker, --cert, --key"):
        find_profile(profile=None, address=None, ca=Path("a"), certificate=None, key=None)


@pytest.mark.parametrize("text", ["address = 1", 'port = "1"', "address = ", '[address]\na = "b"'])
def test_bad_profiles(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.toml"
    file.write_text(text)
    with pytest.raises(UsageError):
        Profile.load(file)


def test_an_incomplete_or_absent_profile(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('address = "x:1"\n')
    with pytest.raises(UsageError, match="ca, certificate, key missing"):
        Profile.load(file)
    with pytest.raises(UsageError, match="No such file"):
        Profile.load(tmp_path / "none.toml")


def test_a_grant_file_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    FILE.write(file)
    assert GrantFile.read(file) == FILE
    assert FILE.signed.content.job_uid == "slurm:1"


@pytest.mark.parametrize(
    "change",
    [
        {"format": "keystead/v2/grant-file"},
        {"grant": "AAAA"},
        {"grant": "not base64!"},
        {"nonce": 3},
        {"extra": "x"},
        {"signature": None},
    ],
)
def test_bad_grant_files(change: dict[str, object]) -> None:
    document = {**json.loads(FILE.to_bytes()), **change}
    with pytest.raises(CredentialError, match="grant file"):
        GrantFile.parse(json.dumps(document).encode())


@given(st.binary(max_size=300))
def test_any_bytes_are_a_grant_file_or_wrong_use(data: bytes) -> None:
    with pytest.raises(CredentialError):
        GrantFile.parse(data)
