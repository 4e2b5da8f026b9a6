"""What ``docs/policy-authoring.md`` shows works as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from policy.engine import PolicyEngine
from policy.inputs import ReleaseInput
from policy.opa import Opa
from policy.sources import compile_pack, default_bundle, schemas_of, workspace

PAGE = Path(__file__).resolve().parents[3] / "docs" / "policy-authoring.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.opa
def test_the_example_pack_compiles_and_decides(opa: Path, tmp_path: Path, acquire: ReleaseInput) -> None:
    (text,) = blocks("rego")
    pack = tmp_path / "rego" / "mypack"
    pack.mkdir(parents=True)
    (pack / "mypack.rego").write_text(text)
    with workspace(pack.parent) as root:
        Opa(opa).check(root, schemas=schemas_of(root))
    assert Opa(opa).unformatted(pack.parent) == ()
    bundle, _ = compile_pack(Opa(opa), pack)
    engine = PolicyEngine(bundle)
    assert engine.evaluate(acquire.to_input()).allow
    for asset in (acquire.asset.model_copy(update={"classification": 3}).to_input(), {}, {"classification": "1"}):
        denied = engine.evaluate(acquire.to_input() | {"asset": asset})
        assert [denial.code for denial in denied.deny] == ["CLASSIFICATION_TOO_HIGH"]


def test_a_group_of_ones_own(acquire: ReleaseInput) -> None:
    data = next(json.loads(text) for text in blocks("json") if "jurisdictions" in text)
    site = acquire.site.model_copy(update={"jurisdiction": "CH"}) if acquire.site else None
    residency = acquire.asset.residency.model_copy(update={"allowed": (("DACH",),)})
    document = acquire.model_copy(
        update={"site": site, "asset": acquire.asset.model_copy(update={"residency": residency})}
    ).to_input()
    pack = default_bundle("release")
    assert PolicyEngine(pack, data=data).evaluate(document).allow
    codes = {denial.code for denial in PolicyEngine(pack).evaluate(document).deny}
    assert codes == {"AREA_UNKNOWN", "JURISDICTION_NOT_PERMITTED"}


def test_every_code_is_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    for name in ("appraisal", "release"):
        bundle = default_bundle(name)
        source = bundle.files[f"{name}/{name}.rego"].decode()
        codes = re.findall(r"^#   code: ([A-Z_]+)$", source, re.MULTILINE)
        assert len(codes) > 5
        for code in codes:
            assert f"`{code}`" in page, code
