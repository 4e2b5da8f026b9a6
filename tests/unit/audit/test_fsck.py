"""The parts of the full check that hold little memory: what they keep is what larger ones would have kept."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, delete, select, update

from audit.fsck.checkpoints import Checkpoints
from audit.fsck.counters import Counters
from audit.fsck.findings import MAX_PROBLEMS, Findings
from audit.fsck.indexes import IndexSet
from audit.fsck.trees import Trees
from audit.log import append_many
from audit.merkle import Frontier, leaf_hash
from audit.note import NoteSigner
from audit.problems import ProblemCode
from audit.records import Record
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ASSET_COUNTER, AUDIT_CHECKPOINT, AUDIT_ENTRY, AUDIT_ENTRY_ASSET, AUDIT_TILE
from audit.tiles import integrate

NOW = 1_800_000_000
Build = Callable[..., Record]
MakeLog = Callable[..., Sequencer]


def test_a_set_of_indexes_is_a_set() -> None:
    draw = random.Random(5)
    wanted = {draw.randrange(1 << draw.randrange(1, 40)) for _ in range(2000)}
    found = IndexSet()
    assert not found
    for index in [*wanted, *wanted]:
        found.add(index)
    assert list(found) == sorted(wanted)
    assert len(found) == len(wanted)
    assert found == wanted
    assert all(index in found for index in wanted)
    assert not any(index in found for index in range(2000) if index not in wanted)
    assert "1" not in found
    assert found & IndexSet([max(wanted), 1 << 41]) == {max(wanted)}


def test_the_first_problems_are_kept_and_all_are_counted() -> None:
    findings = Findings()
    order = list(range(5000))
    random.Random(6).shuffle(order)
    for index in order:
        findings.report(ProblemCode.PAYLOAD_ALTERED, index, "payload", expected="a", actual=b"\xff")
        findings.report(ProblemCode.COUNTER_ALTERED, index, "counter", expected=1, actual=2)
    findings.report(ProblemCode.STATE_ALTERED, None, "state", expected=1, actual=2)
    problems, more = findings.first()
    assert [problem.index for problem in problems] == [n // 2 for n in range(MAX_PROBLEMS)]
    assert problems[0].actual == "ff"
    assert more == 10_001 - MAX_PROBLEMS
    findings.report(ProblemCode.ENTRY_MOVED, 7, "entry", expected=1, actual=2)
    findings.count_one_more()
    problems, more = findings.first()  # counters follow from places, and are no news any more
    assert {problem.code for problem in problems} == {ProblemCode.PAYLOAD_ALTERED, ProblemCode.ENTRY_MOVED}
    assert len(problems) + more == 5003


def follow(engine: Engine, limit: int) -> list[tuple[int | None, str, str]]:
    """The counters' findings over a whole log when `limit` assets are remembered."""
    findings = Findings()
    entry, named = AUDIT_ENTRY.c, AUDIT_ENTRY_ASSET.c
    with engine.begin() as connection:
        counters = Counters(connection, findings, limit=limit)
        ids = connection.execute(select(entry.id, entry.leaf_index).order_by(entry.leaf_index)).all()
        for row in ids:
            rows = connection.execute(select(AUDIT_ENTRY_ASSET).where(named.entry_id == row.id)).all()
            counters.follow(row.leaf_index, {(item.asset, item.version): item.counter for item in rows}, gaps=False)
        counters.judge_totals(gaps=False)
    return [(problem.index, problem.expected, problem.actual) for problem in findings.first()[0]]


def test_forgotten_assets_are_counted_on(any_engine: Engine, make_log: MakeLog, record: Build) -> None:
    sequencer = make_log(any_engine)
    draw = random.Random(7)
    with any_engine.begin() as connection:
        drawn = [sorted({f"acme/a{draw.randrange(9)}@1" for _ in range(2)}) for _ in range(80)]
        append_many(connection, [record(number, assets=assets) for number, assets in enumerate(drawn)])
    sequencer.run_once(NOW)
    assert follow(any_engine, 1000) == follow(any_engine, 4) == follow(any_engine, 1) == []
    with any_engine.begin() as connection:
        named = AUDIT_ENTRY_ASSET.c
        last = connection.execute(
            select(named.counter).where(named.asset == "acme/a3").order_by(named.counter.desc()).limit(1)
        ).scalar_one()
        connection.execute(
            update(AUDIT_ENTRY_ASSET).where(named.asset == "acme/a3", named.counter == last).values(counter=900)
        )
        counter = AUDIT_ASSET_COUNTER.c
        connection.execute(delete(AUDIT_ASSET_COUNTER).where(counter.asset == "acme/a4"))
        connection.execute(AUDIT_ASSET_COUNTER.insert().values(asset="acme/none", counter=3))
    for limit in (1000, 4, 1):
        found = follow(any_engine, limit)
        assert [item[1:] for item in found if item[0] is not None] == [(str(last), "900")]
        assert len([item for item in found if item[0] is None]) == 3


@pytest.mark.parametrize("altered", [None, (1, 0), (1, 1), (2, 0), (0, 256)])
def test_tiles_of_three_levels_are_compared_while_the_tree_grows(
    engine: Engine, altered: tuple[int, int] | None
) -> None:
    hashes = [leaf_hash(number.to_bytes(4, "big")) for number in range(256 * 256 + 700)]
    with engine.begin() as connection:
        integrate(connection, size=0, leaf_hashes=hashes)
        if altered is not None:
            where = (AUDIT_TILE.c.level == altered[0], AUDIT_TILE.c.tile_index == altered[1])
            stored = bytes(connection.execute(select(AUDIT_TILE.c.hashes).where(*where)).scalar_one())
            damaged = bytes([stored[0] ^ 1]) + stored[1:]
            connection.execute(update(AUDIT_TILE).where(*where).values(hashes=damaged))
        findings = Findings()
        trees = Trees(connection, findings)
        for start in range(0, len(hashes), 2048):
            part = hashes[start : start + 2048]
            tiled = trees.read_tiles(start, start + len(part), len(hashes))
            of_tiles = [tiled[start + at] for at in range(len(part))]
            for at, ours in enumerate(part):
                if of_tiles[at] != ours:
                    trees.differs(start + at)
            trees.extend(part, of_tiles, [start + 1, start + len(part)])
        trees.judge_tiles(len(hashes), rows_proven=True)
    assert trees.root_of_rows == Frontier().extend(hashes).root()
    problems = [problem.field for problem in findings.first()[0]]
    paths = {(1, 0): "tile/1/000", (1, 1): "tile/1/001.p/2", (2, 0): "tile/2/000.p/1", (0, 256): "tile/0/256"}
    assert problems == ([] if altered is None else [paths[altered]])


def test_a_signed_root_is_found_wherever_it_stands(engine: Engine, make_log: MakeLog, signer: NoteSigner) -> None:
    make_log(engine, [3, 4])
    with engine.begin() as connection:
        # Another row's size: the note still says seven entries.
        size = AUDIT_CHECKPOINT.c.tree_size
        connection.execute(update(AUDIT_CHECKPOINT).where(size == 7).values(tree_size=2))
        findings = Findings()
        checkpoints = Checkpoints(connection, signer.verifier, findings)
        checkpoints.collect([])
        signed = checkpoints.between(-1, 2048)
    assert checkpoints.size == 7
    assert list(signed) == [0, 3, 7]
    assert [problem.code for problem in findings.first()[0]] == [ProblemCode.CHECKPOINT_ALTERED]
