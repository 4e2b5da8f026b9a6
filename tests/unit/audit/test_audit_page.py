"""The auditor's page names every kind and every problem, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import audit
from audit.problems import ProblemCode
from audit.records import Kind

PAGE = (Path(audit.__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_problem_is_explained() -> None:
    assert set(re.findall(r"`([A-Z_]+)`", section("Problems that verification reports"))) == set(ProblemCode)


def test_every_kind_is_explained() -> None:
    assert set(re.findall(r"`([a-z.-]+)`", section("Kinds of records"))) == {kind.value for kind in Kind}
