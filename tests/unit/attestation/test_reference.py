"""Reference values from a file: each error names the key, and nothing that is absent is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import ManifestError
from attestation.nvgpu.abi import Mode
from attestation.reference.document import MAX_FILE
from attestation.reference.values import parse_reference_values
from attestation.snp.abi import GuestPolicy, PlatformInfo, Product, TcbVersion

SNP = """
[snp]
policy_allowed = ["SMT"]
[snp.minimum_tcb.Genoa]
bl = 10
tee = 0
snp = 23
ucode = 84
"""
NVGPU = """
[nvgpu]
products = ["GH100"]
modes = ["spt"]
"""


def parse(text: str):
    """Read `text` as a file called ``values.toml``."""
    return parse_reference_values(text.encode("utf-8"), name="values.toml")


def test_a_section_that_is_absent_accepts_nothing():
    values = parse("")
    assert (values.snp, values.nvgpu) == (None, None)
    assert parse(SNP).nvgpu is None
    assert parse(NVGPU).snp is None


def test_what_is_read():
    values = parse(SNP + NVGPU)
    assert dict(values.snp.minimum_tcb) == {Product.GENOA: TcbVersion(bl=10, tee=0, snp=23, ucode=84, fmc=None)}
    assert values.snp.policy_allowed == GuestPolicy.SMT
    assert values.snp.platform_required == PlatformInfo.ALIAS_CHECK_COMPLETE
    assert values.snp.vmpls == frozenset({0})
    assert values.snp.allow_masked_chip_id is False
    assert values.snp.measurements is None
    assert values.nvgpu.products == frozenset({"GH100"})
    assert values.nvgpu.modes == frozenset({Mode("spt")})


def test_pins_are_bytes():
    text = SNP.replace('["SMT"]', f'["SMT"]\nmeasurements = ["{"ab" * 48}"]\nhost_data = ["{"cd" * 32}"]')
    values = parse(text + NVGPU + f'[nvgpu.measurements]\n9 = ["{"ef" * 48}"]\n')
    assert values.snp.measurements == frozenset({b"\xab" * 48})
    assert values.snp.host_data == frozenset({b"\xcd" * 32})
    assert dict(values.nvgpu.measurements) == {9: frozenset({b"\xef" * 48})}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[tdx]\n", "tdx"),
        ("[snp]\n", "snp.minimum_tcb"),
        (SNP.replace("bl = 10\n", ""), "snp.minimum_tcb.Genoa.bl"),
        (SNP.replace("bl = 10", "bl = 256"), "snp.minimum_tcb.Genoa.bl"),
        (SNP.replace("bl = 10", "bl = -1"), "snp.minimum_tcb.Genoa.bl"),
        (SNP.replace("bl = 10", 'bl = "10"'), "snp.minimum_tcb.Genoa.bl"),
        (SNP.replace("bl = 10", "bl = true"), "snp.minimum_tcb.Genoa.bl"),
        (SNP.replace("bl = 10", "bl = 10.0"), "snp.minimum_tcb.Genoa.bl"),
        (SNP.replace("bl = 10", "bl = 10\nfmc = 1"), "snp.minimum_tcb.Genoa"),
        (SNP.replace("Genoa", "Turin"), "snp.minimum_tcb.Turin"),
        (SNP.replace("Genoa", "Naples"), "Naples"),
        (SNP.replace("SMT", "EVERYTHING"), "snp.policy_allowed"),
        (SNP.replace("SMT", "KNOWN"), "snp.policy_allowed"),
        (SNP.replace("SMT", "smt"), "snp.policy_allowed"),
        (SNP.replace("policy_allowed", "policy_alowed"), "snp.policy_alowed"),
        (SNP.replace('["SMT"]', '["SMT"]\nvmpls = [4]'), "snp.vmpls"),
        (SNP.replace('["SMT"]', '["SMT"]\nplatform_required = ["NOTHING"]'), "snp.platform_required"),
        (SNP.replace('["SMT"]', '["SMT"]\nmeasurements = ["abc"]'), "snp.measurements"),
        (SNP.replace('["SMT"]', '["SMT"]\nmeasurements = ["AB"]'), "snp.measurements"),
        (SNP.replace('["SMT"]', '["SMT"]\nmeasurements = ["ab"]'), "snp.measurements"),
        (SNP.replace('["SMT"]', '["SMT"]\nhost_data = ["ab"]'), "snp.host_data"),
        (SNP.replace('["SMT"]', '["SMT"]\nid_key_digests = ["ab"]'), "snp.id_key_digests"),
        (SNP.replace('["SMT"]', '["SMT"]\nauthor_key_digests = ["ab"]'), "snp.author_key_digests"),
        (SNP.replace('["SMT"]', '["SMT"]\nminimum_abi = [1]'), "snp.minimum_abi"),
        (SNP.replace('["SMT"]', '["SMT"]\nallow_masked_chip_id = 1'), "snp.allow_masked_chip_id"),
        (SNP.replace('["SMT"]', '["SMT"]\ncrl_number_floor = {Naples = 1}'), "Naples"),
        ("[nvgpu]\nproducts = []\n", "nvgpu.modes"),
        (NVGPU.replace("spt", "open"), "nvgpu.modes"),
        (NVGPU + '[nvgpu.measurements]\n0 = ["ab"]\n', "nvgpu.measurements"),
        (NVGPU + '[nvgpu.measurements]\n65 = ["ab"]\n', "nvgpu.measurements"),
        (NVGPU + '[nvgpu.measurements]\n01 = ["ab"]\n', "nvgpu.measurements"),
        (NVGPU + '[nvgpu.measurements]\n9 = ["ab"]\n', "nvgpu.measurements.9"),
        (NVGPU + 'drivers = "550"\n', "nvgpu.drivers"),
        ("snp = 2026-01-01\n", "date"),
        ("[snp", "TOML"),
        ("a = 1\na = 2\n", "TOML"),
    ],
)
def test_an_error_names_the_file_and_the_key(text, named):
    with pytest.raises(ManifestError) as caught:
        parse(text)
    assert str(caught.value).startswith("values.toml: ")
    assert named in str(caught.value)


def test_what_is_no_text_or_too_long():
    for data in (b"\xff", bytes(MAX_FILE + 1), b"#" * (MAX_FILE + 1)):
        with pytest.raises(ManifestError, match=r"^values\.toml: "):
            parse_reference_values(data, name="values.toml")


def test_nesting_is_an_error_of_the_file():
    for text in ("a = " + "[" * 100_000, "a" + ".a" * 20_000 + " = 1", "a = " + "[" * 2_000 + "]" * 2_000):
        with pytest.raises(ManifestError, match=r"^values\.toml: "):
            parse(text)


TOML = st.recursive(
    st.sampled_from(["1", "-1", "true", "1.5", '"SMT"', '"ab"', "inf", "2026-01-01", "9" * 30, '"\\u0000"']),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=6,
)
KEYS = st.sampled_from(["snp", "nvgpu", "products", "modes", "minimum_tcb", "bl", "versions", "vmpls", "measurements"])


@given(st.one_of(st.binary(max_size=200), st.lists(st.tuples(KEYS, TOML), max_size=6)))
def test_any_bytes_are_values_or_a_named_error(given_):
    if isinstance(given_, bytes):
        data = given_
    else:
        data = ("[snp]\n" + "\n".join(f"{key} = {value}" for key, value in given_)).encode("utf-8")
    problem = None
    try:
        parse_reference_values(data, name="values.toml")
    except ManifestError as error:
        problem = str(error)
    assert problem is None or problem.startswith("values.toml: ")
