"""What attackers do behind the product's back in the demo: alter a sealed file, and a record of the log, on disk."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path


def flip_bit(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    with file.open("r+b") as target:
        middle = file.stat().st_size // 2
        target.seek(middle)
        (byte,) = target.read(1)
        target.seek(middle)
        target.write(bytes([byte ^ 1]))


def rewrite_record(database: Path, index: int, record: Mapping[str, object]) -> None:
    """Put a forged record in place of a sealed one, in the database's own file, as someone with access to it could.

    Who has access to the database has no keys to seal it with, so it is put there in the clear, as in a log without
    keys.

    Args:
        database: the file.
        index: which entry.
        record: what the record says; the forged one says that it happened in the US.
    """
    forged = json.dumps({**record, "jurisdiction": "US"}, separators=(",", ":"), sort_keys=True).encode("utf-8")
    connection = sqlite3.connect(database)
    try:
        connection.execute(
            "UPDATE audit_entry SET payload = ?, salt = ?, sealed = NULL, key_id = NULL WHERE leaf_index = ?",
            (forged, os.urandom(32), index),
        )
        connection.commit()
    finally:
        connection.close()
