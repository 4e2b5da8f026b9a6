"""Bringing a database to the schema that this release needs, and refusing to run on another one.

Alembic (https://alembic.sqlalchemy.org) applies the revisions in `keybroker/store/migrations`, all in one transaction,
so that a database is never left between two of them. Operators need no configuration file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from keybroker.errors import StoreNotCurrentError
from keybroker.store.engine import read

_FOLDER: Final = Path(__file__).parent / "migrations"

_MIGRATION_LOCK: Final = 0x6B657973
"""PostgreSQL advisory lock ("keys" in ASCII): replicas that start together migrate one after the other."""


def migrate(engine: Engine) -> tuple[str, ...]:
    """Bring the database to this release's schema; returns the revisions that were applied, oldest first.

    Replicas may call it at the same time: one migrates, the others find nothing left to do.

    Raises:
        StoreNotCurrentError: the database is newer than this release.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        config = _config()
        script = ScriptDirectory.from_config(config)
        found, head = _revision(connection), _head(script)
        _check_known(script, found=found, head=head)
        if found == head:
            return ()
        config.attributes["connection"] = connection
        command.upgrade(config, head)
        pending = [revision.revision for revision in script.iterate_revisions(head, found or "base")]
        return tuple(reversed(pending))


def check_current(engine: Engine) -> str:
    """Check that the database has this release's schema; returns its revision.

    Raises:
        StoreNotCurrentError: it has none, an older or a newer one; the text says what to run.
    """
    script = ScriptDirectory.from_config(_config())
    head = _head(script)
    with read(engine) as connection:
        found = _revision(connection)
    if found == head:
        return head
    _check_known(script, found=found, head=head)
    remedy = (
        "run `keystead init`"
        if found is None
        else "stop older replicas, then run `keystead serve --migrate` once (or `keystead init`)"
    )
    raise StoreNotCurrentError(found=found, expected=head, remedy=remedy)


def _config() -> Config:
    config = Config()
    # The option's values are interpolated, so a percent sign in the path is doubled.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _head(script: ScriptDirectory) -> str:
    (head,) = script.get_heads()
    return head


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _check_known(script: ScriptDirectory, *, found: str | None, head: str) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    if found is not None and found not in known:
        raise StoreNotCurrentError(
            found=found, expected=head, remedy="this release does not know that revision; run the newer release"
        )
