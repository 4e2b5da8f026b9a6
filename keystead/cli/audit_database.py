"""The log that ``--database`` names: by its address, or by a broker's configuration, which knows its keys too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from sqlalchemy import Connection

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL|CONFIG",
        help="The log's database: sqlite:///PATH or postgresql://USER@HOST/NAME. Its records are sealed: give the "
        "broker's configuration file instead, where you may read its keys, and they are opened.",
    ),
]

SEALED_NOTE: Final = (
    "sealed, and not shown: ask the broker with --profile, or give its configuration file as --database where you may "
    "read its keys"
)


@contextmanager
def open_log(database: str) -> Iterator[Connection]:
    """A snapshot of the log that `database` names; with its keys where that is a broker's configuration.

    Raises:
        DatabaseError: the database cannot be read, or holds no log.
        ConfigError: neither an address nor a configuration.
        KeyManagementError: the root key cannot be read.
    """
    from audit.database import snapshot

    if "://" in database:
        with snapshot(database) as connection:
            yield connection
        return
    from keybroker.broker import load_log_keyring
    from keybroker.config import BrokerConfig

    config = BrokerConfig.load(Path(database))
    with snapshot(config.database_url, load_log_keyring(config)) as connection:
        yield connection
