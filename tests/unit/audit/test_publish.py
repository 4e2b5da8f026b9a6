"""Publishing tiles: what is there afterwards, in which order, after crashes, and what is refused."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, select, update

import audit
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.cosignature import Cosigner, WitnessPolicy
from audit.errors import LogCorruptError, MalformedError, PublishedError, UnwitnessedError
from audit.log import append_many
from audit.note import NoteSigner
from audit.problems import ProblemCode
from audit.publish import publish
from audit.records import Record
from audit.sequencer import Sequencer
from audit.stores import CHECKPOINT_PATH, FileStore
from audit.tables import AUDIT_CHECKPOINT, AUDIT_ENTRY, AUDIT_TILE
from audit.tiles import TilePath, decode_bundle, encode_bundle, read_tile, tiles_of
from audit.verify_tiles import verify_tiles

NOW = 1_800_000_000
PUBLISHER = Path(__file__).parent / "publish_until_killed.py"

MakeLog = Callable[..., Sequencer]
Build = Callable[..., Record]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "public")


@pytest.fixture
def log(engine: Engine, make_log: MakeLog, record: Build) -> Callable[[int], None]:
    """A log that grows by as many entries as it is called with."""
    sequencer = make_log(engine)

    def more(count: int) -> None:
        grow(engine, sequencer, record, count)

    return more


class Recorder(FileStore):
    """Notes what is put and when it is made durable."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.done: list[str] = []

    def put(self, path: str, data: bytes) -> None:
        super().put(path, data)
        self.done.append(path)

    def flush(self) -> int:
        self.done.append("flush")
        return super().flush()

    def put_checkpoint(self, note: bytes, *, before: bytes | None) -> bool:
        self.done.append(CHECKPOINT_PATH)
        return super().put_checkpoint(note, before=before)


def grow(engine: Engine, sequencer: Sequencer, record: Build, count: int) -> None:
    with engine.begin() as connection:
        append_many(connection, [record(number) for number in range(count)])
    sequencer.run_once(NOW)


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".staging" not in path.parts
    }


def expected(size: int) -> set[str]:
    tiles = {str(path) for path in tiles_of(size)}
    bundles = {str(TilePath(None, path.index, path.width)) for path in tiles_of(size) if path.level == 0}
    return tiles | bundles | {CHECKPOINT_PATH}


def test_everything_of_a_tree_is_published(any_engine: Engine, make_log: MakeLog, signer, store, tmp_path):
    make_log(any_engine, [300, 260])
    done = publish(any_engine.connect, store, signer.verifier)
    assert (done.checkpoint.size, done.before, done.written) == (560, None, 8)
    # The checkpoint of 300 entries was signed too; its partial tiles are full ones by now, but for level 1.
    assert files(tmp_path / "public") == expected(560) | {"tile/1/000.p/1"}
    with any_engine.connect() as connection:
        for path in tiles_of(560):
            assert store.get(str(path)) == read_tile(connection, path)
    assert verify_tiles(store, signer.verifier).problems == ()
    again = publish(any_engine.connect, store, signer.verifier)
    assert (again.before, again.written) == (560, 0)


def test_an_empty_log_is_published(engine, make_log, signer, store, tmp_path):
    make_log(engine)
    assert publish(engine.connect, store, signer.verifier).checkpoint.size == 0
    assert files(tmp_path / "public") == {CHECKPOINT_PATH}
    result = verify_tiles(store, signer.verifier)
    assert (result.ok, result.entries) == (True, 0)


def test_growing_changes_no_full_tile_and_keeps_what_strangers_need(engine, make_log, record, signer, tmp_path):
    sequencer, folder = make_log(engine), tmp_path / "public"
    before: dict[str, bytes] = {}
    size = 0
    for step in (1, 7, 247, 1, 1, 300, 255, 256):
        grow(engine, sequencer, record, step)
        size += step
        store = Recorder(folder)
        publish(engine.connect, store, signer.verifier)
        assert expected(size) <= files(folder)
        assert [item for item in store.done if item not in ("flush", CHECKPOINT_PATH)] == store.done[:-2]
        assert store.done[-2:] == ["flush", CHECKPOINT_PATH]
        for path, data in before.items():
            assert path == CHECKPOINT_PATH or ".p/" in path or (folder / path).read_bytes() == data
        before = {path: (folder / path).read_bytes() for path in files(folder)}
        assert verify_tiles(store, signer.verifier).ok
    # Partial tiles that a full one replaced do not pile up.
    assert not any(".p/" in path and (folder / path.partition(".p/")[0]).is_file() for path in files(folder))


