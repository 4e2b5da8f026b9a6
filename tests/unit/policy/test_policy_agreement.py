"""Wasm and `opa eval` agree: one semantics, whichever evaluates a pack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policy.decision import Decision
from policy.documents import encode_document
from policy.engine import PolicyEngine
from policy.errors import PackRejectedError
from policy.inputs import AppraisalInput, ReleaseInput
from policy.opa import Opa
from policy.sources import PACKS, stage

WRONG: tuple[Any, ...] = (None, True, 7, -1, "text", 'é<&>"\\\U0001f600', [], [7], {}, {"x": "7"})


def variants(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`document`, what is no such document at all, and it with each member gone and of each other type."""
    yield document
    yield {}
    text = json.dumps(document)
    for path in paths(document):
        for value in (*WRONG, ...):
            changed = json.loads(text)
            place = changed
            for name in path[:-1]:
                place = place[name]
            if value is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = value
            yield changed


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    members: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield (*path, name)
        yield from paths(member, (*path, name))


def evaluate_all(opa: Path, folder: Path, pack: str, documents: list[dict[str, Any]]) -> list[Decision]:
    """What `opa eval` decides about each document, in one call: a rule evaluates the pack over a list of inputs."""
    staged = folder / "staged"
    staged.mkdir()
    stage(PACKS / pack, into=staged)
    driver = (
        f"package driver\n\ndecisions := [decision | some document in input\n"
        f"\tdecision := data.{pack}.decision with input as document\n]\n"
    )
    (staged / "driver").mkdir()
    (staged / "driver" / "driver.rego").write_text(driver)
    plain = [json.loads(encode_document(document, what="corpus")) for document in documents]
    results = Opa(opa).evaluate(staged, query="data.driver.decisions", document=json.dumps(plain).encode())
    assert isinstance(results, list)
    return [Decision.from_document(result) for result in results]


@pytest.mark.opa
def test_release_agrees(opa: Path, tmp_path: Path, release: PolicyEngine, acquire: ReleaseInput) -> None:
    document: Any = acquire.to_input()
    authorize = document | {"stage": "authorize", "node": None, "site": None, "candidate_sites": [document["site"]]}
    corpus = [*variants(document), *variants(authorize)]
    assert len(corpus) > 900
    expected = evaluate_all(opa, tmp_path, "release", corpus)
    for item, decision in zip(corpus, expected, strict=True):
        assert release.evaluate(item) == decision, item
    assert sum(decision.allow for decision in expected) > 10


@pytest.mark.opa
def test_appraisal_agrees(opa: Path, tmp_path: Path, appraisal: PolicyEngine, node_evidence: AppraisalInput) -> None:
    # A finding's own words become a denial's, and words that are no words are no decision: tested by themselves below.
    document: Any = node_evidence.to_input()
    corpus = [item for item in variants(document) if findings_have_words(item)]
    assert len(corpus) > 300
    expected = evaluate_all(opa, tmp_path, "appraisal", corpus)
    for item, decision in zip(corpus, expected, strict=True):
        assert appraisal.evaluate(item) == decision, item
    assert sum(decision.allow for decision in expected) > 10


def findings_have_words(document: Any) -> bool:
    """Every finding that would become a denial has the texts a denial needs."""
    found = [document.get("node_findings")]
    devices = document.get("devices")
    found += (
        [device.get("findings") for device in devices if isinstance(device, dict)] if isinstance(devices, list) else []
    )
    findings = [item for list_ in found if isinstance(list_, list) for item in list_ if isinstance(item, dict)]
    names = ("code", "title", "field", "expected", "actual", "remedy", "reference")
    return all(
        item.get("severity") == "inform" or all(isinstance(item.get(name), str) for name in names) for item in findings
    )


@pytest.mark.opa
def test_characters_that_do_not_print_are_the_one_difference(
    opa: Path, tmp_path: Path, release: PolicyEngine, acquire: ReleaseInput
) -> None:
    """Within a list, in `expected` and `actual`, topdown escapes them as Go does and Wasm as JSON does."""
    document: Any = acquire.to_input()
    document["grant"]["purposes"] = ["\u0000\u2028"]
    document["asset"]["purposes"] = ["\u2028\u0000"]
    (theirs,) = evaluate_all(opa, tmp_path, "release", [document])
    ours = release.evaluate(document)
    assert [denial.code for denial in ours.deny] == ["PURPOSE_NOT_PERMITTED"]
    assert ours != theirs
    for mine, other in zip(ours.deny, theirs.deny, strict=True):
        assert replace(mine, expected="") == replace(other, expected="")


@pytest.mark.opa
@pytest.mark.parametrize("pack", ["release", "appraisal"])
def test_well_formed_input_makes_no_built_in_fail(
    opa: Path, tmp_path: Path, pack: str, acquire: ReleaseInput, node_evidence: AppraisalInput
) -> None:
    """With the right types no built-in can fail, so that undefined never hides an error."""
    document = acquire.to_bytes() if pack == "release" else node_evidence.to_bytes()
    stage(PACKS / pack, into=tmp_path)
    strict = Opa(opa).evaluate(tmp_path, query=f"data.{pack}.decision", document=document, strict=True)
    assert Decision.from_document(strict).allow
    denied = json.loads(document) | {"now": 1}
    Opa(opa).evaluate(tmp_path, query=f"data.{pack}.decision", document=json.dumps(denied).encode(), strict=True)


@pytest.mark.opa
def test_strict_evaluation_would_have_seen_a_failure(opa: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "p.rego").write_text("package p\n\nx := count(input.n)\n")
    with pytest.raises(PackRejectedError, match="count"):
        Opa(opa).evaluate(tmp_path, query="data.p.x", document=b'{"n":1}', strict=True)
