"""Publishes a log once it was told to begin, until it is killed or done.

A program, not a test: ``publish_until_killed.py DATABASE FOLDER VKEY``, started by ``test_publish.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from audit.database import snapshot
from audit.note import NoteVerifier
from audit.publish import publish
from audit.stores import FileStore

print("ready", flush=True)
publish(lambda: snapshot(sys.argv[1]), FileStore(Path(sys.argv[2])), NoteVerifier.parse(sys.argv[3]))
