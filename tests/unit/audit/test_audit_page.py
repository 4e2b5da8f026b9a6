"""The log's reference names every kind, problem and gap, and no other; the auditor's page links to what exists."""

from __future__ import annotations

import re
from pathlib import Path

import audit
from audit.package.gaps import GapCode
from audit.package.manifest import LIMITS
from audit.problems import ProblemCode
from audit.records import Kind

DOCS = Path(audit.__file__).parents[1] / "docs"
PAGE = (DOCS / "audit-format.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_problem_is_explained() -> None:
    assert set(re.findall(r"`([A-Z_]+)`", section("Problems that verification reports"))) == set(ProblemCode)


def test_every_kind_is_explained() -> None:
    assert set(re.findall(r"`([a-z.-]+)`", section("Kinds of records"))) == {kind.value for kind in Kind}


def test_every_gap_is_explained() -> None:
    assert set(re.findall(r"`([A-Z_]+)`", section("Gaps that an evidence package names"))) == set(GapCode)


def test_what_lies_in_each_package_names_all_of_its_files() -> None:
    page = (Path(audit.__file__).parent / "package" / "stranger" / "VERIFY.md").read_text(encoding="utf-8")
    assert {name for name in LIMITS if f"`{name}`" in page or f" {name} " in page} >= LIMITS.keys() - {
        "VERIFY.md",
        "go.mod",
        "go.sum",
    }


def test_links_of_the_auditors_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]*)\)", (DOCS / "audit.md").read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        page = (DOCS / (name or "audit.md")).read_text(encoding="utf-8")
        titles = [line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")]
        anchors = {re.sub(r"[^a-z0-9 -]", "", title).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, target
