"""What was used of asset versions: seconds that keys were held, opens, and what attested nodes report.

Only what has a budget is counted. Counters change in the transaction that grants, renews or ends the lease, so that
they are exact whoever runs at the same time: what is over all jobs is read and raised under the asset's lock
(`keybroker.store.assets.find_with_versions`), what is one job's under the job's. Seconds are charged ahead, for all of
a lease's time, and what is left of them is given back when it ends early.

All instants are integer seconds since the Unix epoch. No counter leaves 0 to 2^53 - 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, case, or_, select, update

from keybroker.errors import InvalidRequestError, StateConflictError
from keybroker.store.rows import insert_all_if_absent, insert_if_absent, values
from keybroker.store.schema import BUDGET_USE, CLOCK_MARK, COUNTERS, LEASE, LEASE_METER, LEASE_USE, LeaseState
from keystead.binding import AssetRef

ALL_JOBS: Final = ""
"""The row of `BUDGET_USE` that counts over all jobs."""

REPORTED: Final = ("bytes_opened", "tokens_served", "bytes_served")
"""Counters that the attested node reports; the others the broker counts itself."""

MAX_COUNTER: Final = (1 << 53) - 1
"""Counters stop here: more would not be exact in JSON (RFC 8259, section 6)."""

_LATEST: Final = "latest"
_NOTHING: Final = dict.fromkeys(COUNTERS, 0)
_MARK: Final = select(CLOCK_MARK.c.at).where(CLOCK_MARK.c.name == _LATEST)
_METER: Final = select(LEASE_METER).where(LEASE_METER.c.lease_id == bindparam("lease_id"))
_METER_LOCKED: Final = _METER.with_for_update()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterRow:
    """The meter of one lease.

    Attributes:
        lease_id: the lease.
        seen_at: the latest instant that was seen while it was live.
        report_every: seconds between reports; None where none are asked for.
        reported_at: when the last report came, or the lease was first told to report.
        sequence: the last report's number; 0 before the first.
        report_digest: SHA-256 of what its node signed then.
    """

    lease_id: str
    seen_at: int
    report_every: int | None
    reported_at: int
    sequence: int
    report_digest: bytes | None


def spent(connection: Connection, refs: Iterable[AssetRef], *, job: str) -> dict[tuple[AssetRef, str], dict[str, int]]:
    """The counters of each of `refs`, over all jobs and for `job`, by version and job."""
    wanted = sorted({(ref.asset, ref.version) for ref in refs})
    found = {
        (AssetRef(asset, version), scope): dict(_NOTHING) for asset, version in wanted for scope in (ALL_JOBS, job)
    }
    if wanted:
        statement = select(BUDGET_USE).where(_is_one_of(wanted), BUDGET_USE.c.job.in_([ALL_JOBS, job]))
        for row in connection.execute(statement).mappings():
            found[AssetRef(row["asset"], row["version"]), row["job"]] = {name: row[name] for name in COUNTERS}
    return found


def _is_one_of(versions: Sequence[tuple[str, int]]) -> Any:
    return or_(*(and_(BUDGET_USE.c.asset == asset, BUDGET_USE.c.version == version) for asset, version in versions))


def _add(connection: Connection, changes: Mapping[tuple[str, int, str], Mapping[str, int]]) -> None:
    """Change counters; always in one order, so that two transactions cannot wait for each other."""
    keys = sorted(key for key, change in changes.items() if any(change.values()))
    insert_all_if_absent(
        connection,
        BUDGET_USE,
        [{"asset": asset, "version": version, "job": job, **_NOTHING} for asset, version, job in keys],
    )
    for key in keys:
        asset, version, job = key
        connection.execute(
            update(BUDGET_USE)
            .where(BUDGET_USE.c.asset == asset, BUDGET_USE.c.version == version, BUDGET_USE.c.job == job)
            .values({name: _bounded(BUDGET_USE.c[name] + change) for name, change in changes[key].items() if change})
        )


def _bounded(value: Any) -> Any:
    return case((value < 0, 0), (value > MAX_COUNTER, MAX_COUNTER), else_=value)


def meter(connection: Connection, lease_id: str, *, lock: bool = False) -> MeterRow | None:
    """A lease's meter; None where its use is not counted."""
    row = connection.execute(_METER_LOCKED if lock else _METER, {"lease_id": lease_id}).mappings().one_or_none()
    return None if row is None else MeterRow(**row)


