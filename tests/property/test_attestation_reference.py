"""Reference values and advisories: any bytes are a value or a typed error, and what is written is read back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import ManifestError
from attestation.findings import CheckLog
from attestation.reference.advisories import dump_advisories, parse_advisories
from attestation.reference.appraisal import appraise_reference
from attestation.reference.document import instant, seconds
from attestation.reference.values import parse_reference_values
from attestation.scheme import ReferenceValues
from attestation.types import DeviceResult

NAME = "file"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["about", "advisory", "advisories_grace", "devices", "snp", "nvgpu", "issuer", "serial", "issued", "by_product"]
)
LINES = st.text(
    st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters="\u2028\u2029"), min_size=1, max_size=20
)
BYTE = st.integers(0, 255)
BITS = st.lists(st.sampled_from(["SMT_EN", "ECC_EN", "ALIAS_CHECK_COMPLETE"]), unique=True, max_size=3)
POLICY = st.lists(st.sampled_from(["SMT", "DEBUG", "PAGE_SWAP_DISABLE"]), unique=True, max_size=3)
INSTANTS = st.integers(0, 4_000_000_000)


@st.composite
def advisories(draw: st.DrawFn) -> dict[str, Any]:
    """One sound advisory but for its id."""
    both = {
        "title": draw(LINES),
        "basis": draw(LINES),
        "enforced": draw(st.booleans()),
        "distrust": True,
        "url": draw(st.none() | LINES),
        "severity": draw(st.none() | LINES),
        "published": draw(st.none() | st.dates().map(str)),
    }
    if draw(st.booleans()):
        return both | {
            "products": draw(st.lists(st.sampled_from(["GH100", "GB100", "LS_10"]), min_size=1, unique=True)),
            "minimum_driver": draw(st.sampled_from([[], ["570.1"], ["550.144.03", "570.124.06"]])),
            "minimum_vbios": draw(st.none() | st.binary(min_size=5, max_size=5).map(lambda data: data.hex("."))),
        }
    return both | {
        "products": draw(st.lists(st.sampled_from(["Milan", "Genoa", "Turin"]), min_size=1, unique=True)),
        "cpuids": draw(st.lists(st.binary(min_size=3, max_size=3).map(bytes.hex), unique=True, max_size=2)),
        "minimum_tcb": draw(st.dictionaries(st.sampled_from(["bl", "tee", "snp", "ucode"]), BYTE)),
        "minimum_firmware": draw(st.none() | st.tuples(BYTE, BYTE, BYTE)),
        "platform_required": draw(BITS),
        "platform_forbidden": draw(BITS),
        "policy_required": draw(POLICY),
        "policy_forbidden": draw(POLICY),
        "mitigations": draw(st.integers(0, (1 << 63) - 1)),
    }


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A sound table, as JSON."""
    issued = draw(st.integers(0, 4_000_000_000))
    about = {
        "issuer": draw(LINES),
        "serial": draw(st.integers(0, (1 << 63) - 1)),
        "issued": instant(issued),
        "next_update": instant(issued + draw(st.integers(1, 10**9))),
    }
    listed = draw(st.lists(advisories(), min_size=1, max_size=4))
    return json.dumps(
        {"about": about, "advisory": [{"id": f"A-{number}", **each} for number, each in enumerate(listed)]}
    ).encode()


def read(parse: Any, data: bytes) -> str:
    """What became of `data`: nothing, or an error that names the file."""
    try:
        parse(data, name=NAME)
    except ManifestError as error:
        return str(error)
    return f"{NAME}: read"


@given(
    st.binary(max_size=300) | st.dictionaries(KEYS | st.text(max_size=5), JSON).map(lambda d: json.dumps(d).encode())
)
def test_any_bytes_are_values_or_an_error_that_names_the_file(data: bytes) -> None:
    assert read(parse_reference_values, data).startswith(f"{NAME}: ")
    assert read(parse_advisories, data).startswith(f"{NAME}: ")


@given(tables(), st.data())
def test_a_sound_table_with_one_byte_changed(table: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(table) - 1))
    broken = bytearray(table)
    broken[position] = data.draw(BYTE)
    assert read(parse_advisories, bytes(broken)).startswith(f"{NAME}: ")


@given(tables())
def test_what_is_dumped_is_read_back(table: bytes) -> None:
    parsed = parse_advisories(table, name=NAME)
    dumped = dump_advisories(parsed)
    again = parse_advisories(dumped, name=NAME)
    assert (again.advisories, again.about, again.next_update) == (parsed.advisories, parsed.about, parsed.next_update)
    assert dump_advisories(again) == dumped


CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "product": st.sampled_from(["Milan", "Genoa", "Turin", "GH100", "unknown"]),
        "cpuid": st.binary(min_size=3, max_size=3).map(bytes.hex),
        "reported_tcb": st.none() | st.dictionaries(st.sampled_from(["bl", "snp"]), st.none() | BYTE),
        "committed_firmware": st.sampled_from(["1.55.40", "", "x", "1..2", "²"]),
        "platform_info": st.integers(0, (1 << 64) - 1).map(hex),
        "policy": st.integers(0, (1 << 64) - 1).map(hex),
        "driver_version": st.text(max_size=12),
        "vbios_version": st.none() | st.text(max_size=16),
        "chip_id": st.binary(min_size=64, max_size=64).map(bytes.hex),
    },
)


@given(tables(), CLAIMS, st.sampled_from(["snp", "snp-azure-hcl", "nvgpu", "nvswitch"]), INSTANTS)
def test_any_claims_can_be_held_against_any_table(table: bytes, claims: Any, scheme: str, now: int) -> None:
    log = CheckLog()
    reference = ReferenceValues(snp=None, nvgpu=None, advisories=(parse_advisories(table, name=NAME),))
    result = DeviceResult(slot="cpu0", scheme=scheme, claims=claims, identity=None, findings=())
    appraise_reference(result, reference=reference, now=now, log=log)
    codes = {each.code for each in (*log.findings, *log.passed)}
    vendor = "NVIDIA" if scheme.startswith("nv") else "SNP"
    assert all(code.startswith(f"{vendor}_") for code in codes)
    assert all(finding.reference for finding in log.findings)
    assert vendor == "NVIDIA" or codes & {"SNP_ADVISORIES_STALE", "SNP_ADVISORIES_NONE"}


@given(INSTANTS)
def test_instants_are_read_back(value: int) -> None:
    assert seconds(instant(value), where=NAME) == value
