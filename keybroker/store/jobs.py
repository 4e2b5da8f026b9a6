"""Jobs: what schedulers were granted, open until they end, and every grant that was issued for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection, bindparam, select, update

from keybroker.errors import AlreadyExistsError, NotFoundError
from keybroker.store.rows import find_one, insert_if_absent, values
from keybroker.store.schema import JOB, JOB_GRANT, JobState
from keystead.binding import sha256

_BY_GRANT: Final = select(JOB).where(JOB.c.grant_id == bindparam("grant_id"))
_BY_GRANT_LOCKED: Final = _BY_GRANT.with_for_update()
_ISSUED: Final = select(JOB_GRANT).where(JOB_GRANT.c.grant_id == bindparam("grant_id"))
_ISSUED_BY_DIGEST: Final = select(JOB_GRANT).where(
    JOB_GRANT.c.job == bindparam("job"), JOB_GRANT.c.digest == bindparam("digest")
)

Standing: TypeAlias = Literal["open", "preempted", "closed"]
"""Whether leases of a job may be acquired: yes, not until it is requeued, never again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job and its grant.

    Attributes:
        grant_id: the id of its first grant, by which the job is known ever after; later ones have ids of their own.
        tenant: who runs the job.
        job_uid: the scheduler's id of it, unique within the tenant.
        scheduler: who opened it.
        grant: the present grant's canonical bytes (`keystead.binding.JobGrant`).
        signature: Ed25519 signature over `grant`.
        signing_key_id: which key made it.
        state: whether it has ended; `standing` says whether leases may be acquired.
        not_before: when the grant begins (inclusive).
        not_after: when it ends (exclusive).
        node_ceiling: how many nodes may hold a lease at the same time.
        created_at: when it was granted.
        attempt: 1 for its first run; grants of former attempts are worth nothing.
        preempted_at: since when no lease is given until it is requeued; None where it runs.
        budgets: what it may use of each of its assets, canonical JSON.
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
    attempt: int = 1
    preempted_at: int | None = None
    budgets: str = "{}"

    @property
    def standing(self) -> Standing:
        """Whether leases of it may be acquired."""
        if self.state is not JobState.OPEN:
            return "closed"
        return "open" if self.preempted_at is None else "preempted"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedGrant:
    """A grant that was issued for a job, at its beginning or later.

    Attributes:
        grant_id: the grant's own id.
        job: `JobRow.grant_id` of the job.
        attempt: the attempt that it was issued for.
        digest: SHA-256 of its canonical bytes.
        not_after: when it ends (exclusive).
        issued_at: when it was issued.
    """

    grant_id: str
    job: str
    attempt: int
    digest: bytes
    not_after: int
    issued_at: int


def insert(connection: Connection, row: JobRow) -> None:
    """Open a job with its first grant.

    Raises:
        AlreadyExistsError: the tenant has a job of that id already, or the grant's id is taken.
    """
    if not insert_if_absent(connection, JOB, values(row)):
        raise AlreadyExistsError(
            "job",
            row.job_uid,
            remedy="a job is opened once; give each job an id of its own, and requeue it to run it again",
        )
    _issue(connection, row, grant_id=row.grant_id, now=row.created_at)


def _issue(connection: Connection, row: JobRow, *, grant_id: str, now: int) -> None:
    issued = IssuedGrant(
        grant_id=grant_id,
        job=row.grant_id,
        attempt=row.attempt,
        digest=sha256(row.grant),
        not_after=row.not_after,
        issued_at=now,
    )
    if not insert_if_absent(connection, JOB_GRANT, values(issued)):
        raise AlreadyExistsError("grant", grant_id)


def regrant(connection: Connection, row: JobRow, *, grant_id: str, now: int) -> JobRow:
    """Give a job another grant, `row`'s, whose own id is `grant_id`; returns the job as it is now.

    What the change starts from is the caller's to check, under the job's lock.

    Raises:
        AlreadyExistsError: the grant's id is taken.
    """
    names = ("grant", "signature", "signing_key_id", "not_before", "not_after", "attempt", "preempted_at")
    connection.execute(
        update(JOB).where(JOB.c.grant_id == row.grant_id).values({name: getattr(row, name) for name in names})
    )
    _issue(connection, row, grant_id=grant_id, now=now)
    return get(connection, row.grant_id)


def find_issued(connection: Connection, grant_id: str) -> IssuedGrant | None:
    """The grant of this id, of whichever job and attempt, or None."""
    return find_one(connection, _ISSUED, IssuedGrant, {"grant_id": grant_id})


def find_issued_by_digest(connection: Connection, *, job: str, digest: bytes) -> IssuedGrant | None:
    """A job's grant by the SHA-256 of its bytes, or None."""
    return find_one(connection, _ISSUED_BY_DIGEST, IssuedGrant, {"job": job, "digest": digest})


def get(connection: Connection, grant_id: str, *, lock: bool = False) -> JobRow:
    """Read a job by its first grant's id; with `lock`, no other transaction locks or changes it before this one ends.

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


def preempt(connection: Connection, grant_id: str, *, now: int) -> JobRow:
    """Let no lease of a job be granted or renewed until it is requeued; returns it as it is now.

    Raises:
        NotFoundError: there is none.
    """
    connection.execute(
        update(JOB).where(JOB.c.grant_id == grant_id, JOB.c.preempted_at.is_(None)).values(preempted_at=now)
    )
    return get(connection, grant_id)