def unused(connection: Connection, lease_id: str, *, expires_at: int, now: int) -> int:
    """Seconds that a lease was charged for and has not used, exact until this transaction ends; 0 where none are.

    What lies before an instant that was seen already is used, though the clock be set back.
    """
    # The meter first: whoever moves the mark back writes what was seen into the meter before (`mark`).
    known = meter(connection, lease_id, lock=True)
    return 0 if known is None else max(0, expires_at - max(now, known.seen_at, latest(connection)))


def charge(
    connection: Connection,
    *,
    lease_id: str,
    job: str,
    refs: Sequence[AssetRef],
    seconds: int,
    opens: int,
    report_every: int | None,
    now: int,
) -> None:
    """Charge a lease that is granted or renewed.

    Args:
        connection: in the transaction that grants or renews it.
        lease_id: the lease; its row is there.
        job: the job's key.
        refs: its asset versions.
        seconds: how many more than it was charged for; less than 0 where it now ends earlier.
        opens: how often it opened each asset: 1 for a new lease, else 0.
        report_every: seconds between the reports that it is asked for; None for none.
        now: integer seconds since the Unix epoch.
    """
    known = meter(connection, lease_id, lock=True)
    if known is None:
        row = MeterRow(
            lease_id=lease_id, seen_at=now, report_every=report_every, reported_at=now, sequence=0, report_digest=None
        )
        insert_if_absent(connection, LEASE_METER, values(row))
        zero = {name: 0 for name in COUNTERS if name != "opens"}
        insert_all_if_absent(
            connection,
            LEASE_USE,
            [{"lease_id": lease_id, "asset": ref.asset, "version": ref.version} | zero for ref in refs],
        )
    else:
        first_told = known.report_every is None and report_every is not None
        connection.execute(
            update(LEASE_METER)
            .where(LEASE_METER.c.lease_id == lease_id)
            .values(
                # From now on its time is counted by the clock as it stands now.
                seen_at=now,
                report_every=report_every,
                reported_at=now if first_told else known.reported_at,
            )
        )
    _charge_seconds(connection, {lease_id: seconds}, opens=opens, jobs={lease_id: job})


def _charge_seconds(
    connection: Connection, seconds: Mapping[str, int], *, jobs: Mapping[str, str], opens: int = 0
) -> None:
    """Charge each lease's assets for seconds, or give them back where they are negative, but never more than taken."""
    changes: defaultdict[tuple[str, int, str], dict[str, int]] = defaultdict(lambda: dict(_NOTHING))
    statement = select(LEASE_USE).where(LEASE_USE.c.lease_id.in_(seconds)).order_by(LEASE_USE.c.lease_id)
    for use in connection.execute(statement).mappings().all():
        change = max(seconds[use["lease_id"]], -use["key_seconds"])
        for job in (ALL_JOBS, jobs[use["lease_id"]]):
            total = changes[use["asset"], use["version"], job]
            total["key_seconds"] += change
            total["opens"] += opens
        connection.execute(
            update(LEASE_USE)
            .where(
                LEASE_USE.c.lease_id == use["lease_id"],
                LEASE_USE.c.asset == use["asset"],
                LEASE_USE.c.version == use["version"],
            )
            .values(key_seconds=LEASE_USE.c.key_seconds + change)
        )
    _add(connection, changes)


