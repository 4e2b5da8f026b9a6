"""Read-only snapshots of a log's database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, func, select

from audit.database import open_read_only, snapshot
from audit.errors import DatabaseError
from audit.log import append
from audit.note import NoteSigner
from audit.records import Record
from audit.sequencer import Sequencer
from audit.tables import AUDIT_ENTRY
from audit.verify import verify_log

NOW = 1_800_000_000


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_a_snapshot_stands_still_and_cannot_be_written(
    any_engine: Engine, make_log: Callable[..., Sequencer], record: Callable[..., Record], signer: NoteSigner
) -> None:
    sequencer = make_log(any_engine, [3])
    count = select(func.count()).select_from(AUDIT_ENTRY)
    with snapshot(url_of(any_engine)) as connection:
        assert connection.scalar(count) == 3
        with any_engine.begin() as writer:
            append(writer, record(7))
        sequencer.run_once(NOW)
        assert connection.scalar(count) == 3
        assert verify_log(connection, signer.verifier).ok
    with pytest.raises(DatabaseError, match=r"read.?only"), snapshot(url_of(any_engine)) as connection:
        connection.execute(delete(AUDIT_ENTRY))


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(DatabaseError, match="no file"):
        open_read_only(f"sqlite:///{path}")
    assert not path.exists()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite://", "sqlite:///"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(DatabaseError, match="database"):
        open_read_only(url)


def test_a_file_that_holds_no_log(tmp_path: Path) -> None:
    for name, data in (("empty.db", b""), ("text.db", b"hello world, this is no database at all" * 10)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DatabaseError, match=name), snapshot(f"sqlite:///{tmp_path / name}"):
            pass


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with (
        pytest.raises(DatabaseError) as caught,
        snapshot("postgresql://user:hunter2@127.0.0.1:9/none"),
    ):
        pass
    assert "127.0.0.1:9" in str(caught.value)
    assert "hunter2" not in str(caught.value)
