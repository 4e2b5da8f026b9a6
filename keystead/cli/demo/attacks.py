"""What attackers do behind the product's back in the demo: alter a sealed file, and a record of the log, on disk."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path


def flip_bit(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    with file.open("r+b") as target:
        middle = file.stat().st_size // 2
        target.seek(middle)
        (byte,) = target.read(1)
        target.seek(middle)
        target.write(bytes([byte ^ 1]))


def rewrite_record(database: Path, index: int) -> None:
    """Rewrite the jurisdiction in one record, in the database's own file, as someone with access to it could."""
    connection = sqlite3.connect(database)
    try:
        (payload,) = connection.execute("SELECT payload FROM audit_entry WHERE leaf_index = ?", (index,)).fetchone()
        record = json.loads(payload)
        record["jurisdiction"] = "US"
        forged = json.dumps(record, separators=(",", ":"), sort_keys=True).encode("utf-8")
        connection.execute("UPDATE audit_entry SET payload = ? WHERE leaf_index = ?", (forged, index))
        connection.commit()
    finally:
        connection.close()
