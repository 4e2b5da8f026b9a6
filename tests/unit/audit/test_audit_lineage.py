"""Lineage from the log: exact steps both ways, by entry; nothing that came later, nothing of another tenant's job."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from audit.errors import QueryError
from audit.lineage import MAX_LEASES, Lineage, to_dot, to_mermaid, to_tree, trace
from audit.log import append_many, erase
from audit.note import NoteSigner
from audit.query import MAX_PAGE, Entry, Filter, query
from audit.records import Actor, Kind, Record, Result
from audit.sequencer import Sequencer
from keystead.cli.main import run

NOW = 1_800_000_000
Build = Callable[..., Record]


def history(record: Build) -> list[Record]:
    """Data and a base are tuned into a model, which is merged by hand; another tenant has a job of the same name."""
    made = {"result": Result.RECORDED, "kind": Kind.ASSET_OUTPUT_REGISTERED, "lease": None}
    return [
        record(0, kind=Kind.ASSET_VERSION_ADDED, assets=["acme/data@1"], result=Result.RECORDED, detail={}),  # 0
        record(0, kind=Kind.ASSET_VERSION_ADDED, assets=["acme/base@1"], result=Result.RECORDED, detail={}),  # 1
        record(0, job="tune", assets=["acme/data@1"], lease="l1", site="ber1", node="n1"),  # 2
        record(0, job="tune", assets=["acme/base@1", "acme/data@1"], lease="l2", site="par1", jurisdiction="FR"),  # 3
        record(0, job="tune", tenant="umbrella", assets=["umbrella/virus@1"], lease="l3"),  # 4
        record(
            0,
            **made,
            job="tune",
            assets=["acme/tuned@1", "acme/base@1", "acme/data@1"],
            detail={"output": "acme/tuned@1"},
        ),  # 5
        record(0, job="tune", assets=["acme/data@1"], lease="l4"),  # 6: after the output
        record(
            0,
            kind=Kind.ASSET_VERSION_ADDED,
            assets=["acme/merged@1", "acme/tuned@1"],
            result=Result.RECORDED,
            detail={"version": "acme/merged@1"},
        ),  # 7
        record(
            0,
            kind=Kind.ASSET_PARENTS_DECLARED,
            assets=["acme/merged@1", "acme/base@1"],
            result=Result.RECORDED,
            detail={"version": "acme/merged@1"},
        ),  # 8
        record(0, job="serve", assets=["acme/merged@1"], lease="l5", site="ber1"),  # 9
    ]


@pytest.fixture
def told(any_engine: Engine, make_log: Callable[..., Sequencer], record: Build) -> Engine:
    sequencer = make_log(any_engine)
    with any_engine.begin() as connection:
        append_many(connection, history(record))
    sequencer.run_once(NOW)
    return any_engine


def finder(connection: Connection) -> Callable[[Filter], Iterable[Entry]]:
    return lambda wanted: query(connection, wanted, limit=MAX_PAGE).entries


def steps(lineage: Lineage) -> set[tuple[str, str, str, tuple[int, ...]]]:
    return {(edge.source, edge.step.value, edge.target, edge.entries) for edge in lineage.edges}


TUNED = {
    ("job acme/tune", "made", "acme/tuned@1", (5,)),
    ("acme/data@1", "used", "job acme/tune", (2, 3)),
    ("acme/base@1", "used", "job acme/tune", (3,)),
}
MERGED = TUNED | {
    ("acme/tuned@1", "declared", "acme/merged@1", (7,)),
    ("acme/base@1", "declared", "acme/merged@1", (8,)),
}


@pytest.mark.parametrize(
    ("asset", "up", "expected"),
    [
        ("acme/tuned@1", True, TUNED),
        ("acme/tuned", True, TUNED),
        ("acme/merged@1", True, MERGED),
        ("acme/data@1", True, set()),
        ("acme/none@1", True, set()),
        ("acme/none", False, set()),
        (
            "acme/data@1",
            False,
            {
                ("acme/data@1", "used", "job acme/tune", (2, 3, 6)),
                ("job acme/tune", "made", "acme/tuned@1", (5,)),
                ("acme/tuned@1", "declared", "acme/merged@1", (7,)),
                ("acme/merged@1", "used", "job acme/serve", (9,)),
            },
        ),
        ("umbrella/virus@1", False, {("umbrella/virus@1", "used", "job umbrella/tune", (4,))}),
    ],
)
def test_steps(told: Engine, asset: str, up: bool, expected: set[Any]) -> None:
    with told.begin() as connection:
        found = trace(finder(connection), asset, up=up)
    assert steps(found) == expected
    assert not found.truncated
    assert found.entries() == tuple(sorted({index for *_, entries in expected for index in entries}))


def test_a_use_says_where_and_under_which_policy(told: Engine) -> None:
    with told.begin() as connection:
        found = trace(finder(connection), "acme/tuned@1", up=True)
    (used,) = (edge for edge in found.edges if edge.source == "acme/data@1")
    assert [(grant.index, grant.lease, grant.site, grant.jurisdiction) for grant in used.grants] == [
        (2, "l1", "ber1", "DE"),
        (3, "l2", "par1", "FR"),
    ]
    assert {grant.policy_digest for grant in used.grants} == {"11" * 32}
    assert "amd-chip-id:" + "ab" * 64 in used.grants[0].hardware
    assert found.to_json()["edges"][1]["grants"][0]["entry"] == 2


def test_bounds_and_erasure_are_said(told: Engine, record: Build) -> None:
    with told.begin() as connection:
        cut = trace(finder(connection), "acme/merged@1", up=True, max_steps=2)
        assert (cut.truncated, len(cut.edges)) == (True, 2)
        erase(connection, indexes=[5], actor=Actor(role="operator", name="dpo"), time=NOW)
        assert steps(trace(finder(connection), "acme/tuned@1", up=True)) == set()
        for wrong in ("a b", "acme/x@0", "acme/x@y"):
            with pytest.raises(QueryError):
                trace(finder(connection), wrong, up=True)
    many = [
        Entry(index, bytes(32), record(0, lease=f"l{index}", assets=["acme/x@1"], job="j").payload())
        for index in range(MAX_LEASES + 3)
    ]
    found = trace(lambda wanted: many if wanted.kind is Kind.LEASE_GRANTED else (), "acme/x@1", up=False)
    (edge,) = found.edges
    assert (len(edge.grants), edge.more_grants, len(edge.entries)) == (MAX_LEASES, 3, MAX_LEASES)
    gone = trace(lambda wanted: [Entry(7, bytes(32), None)], "acme/x@1", up=True)
    assert gone.erased == (7,)


def test_pictures(told: Engine) -> None:
    with told.begin() as connection:
        found = trace(finder(connection), "acme/merged@1", up=True)
        effects = trace(finder(connection), "acme/data@1", up=False)
    mermaid = to_mermaid(found)
    assert mermaid.startswith("flowchart LR\n")
    assert '(["job acme/tune"])' in mermaid
    assert mermaid.count("-->|") == len(found.edges)
    dot = to_dot(found)
    assert dot.count(" -> ") == len(found.edges)
    if program := shutil.which("dot"):
        subprocess.run([program, "-Tsvg"], input=dot.encode(), check=True, capture_output=True)
    tree = list(to_tree(found))
    assert tree[0] == "acme/merged@1"
    assert any("made by job acme/tune" in line for line in tree)
    assert any("lease l1  node n1  site ber1  jurisdiction DE  policy 111111111111…" in line for line in tree)
    assert any("used by job acme/serve" in line for line in to_tree(effects))


def test_names_cannot_break_out_of_a_picture(record: Build) -> None:
    # No record can hold such names; a graph built by another hand must still not become markup.
    evil = 'acme/x"];<script>@1'
    from audit.lineage import Edge, Step

    found = Lineage((evil,), True, (Edge(Step.DECLARED, evil, "acme/y@1", (1,)),), False)
    assert "<script>" not in to_mermaid(found)
    assert '"];' not in to_mermaid(found).replace('"]\n', "")
    assert '\\"];<script>' in to_dot(found)


@pytest.fixture
def database(database_path: Path, engine: Engine, make_log: Callable[..., Sequencer], record: Build) -> str:
    sequencer = make_log(engine)
    with engine.begin() as connection:
        append_many(connection, history(record))
    sequencer.run_once(NOW)
    engine.dispose()
    return f"sqlite:///{database_path}"


def test_the_command(
    database: str, tmp_path: Path, signer: NoteSigner, capsys: pytest.CaptureFixture[str], record: Build
) -> None:
    def keystead(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in ("audit", *arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    proofs = tmp_path / "proofs"
    code, out, _ = keystead("lineage", "acme/merged", "--database", database, "--json", "--proofs", proofs)
    from_log = json.loads(out)
    assert (code, len(from_log["edges"])) == (0, 5)
    assert sorted(int(path.stem) for path in proofs.iterdir()) == [2, 3, 5, 7, 8]
    for path in proofs.iterdir():
        assert keystead("verify", path, "--key", signer.verifier)[0] == 0

    lines = tmp_path / "records.jsonl"
    lines.write_text(keystead("query", "--all", "--jsonl", "--database", database)[1])
    for direction in ("--up", "--down"):
        for form in ("tree", "mermaid", "dot", "json"):
            arguments = ("lineage", "acme/data", direction, "--format", form)
            assert keystead(*arguments, "--records", lines) == keystead(*arguments, "--database", database)
    assert "nothing came of it" in keystead("lineage", "acme/none", "--down", "--records", lines)[1]

    text = lines.read_text().splitlines()
    for wrong in (
        [*text, text[0]],
        [text[0].replace('"version":1', '"version":9')],
        ["{}"],
        ["[" * 100_000],
        ["x"],
        ['{"index":true}'],
    ):
        bad = tmp_path / "bad.jsonl"
        bad.write_text("\n".join(wrong) + "\n")
        code, _, err = keystead("lineage", "acme/data", "--records", bad)
        assert (code, "line" in err, "Traceback" in err) == (2, True, False), err
    for arguments in (
        ("acme/data", "--records", lines, "--database", database),
        ("acme/data", "--records", lines, "--proofs", proofs),
        ("acme/data", "--records", tmp_path / "none"),
        ("acme/data", "--up", "--down", "--records", lines),
        ("a b", "--records", lines),
    ):
        assert keystead("lineage", *arguments)[0] == 2