def test_what_is_published_is_never_overwritten(engine, log, signer, store, tmp_path):
    log(300)
    publish(engine.connect, store, signer.verifier)
    log(300)
    forged = tmp_path / "public/tile/0/001"
    forged.write_bytes(bytes(8192))
    kept = store.get(CHECKPOINT_PATH)
    with pytest.raises(PublishedError, match=r"tile/0/001: another one is published"):
        publish(engine.connect, store, signer.verifier)
    assert store.get(CHECKPOINT_PATH) == kept
    assert forged.read_bytes() == bytes(8192)


def test_an_older_copy_of_the_database_is_refused(engine, make_log, signer, store):
    make_log(engine, [10, 5])
    publish(engine.connect, store, signer.verifier)
    with engine.begin() as connection:
        connection.execute(delete(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == 15))
    with pytest.raises(PublishedError, match="has 15 entries, the database 10"):
        publish(engine.connect, store, signer.verifier)


def test_a_history_rewritten_with_the_stolen_key_is_refused(engine, make_log, signer, store, tmp_path):
    make_log(engine, [10])
    publish(engine.connect, store, signer.verifier)
    forged = Checkpoint(signer.verifier.name, 5, bytes(32)).sign(signer)
    (tmp_path / "public" / CHECKPOINT_PATH).write_bytes(forged.to_bytes())
    with pytest.raises(PublishedError, match="history was rewritten"):
        publish(engine.connect, store, signer.verifier)


def test_another_logs_folder_is_refused(engine, make_log, signer, store, tmp_path):
    make_log(engine, [10])
    other = NoteSigner.generate("other.example/log")
    (tmp_path / "public").mkdir()
    note = Checkpoint("other.example/log", 0, Checkpoint.parse_text("a\n0\n" + "A" * 43 + "=\n").root).sign(other)
    (tmp_path / "public" / CHECKPOINT_PATH).write_bytes(note.to_bytes())
    with pytest.raises(PublishedError, match="not one that this log's key signed"):
        publish(engine.connect, store, signer.verifier)


@pytest.mark.parametrize("what", ["entry", "tile", "checkpoint"])
def test_damage_is_not_published(engine, make_log, signer, store, what):
    make_log(engine, [300])
    with engine.begin() as connection:
        if what == "entry":
            connection.execute(update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.leaf_index == 258).values(digest=bytes(32)))
        elif what == "tile":
            connection.execute(
                update(AUDIT_TILE)
                .where(AUDIT_TILE.c.level == 0, AUDIT_TILE.c.tile_index == 1)
                .values(hashes=bytes(44 * 32))
            )
        else:
            note = connection.scalars(select(AUDIT_CHECKPOINT.c.note).order_by(AUDIT_CHECKPOINT.c.tree_size.desc()))
            connection.execute(update(AUDIT_CHECKPOINT).values(note=note.first().replace("300", "299")))
    with pytest.raises(LogCorruptError, match="entry 258" if what == "entry" else "log: "):
        publish(engine.connect, store, signer.verifier)
    assert store.get(CHECKPOINT_PATH) is None


def test_without_a_quorum_the_witnessed_checkpoint_stays(engine, make_log, record, signer, store):
    sequencer = make_log(engine, [3])
    witness = Cosigner.generate("witness.example/w1")
    policy = WitnessPolicy((witness.key,), 1)
    with pytest.raises(UnwitnessedError):
        publish(engine.connect, store, signer.verifier, witnesses=policy)
    with engine.begin() as connection:
        note = connection.scalars(select(AUDIT_CHECKPOINT.c.note).where(AUDIT_CHECKPOINT.c.tree_size == 3)).one()
        line = witness.cosign(note.partition("\n\n")[0] + "\n", NOW)
        connection.execute(
            update(AUDIT_CHECKPOINT).where(AUDIT_CHECKPOINT.c.tree_size == 3).values(note=note + str(line))
        )
    grow(engine, sequencer, record, 2)
    assert publish(engine.connect, store, signer.verifier, witnesses=policy).checkpoint.size == 3
    assert publish(engine.connect, store, signer.verifier).checkpoint.size == 5
    result = verify_tiles(store, signer.verifier, witnesses=policy)
    assert [problem.code for problem in result.problems] == [ProblemCode.CHECKPOINT_UNWITNESSED]


