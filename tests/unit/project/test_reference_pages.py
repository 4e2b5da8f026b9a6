"""The generated reference pages leave nothing out: compared with the sources by other means than the generator's."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import attestation
from attestation.conformance import PROFILES
from attestation.findings import Check
from attestation.nvgpu import conformance as nvgpu
from attestation.profile import Profile
from attestation.registry import CHECKS, SCHEMES
from attestation.snp import conformance as snp
from keybroker.config import BrokerConfig
from keybroker.initialise import initialise

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def page():
    return lambda name: (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def modules():
    """Every module of the attestation package but the simulator's, with its syntax tree."""
    names = [found.name for found in pkgutil.walk_packages(attestation.__path__, "attestation.")]
    loaded = [importlib.import_module(name) for name in names if not name.startswith("attestation.simulator")]
    return [(module, ast.parse(Path(module.__file__).read_bytes())) for module in loaded]


def _rule_sets(module):
    """The sets of rules that a module or its classes hold: dataclasses with checks as members, by member."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    for holder in (module, *classes):
        for value in vars(holder).values():
            if dataclasses.is_dataclass(value) and not isinstance(value, type | Check):
                members = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
                checks = {name: each for name, each in members.items() if isinstance(each, Check)}
                if checks:
                    yield checks


def _held(modules):
    """Every check that some module names, by itself or in a set of rules."""
    for module, _ in modules:
        yield from (value for value in vars(module).values() if isinstance(value, Check))
        for rules in _rule_sets(module):
            yield from rules.values()


def _constant(module, expression):
    """What a name, or an attribute of an imported module, stands for."""
    if isinstance(expression, ast.Name):
        return vars(module).get(expression.id)
    if isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name):
        return getattr(vars(module).get(expression.value.id), expression.attr, None)
    return None


def _applied(module, tree):
    """What functions apply: codes of checks that they name, and names of attributes that may be members of rules.

    A function applies what it mentions where it calls ``require`` or ``finding``, and what it hands to another.
    """
    codes, members = set(), set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            nodes = list(ast.walk(function))
            calls = [node for node in nodes if isinstance(node, ast.Call)]
            decides = {"require", "finding"} & {ast.unparse(call.func).rpartition(".")[2] for call in calls}
            handed = [each for call in calls for each in (*call.args, *(keyword.value for keyword in call.keywords))]
            for expression in nodes if decides else handed:
                value = _constant(module, expression) if isinstance(expression, ast.expr) else None
                if isinstance(value, Check):
                    codes.add(value.code)
                elif isinstance(expression, ast.Attribute):
                    members.add(expression.attr)
    return codes, members


def test_every_check_is_declared_once_and_registered(modules):
    held = list(_held(modules))
    assert {check.code for check in held} == CHECKS.keys()
    assert [check.code for check in held if check is not CHECKS[check.code]] == [], "two checks have one code"
    made = [
        call.args[0] if call.args else call.keywords[0].value
        for _, tree in modules
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] == "Check"
    ]
    written = [code.value for code in made if isinstance(code, ast.Constant)]
    assert len(written) > 100
    assert sorted(set(written)) == sorted(written), "two checks have one code"
    assert set(written) <= CHECKS.keys()
    assert {each.code for scheme in SCHEMES.values() for each in scheme.checks} <= CHECKS.keys()


def test_every_registered_check_is_applied_somewhere(modules):
    applied = [_applied(module, tree) for module, tree in modules]
    codes, members = (set().union(*each) for each in zip(*applied, strict=True))
    for module, _ in modules:
        for rules in _rule_sets(module):
            codes |= {check.code for name, check in rules.items() if name in members}
    assert CHECKS.keys() - codes == set()


def test_every_check_is_on_the_page_with_its_source_severity_and_reference(page):
    rows = {
        cells[1].strip(" `"): [cell.strip() for cell in cells]
        for line in page("checks").splitlines()
        if line.startswith("| `") and len(cells := re.split(r"(?<!\\)\|", line)) == 9
    }
    assert rows.keys() == CHECKS.keys()
    for code, check in CHECKS.items():
        _, _, title, field, severity, source, reference, remedy, _ = rows[code]
        stated = [text.replace("\\|", "|") for text in (title, field, severity, source, remedy)]
        assert stated == [check.title, check.field, check.severity.value, check.source, check.remedy]
        assert reference


def test_every_conformance_profile_is_known_by_name(modules):
    found = {
        value.name
        for module, _ in modules
        for value in vars(module).values()
        if isinstance(value, Profile) and value.deviations
    }
    assert {profile.name for profile in PROFILES} == found


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
