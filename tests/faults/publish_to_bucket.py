"""Publishes a log in a bucket once it was told to begin, until it is killed or done.

A program, not a test: ``publish_to_bucket.py DATABASE BUCKET VKEY``, started by ``test_bucket_faults.py``. It
imports all that it needs, then waits for a line of input.
"""

from __future__ import annotations

import sys

from audit.database import snapshot
from audit.note import NoteVerifier
from audit.publish import publish
from keybroker.bucket_address import BucketAddress
from keybroker.bucket_store import BucketStore

store = BucketStore(BucketAddress.parse(sys.argv[2]))
verifier = NoteVerifier.parse(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
print(publish(lambda: snapshot(sys.argv[1]), store, verifier).checkpoint.size, flush=True)