def test_nothing_but_objects_of_a_log_is_read_or_written(store):
    for path in ("../x", "tile/0/../../../x", "/etc/passwd", "tile/0/000.p/256", ".staging/lock", ""):
        with pytest.raises(MalformedError):
            store.get(path)
        with pytest.raises(MalformedError):
            store.put(path, b"")


def test_a_full_disk_leaves_the_older_checkpoint_in_force(engine, log, signer, store, tmp_path):
    log(200)
    publish(engine.connect, store, signer.verifier)
    log(100)
    # A limit on file sizes makes a write fail in the middle, as a full disk does.
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from audit.database import snapshot\n"
        "from audit.errors import PublishedError\n"
        "from audit.note import NoteVerifier\n"
        "from audit.publish import publish\n"
        "from audit.stores import FileStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        "    publish(lambda: snapshot(sys.argv[1]), FileStore(Path(sys.argv[2])), NoteVerifier.parse(sys.argv[3]))\n"
        "except PublishedError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(engine.url), str(tmp_path / "public"), str(signer.verifier)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(audit.__file__).parents[1],
    )
    assert "File too large" in done.stdout
    assert open_checkpoint(store.get(CHECKPOINT_PATH), signer.verifier).size == 200
    assert verify_tiles(store, signer.verifier).ok
    assert publish(engine.connect, store, signer.verifier).checkpoint.size == 300
    assert verify_tiles(store, signer.verifier).ok
    assert [path.name for path in (tmp_path / "public/.staging").iterdir()] == ["lock"]