def give_back(connection: Connection, lease_ids: Sequence[str], *, now: int) -> None:
    """Give back what leases that end now have left of the seconds that they were charged for.

    What lies before an instant that was seen already is not given back: a clock that is set back refunds nothing.
    """
    statement = (
        select(LEASE.c.lease_id, LEASE.c.grant_id, LEASE.c.expires_at, LEASE_METER.c.seen_at)
        .join(LEASE_METER, LEASE_METER.c.lease_id == LEASE.c.lease_id)
        .where(LEASE.c.lease_id.in_(lease_ids))
    )
    found = connection.execute(statement).all()
    if not found:
        return
    until = max(now, latest(connection))
    left = {row.lease_id: max(0, row.expires_at - max(until, row.seen_at)) for row in found}
    ended = {lease_id: -seconds for lease_id, seconds in left.items() if seconds}
    if ended:
        _charge_seconds(connection, ended, jobs={row.lease_id: row.grant_id for row in found})


def report(
    connection: Connection,
    *,
    lease_id: str,
    job: str,
    sequence: int,
    digest: bytes,
    counters: Mapping[AssetRef, Mapping[str, int]],
    now: int,
) -> bool:
    """Take a lease's report of what it used so far; False where this very report was taken before.

    Raises:
        StateConflictError: the lease's use is not counted, or a later report, or another of this number, was taken.
        InvalidRequestError: a counter went down, or the report is not of the lease's assets.
    """
    known = meter(connection, lease_id, lock=True)
    if known is None:
        raise StateConflictError("lease", lease_id, state="not metered", expected="asked to report its use")
    if (sequence, digest) == (known.sequence, known.report_digest):
        return False
    if sequence <= known.sequence:
        raise StateConflictError(
            "usage report", f"{lease_id}/{sequence}", state=f"report {known.sequence} was taken", expected="a later one"
        )
    statement = select(LEASE_USE).where(LEASE_USE.c.lease_id == lease_id)
    before = {AssetRef(use["asset"], use["version"]): use for use in connection.execute(statement).mappings()}
    if before.keys() != counters.keys():
        raise InvalidRequestError("uses", f"not of exactly the lease's assets: {', '.join(map(str, sorted(before)))}")
    changes = {}
    for ref, now_used in sorted(counters.items()):
        change = {name: now_used[name] - before[ref][name] for name in REPORTED}
        falling = [name for name, value in change.items() if value < 0]
        if falling:
            raise InvalidRequestError(
                f"uses.{falling[0]}",
                f"{ref}: {now_used[falling[0]]} after {before[ref][falling[0]]}; what was used stays used",
            )
        for scope in (ALL_JOBS, job):
            changes[ref.asset, ref.version, scope] = change
        connection.execute(
            update(LEASE_USE)
            .where(LEASE_USE.c.lease_id == lease_id, LEASE_USE.c.asset == ref.asset, LEASE_USE.c.version == ref.version)
            .values({name: now_used[name] for name in REPORTED})
        )
    _add(connection, changes)
    connection.execute(
        update(LEASE_METER)
        .where(LEASE_METER.c.lease_id == lease_id)
        .values(sequence=sequence, report_digest=digest, reported_at=now, seen_at=max(now, known.seen_at))
    )
    return True


def latest(connection: Connection) -> int:
    """The latest instant that any replica has seen, to within a sweep; 0 before the first."""
    return connection.execute(_MARK).scalar_one_or_none() or 0


def mark(connection: Connection, *, now: int) -> None:
    """Remember `now`. Where the clock was set back, every live lease keeps the instant that had been seen before.

    So what lies behind that instant is never given back, and the mark itself may follow the clock: a clock that ran
    ahead once does not hold up what is granted later.
    """
    insert_if_absent(connection, CLOCK_MARK, {"name": _LATEST, "at": now})
    seen = connection.execute(_MARK.with_for_update()).scalar_one()
    if now < seen:
        live = select(LEASE.c.lease_id).where(LEASE.c.state == LeaseState.LIVE)
        connection.execute(
            update(LEASE_METER)
            .where(LEASE_METER.c.lease_id.in_(live), LEASE_METER.c.seen_at < seen)
            .values(seen_at=seen)
        )
    if now != seen:
        connection.execute(update(CLOCK_MARK).where(CLOCK_MARK.c.name == _LATEST).values(at=now))
