"""The generated reference pages leave nothing out: compared with the sources by other means than the generator's."""

from __future__ import annotations

import ast
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


def _declared(tree):
    """The codes of the ``Check(…)`` calls in a module."""
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Check"
    ]
    codes = [(node.args[0] if node.args else node.keywords[0].value) for node in calls]
    assert all(isinstance(code, ast.Constant) for code in codes), "a check's code is written out"
    return [code.value for code in codes]


def _constant(module, expression):
    """What a name, or an attribute of an imported module, stands for."""
    if isinstance(expression, ast.Name):
        return vars(module).get(expression.id)
    if isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name):
        return getattr(vars(module).get(expression.value.id), expression.attr, None)
    return None


def _applied(module, tree):
    """The codes of the checks that functions with a call of ``require`` or ``finding`` mention."""
    codes = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            nodes = list(ast.walk(function))
            called = {
                node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            }
            mentioned = [_constant(module, node) for node in nodes if isinstance(node, ast.expr)]
            checks = {each.code for each in mentioned if isinstance(each, Check)}
            # A function that hands its check to another that applies it names it in the call's arguments.
            handed = {
                each.code
                for node in nodes
                if isinstance(node, ast.Call)
                for argument in (*node.args, *(keyword.value for keyword in node.keywords))
                if isinstance(each := _constant(module, argument), Check)
            }
            codes |= checks if called & {"require", "finding"} else handed
    return codes


def test_every_check_is_declared_once_and_registered(modules):
    declared = [code for _, tree in modules for code in _declared(tree)]
    assert sorted(set(declared)) == sorted(declared), "two checks have one code"
    assert set(declared) == CHECKS.keys()
    held = {each.code for module, _ in modules for each in vars(module).values() if isinstance(each, Check)}
    assert held == CHECKS.keys()
    assert {each.code for scheme in SCHEMES.values() for each in scheme.checks} <= CHECKS.keys()


def test_every_registered_check_is_applied_somewhere(modules):
    applied = set().union(*(_applied(module, tree) for module, tree in modules))
    assert CHECKS.keys() - applied == set()


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
