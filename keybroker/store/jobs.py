"""Jobs: the grants that schedulers were given, open until they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from keybroker.errors import AlreadyExistsError, NotFoundError
from keybroker.store.rows import find_one, insert_if_absent, values
from keybroker.store.schema import JOB, JobState

_BY_GRANT: Final = select(JOB).where(JOB.c.grant_id == bindparam("grant_id"))
_BY_GRANT_LOCKED: Final = _BY_GRANT.with_for_update()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job and its grant.

    Attributes:
        grant_id: the grant's id.
        tenant: who runs the job.
        job_uid: the scheduler's id of it, unique within the tenant.
        scheduler: who opened it.
        grant: the grant's canonical bytes (`keystead.binding.JobGrant`).
        signature: Ed25519 signature over `grant`.
        signing_key_id: which key made it.
        state: whether leases may be acquired.
        not_before: when the grant begins (inclusive).
        not_after: when it ends (exclusive).
        node_ceiling: how many nodes may hold a lease at the same time.
        created_at: when it was granted.
    """

    grant_id: str
    tenant: str
    job_uid: str
    scheduler: str
    grant: bytes
    signature: bytes
    signing_key_id: str
    state: JobState
    not_before: int
    not_after: int
    node_ceiling: int
    created_at: int


def insert(connection: Connection, row: JobRow) -> None:
    """Open a job.

    Raises:
        AlreadyExistsError: the tenant has a job of that id already, or the grant's id is taken.
    """
    if not insert_if_absent(connection, JOB, values(row)):
        raise AlreadyExistsError("job", row.job_uid, remedy="a job is opened once; give each run an id of its own")


def get(connection: Connection, grant_id: str, *, lock: bool = False) -> JobRow:
    """Read a job by its grant; with `lock`, no other transaction locks or changes it before this one ends.

    Whatever is counted per job (live nodes, budgets) is counted under this lock. SQLite has one writer at a time
    anyway; there, a transaction that writes locks everything.

    Raises:
        NotFoundError: there is none.
    """
    row = find_one(connection, _BY_GRANT_LOCKED if lock else _BY_GRANT, JobRow, {"grant_id": grant_id})
    if row is None:
        raise NotFoundError("job", grant_id)
    return row


def find_by_uid(connection: Connection, *, tenant: str, job_uid: str, lock: bool = False) -> JobRow | None:
    """A tenant's job by the scheduler's id of it, or None; `lock` as for `get`."""
    statement = select(JOB).where(JOB.c.tenant == tenant, JOB.c.job_uid == job_uid)
    return find_one(connection, statement.with_for_update() if lock else statement, JobRow)


def close(connection: Connection, grant_id: str) -> JobRow:
    """Close a job, once or again; returns it as it is now. Its leases are the caller's to end.

    Raises:
        NotFoundError: there is none.
    """
    connection.execute(update(JOB).where(JOB.c.grant_id == grant_id).values(state=JobState.CLOSED))
    return get(connection, grant_id)
