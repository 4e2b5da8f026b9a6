"""Tiles: paths as C2SP tlog-tiles writes them, and proofs read back from storage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, delete, func, select

from audit.envelope import Leaf
from audit.errors import EntryNotFoundError, LogCorruptError, MalformedError
from audit.merkle import Frontier, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY, AUDIT_TILE
from audit.tiles import TilePath, TileReader, decode_bundle, encode_bundle, integrate, read_tile, tiles_of

MakeLog = Callable[..., Sequencer]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (TilePath(0, 0), "tile/0/000"),
        (TilePath(0, 1234067), "tile/0/x001/x234/067"),
        (TilePath(63, 999, 1), "tile/63/999.p/1"),
        (TilePath(1, 1000, 255), "tile/1/x001/000.p/255"),
        (TilePath(None, 0, 17), "tile/entries/000.p/17"),
    ],
)
def test_paths(path: TilePath, text: str) -> None:
    assert str(path) == text
    assert TilePath.parse(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tile/0",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/data/000",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/../000",
        "tile/0/٠٠٠",
    ],
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(MalformedError):
        TilePath.parse(text)


def test_tiles_of_the_specification_s_example() -> None:
    """C2SP tlog-tiles, Partial Tiles: a tree of 70,000 leaves."""
    tiles = list(tiles_of(70_000))
    assert sum(tile.level == 0 and tile.width == 256 for tile in tiles) == 273
    assert [tile for tile in tiles if tile.width < 256] == [
        TilePath(0, 273, 112),
        TilePath(1, 1, 17),
        TilePath(2, 0, 1),
    ]
    assert TilePath(1, 0) in tiles
    assert list(tiles_of(256)) == [TilePath(0, 0), TilePath(1, 0, 1)]
    assert list(tiles_of(0)) == []


def test_proofs_from_tiles_hold_at_every_size_on_the_way(any_engine: Engine) -> None:
    hashes = [leaf_hash(number.to_bytes(4, "big")) for number in range(66_100)]
    sizes, frontier = [0], Frontier()
    roots = {0: frontier.root()}
    with any_engine.begin() as connection:
        for step in (1, 2, 250, 3, 256, 1, 511, 3000, 61_509, 7, 560):
            part = hashes[sizes[-1] : sizes[-1] + step]
            integrate(connection, size=sizes[-1], leaf_hashes=part)
            frontier = frontier.extend(part)
            sizes.append(sizes[-1] + step)
            roots[sizes[-1]] = frontier.root()
    assert sizes[-1] == 66_100
    with any_engine.begin() as connection:
        node = TileReader(connection)
        for size in sizes[1:]:
            for index in {0, size // 2, size - 1, min(1, size - 1), min(255, size - 1), min(256, size - 1)}:
                proof = inclusion_proof(index, size, node)
                verify_inclusion(leaf=hashes[index], index=index, size=size, proof=proof, root=roots[size])
            for old in sizes:
                if old <= size:
                    proof = consistency_proof(old, size, node)
                    verify_consistency(
                        old_size=old, new_size=size, old_root=roots[old], new_root=roots[size], proof=proof
                    )
        stored = connection.execute(select(AUDIT_TILE.c.level, AUDIT_TILE.c.tile_index, AUDIT_TILE.c.width)).all()
    assert sorted(tuple(row) for row in stored) == sorted(
        (tile.level, tile.index, tile.width) for tile in tiles_of(66_100)
    )


def test_published_tiles_and_bundles(engine: Engine, make_log: MakeLog) -> None:
    make_log(engine, [300])
    with engine.begin() as connection:
        rows = connection.execute(
            select(AUDIT_ENTRY.c.leaf_hash, AUDIT_ENTRY.c.digest).order_by(AUDIT_ENTRY.c.leaf_index)
        ).all()
        hashes = [bytes(row.leaf_hash) for row in rows]
        assert read_tile(connection, TilePath(0, 0)) == b"".join(hashes[:256])
        assert read_tile(connection, TilePath(0, 0, 5)) == b"".join(hashes[:5])  # for an older checkpoint
        assert read_tile(connection, TilePath(0, 1, 44)) == b"".join(hashes[256:])
        bundle = decode_bundle(read_tile(connection, TilePath(None, 1, 44)))
        assert [leaf_hash(entry) for entry in bundle] == hashes[256:]
        assert Leaf.parse(bundle[0]).digest == bytes(rows[256].digest)
        for missing in (TilePath(0, 1, 45), TilePath(0, 2), TilePath(2, 0), TilePath(None, 1, 45)):
            with pytest.raises(EntryNotFoundError, match="no such"):
                read_tile(connection, missing)


def test_damaged_tiles_give_no_proof(engine: Engine, make_log: MakeLog) -> None:
    make_log(engine, [300])
    with engine.begin() as connection:
        with pytest.raises(LogCorruptError, match="too narrow"):
            inclusion_proof(5, 301, TileReader(connection))
        connection.execute(delete(AUDIT_TILE).where(AUDIT_TILE.c.level == 0, AUDIT_TILE.c.tile_index == 0))
        assert connection.scalar(select(func.count()).select_from(AUDIT_TILE)) == 2
        with pytest.raises(LogCorruptError, match="not stored"):
            inclusion_proof(5, 300, TileReader(connection))


def test_what_is_no_bundle() -> None:
    good = encode_bundle([b"", b"entry"])
    assert good == b"\x00\x00\x00\x05entry"
    assert decode_bundle(good) == (b"", b"entry")
    for bad in (b"", b"\x00", good[:-1], good + b"\x00", b"\x00\x00" * 257):
        with pytest.raises(MalformedError):
            decode_bundle(bad)
    for entries in ([], [b""] * 257, [bytes(65_536)]):
        with pytest.raises(MalformedError):
            encode_bundle(entries)
