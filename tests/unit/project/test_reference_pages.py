"""The generated reference pages leave nothing out: compared with the sources by other means than the generator's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attestation.nvgpu import conformance as nvgpu
from attestation.snp import conformance as snp
from keybroker.config import BrokerConfig
from keybroker.initialise import initialise

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def page():
    return lambda name: (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")


def test_every_reason_of_the_broker_is_on_the_page(page):
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "keybroker").rglob("*.py"))
    codes = set(re.findall(r'\bReason\(\s*(?:code=)?"([A-Z_]+)"', sources))
    assert len(codes) >= 14
    assert {code for code in codes if f"| `{code}` |" not in page("reasons")} == set()


@pytest.mark.parametrize("pack", ["release", "appraisal"])
def test_every_denial_of_a_shipped_pack_is_on_the_page(page, pack):
    rego = (ROOT / "policy" / "packs" / pack / f"{pack}.rego").read_text(encoding="utf-8")
    codes = re.findall(r"^#   code: (\S+)$", rego, flags=re.MULTILINE)
    assert len(codes) >= 9
    assert [code for code in codes if f"| `{code}` |" not in page("reasons")] == []


def test_every_deviation_of_a_conformance_profile_is_on_the_page_with_its_reason(page):
    text = page("conformance")
    for profile in (snp.PROFILE, snp.PROFILE_SPEC_DEFAULTS, nvgpu.PROFILE):
        section = text.partition(f"\n## {profile.name}\n")[2].partition("\n## ")[0]
        assert set(re.findall(r"^\| `(\w+)` ", section, flags=re.MULTILINE)) == set(profile.deviations)
        assert [code for code, each in profile.deviations.items() if each.reason not in section] == []


def test_every_key_of_the_configuration_is_on_the_page(page, tmp_path):
    text = page("configuration")
    made = initialise(tmp_path / "broker", now=1_795_000_000)
    document = BrokerConfig.load(made.config).model_dump()
    missing = []
    for name, section in document.items():
        if isinstance(section, dict):
            rows = text.partition(f"\n## [{name}]\n")[2].partition("\n## ")[0]
            missing += [f"{name}.{key}" for key in section if f"| `{key}` |" not in rows]
    assert missing == []
    assert set(document) >= {"broker", "storage", "keys", "tls", "attestation", "policy", "limits"}
