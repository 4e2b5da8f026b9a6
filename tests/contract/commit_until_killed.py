"""A broker's writer for `test_crash_contract`: prints each key after its unit was answered, until it is killed.

Usage: commit_until_killed.py URL FIRST_KEY
"""

from __future__ import annotations

import itertools
import os
import sys
import threading

from sqlalchemy import Column, Connection, Integer, LargeBinary, MetaData, Table, insert

from keybroker.store.commit import GroupCommitter
from keybroker.store.engine import open_engine

ANSWERED = Table("answered", MetaData(), Column("key", Integer, primary_key=True), Column("filler", LargeBinary))
THREADS = 8


def main() -> None:
    engine = open_engine(sys.argv[1])
    ANSWERED.metadata.create_all(engine)
    writer = GroupCommitter(engine)
    keys = itertools.count(int(sys.argv[2]))

    def work() -> None:
        while True:
            key = next(keys)

            def unit(connection: Connection, key: int = key) -> int:
                connection.execute(insert(ANSWERED).values(key=key, filler=bytes(2000)))
                return key

            # One write call per line, so that a line is whole or absent.
            os.write(1, b"%d\n" % writer.submit(unit, 60))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