def test_a_publisher_killed_at_any_instant_leaves_a_whole_log(engine, log, signer, store, tmp_path):
    log(100)
    draw = random.Random(7)
    sizes = []
    for _ in range(5):
        log(400)
        process = subprocess.Popen(
            [sys.executable, str(PUBLISHER), str(engine.url), str(tmp_path / "public"), str(signer.verifier)],
            stdout=subprocess.PIPE,
            cwd=Path(audit.__file__).parents[1],
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(draw.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        result = verify_tiles(store, signer.verifier)
        codes = [problem.code for problem in result.problems]
        assert codes in ([], [ProblemCode.CHECKPOINT_MISSING])
        sizes.append(0 if result.checkpoint is None else result.checkpoint.size)
    assert sizes == sorted(sizes)
    assert publish(engine.connect, store, signer.verifier).checkpoint.size == 2100
    assert verify_tiles(store, signer.verifier).ok


def test_two_publishers_and_two_sequencers_at_once(any_engine, make_log, record, signer, tmp_path):
    make_log(any_engine)
    folder, errors = tmp_path / "public", []

    def work() -> None:
        store = FileStore(folder)
        sequencer = Sequencer(any_engine, signer, signer.verifier.name)
        try:
            for number in range(6):
                with any_engine.begin() as connection:
                    append_many(connection, [record(number) for _ in range(29)])
                sequencer.run_once(NOW - 1000 * number)  # the clock jumps, too
                publish(any_engine.connect, store, signer.verifier)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    result = verify_tiles(FileStore(folder), signer.verifier)
    assert (result.ok, result.entries) == (True, 348)


def test_a_second_publisher_does_not_wait_for_ever(engine, log, signer, tmp_path, monkeypatch):
    log(1)
    store = FileStore(tmp_path / "public")
    monkeypatch.setattr("audit.stores.LOCK_SECONDS", 0.1)
    with store.exclusive(), pytest.raises(PublishedError, match="another publisher"):
        publish(engine.connect, FileStore(tmp_path / "public"), signer.verifier)


# The check of a published log.


@pytest.fixture
def published(engine: Engine, make_log: MakeLog, signer: NoteSigner, store: FileStore, tmp_path: Path) -> Path:
    make_log(engine, [256, 400, 44])
    publish(engine.connect, store, signer.verifier)
    return tmp_path / "public"


def codes(folder: Path, signer: NoteSigner, **options) -> list[tuple[str, int | None]]:
    result = verify_tiles(FileStore(folder), signer.verifier, **options)
    return [(problem.code.value, problem.index) for problem in result.problems]


def test_a_replaced_leaf_is_found_by_index(published, signer):
    path = published / "tile/entries/001"
    entries = list(decode_bundle(path.read_bytes()))
    entries[7], entries[9] = entries[9], entries[7]
    path.write_bytes(encode_bundle(entries))
    assert sorted(codes(published, signer)) == [
        ("ENTRY_REPLACED", 263),
        ("ENTRY_REPLACED", 265),
        ("ROOT_MISMATCH", 263),
        ("TILE_ALTERED", 256),  # of level 1, as rebuilt from the leaves
    ]


def test_an_altered_tile_is_told_from_an_altered_leaf(published, signer):
    path = published / "tile/0/001"
    data = bytearray(path.read_bytes())
    data[32 * 5] ^= 1
    path.write_bytes(data)
    assert codes(published, signer) == [("TILE_ALTERED", 261)]


def test_an_altered_higher_tile_is_found(published, signer):
    path = published / "tile/1/000.p/2"
    data = bytearray(path.read_bytes())
    data[32] ^= 1
    path.write_bytes(data)
    assert codes(published, signer) == [("TILE_ALTERED", 256)]


@pytest.mark.parametrize(
    ("path", "first"), [("tile/entries/001", 256), ("tile/0/000", 0), ("tile/1/000.p/2", 0), ("tile/0/002.p/188", 512)]
)
def test_a_missing_object_is_named(published, signer, path, first):
    (published / path).unlink()
    found = codes(published, signer)
    assert ("TILE_MISSING", first) in found
    assert min(index for _, index in found if index is not None) == first


def test_leaf_and_tile_replaced_together_do_not_lead_to_the_root(published, signer):
    leaf = decode_bundle((published / "tile/entries/000").read_bytes())[0]
    bundle = list(decode_bundle((published / "tile/entries/002.p/188").read_bytes()))
    tile = bytearray((published / "tile/0/002.p/188").read_bytes())
    bundle[3] = leaf
    tile[96:128] = (published / "tile/0/000").read_bytes()[:32]
    (published / "tile/entries/002.p/188").write_bytes(encode_bundle(bundle))
    (published / "tile/0/002.p/188").write_bytes(tile)
    assert codes(published, signer) == [("ROOT_MISMATCH", 0)]


def test_a_known_checkpoint_must_be_continued(engine, published, signer):
    with engine.connect() as connection:
        notes = dict(connection.execute(select(AUDIT_CHECKPOINT.c.tree_size, AUDIT_CHECKPOINT.c.note)).all())
    good = [notes[size].encode() for size in (0, 256, 656, 700)]
    assert codes(published, signer, known=good) == []
    split = Checkpoint(signer.verifier.name, 300, bytes(32)).sign(signer).to_bytes()
    assert codes(published, signer, known=[split]) == [("CONSISTENCY_UNPROVEN", None)]
    longer = Checkpoint(signer.verifier.name, 701, bytes(32)).sign(signer).to_bytes()
    assert codes(published, signer, known=[longer]) == [("LOG_SHORTENED", 700)]


def test_a_checkpoint_of_another_key_is_refused(published):
    assert [code for code, _ in codes(published, NoteSigner.generate("log.example/keystead"))] == ["CHECKPOINT_ALTERED"]


def test_leaves_that_were_proven_are_looked_up(published, signer):
    leaf = decode_bundle((published / "tile/entries/001").read_bytes())[4]
    assert codes(published, signer, leaves={260: leaf}) == []
    assert codes(published, signer, leaves={261: leaf}) == [("ENTRY_REPLACED", 261)]
    assert codes(published, signer, leaves={700: leaf}) == [("ENTRY_MISSING", 700)]


def test_the_full_tile_takes_the_place_of_a_partial_one(engine, make_log, record, signer, tmp_path):
    sequencer, folder = make_log(engine, [200]), tmp_path / "public"
    publish(engine.connect, FileStore(folder), signer.verifier)
    old = (folder / CHECKPOINT_PATH).read_bytes()
    grow(engine, sequencer, record, 100)
    publish(engine.connect, FileStore(folder), signer.verifier)
    (folder / CHECKPOINT_PATH).write_bytes(old)  # as a cache shows it a moment longer
    result = verify_tiles(FileStore(folder), signer.verifier)
    assert (result.ok, result.entries) == (True, 200)
