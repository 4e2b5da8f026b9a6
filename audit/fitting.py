"""Which entries a filter describes, asked so that no question makes the database look through the whole log at once.

A question is read by one of its conditions, its *lead*, in the order of the log, and what is found is held against the
others. Most conditions have an index in which the entries of one value stand in that order; an asset's entries have
numbers of their own; of a span of time it is found out first where in the log it lies (`audit.times`); leases alive at
an instant are found by how long any lease lasts (`audit.alive`). The lead is chosen by how close together a condition's
entries lie where reading begins: SQLite plans without knowing how often a value occurs. Where much fits the lead and
little the rest, the log is read in pieces, so that whoever asks can stop between them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Select, bindparam, exists, func, literal_column, select

from audit.alive import alive
from audit.filter import Filter
from audit.payload import KEY_OF_ENTRY, KEYED_ENTRY
from audit.records import Result
from audit.tables import AUDIT_ENTRY, AUDIT_ENTRY_ASSET, AUDIT_ENTRY_HARDWARE, AUDIT_ENTRY_REASON, AUDIT_KEY
from audit.times import Run, runs_in

_PROBE: Final = 500
"""A condition is rare where fewer entries than so are left of it."""

_MANY: Final = 100_000
"""A device with more entries than so is no longer looked up by itself."""

_FIRST_PIECE: Final = 1_000
_LAST_PIECE: Final = 64_000
_GROWTH: Final = 2
"""Entries of the lead that the first piece looks at, and any at most; and how many times as many as the last one did.
What is found at once costs little, and a long search few statements."""

_PIECE_SECONDS: Final = 0.15
"""What a piece should take: a log that is in memory is read twenty times faster than one that is not."""

_TOGETHER: Final = 20_000
"""What a tenant's reader asks for beside the tenant is read by where no more entries than so have it, all at once."""

_BY_RARITY: Final = (
    *("job", "hardware", "node", "user", "asset", "reason", "actor", "policy_digest", "kind", "result", "site"),
    *("jurisdiction", "tenant"),
)
"""What a question can be led by, that of probably few entries first: the first that is rare is taken."""

_WHOLE: Final = frozenset({"alive_at", "lease", "hardware"})
"""Leads whose entries are few, or in no order, and are looked at together."""

_ENTRY: Final = AUDIT_ENTRY.c
_NAMED: Final = AUDIT_ENTRY_ASSET.c
_HARDWARE: Final = AUDIT_ENTRY_HARDWARE.c
_REASON: Final = AUDIT_ENTRY_REASON.c


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the log, and what to ask of it.

    Attributes:
        statement: finds its entries that fit, in the order that they are read in.
        end: once it is read, everything up to this index is; None where everything is.
    """

    statement: Select[Any]
    end: int | None


def fitting(
    connection: Connection,
    wanted: Filter,
    *columns: ColumnElement[Any],
    after: int | None = None,
    backwards: bool = False,
    discreet: bool = False,
) -> Iterator[Piece]:
    """The `columns` of the sequenced entries that `wanted` describes, each piece built when it is asked for.

    Args:
        connection: can read the log's database; it is asked for what the statements are built from.
        wanted: the filter.
        columns: of entries and their keys (`audit.payload.KEYED_ENTRY`).
        after: only entries behind this index are wanted.
        backwards: they are read from the end.
        discreet: whoever reads may know of nothing but the filter's tenant: where pieces end says nothing of others.
    """
    runs = _behind(runs_in(connection, wanted.start_time, wanted.end_time), after)
    if not runs:
        return
    discreet = discreet and wanted.tenant is not None
    lead = _lead(connection, wanted, first=runs[0].first, backwards=backwards, discreet=discreet)
    line = _line(wanted, lead)
    found = select(*columns).where(_ENTRY.leaf_index.is_not(None), *_conditions(connection, wanted, lead))
    if lead == "asset":
        found = _by_asset(found, wanted)
    elif lead == "reason":
        found = _by_reason(found, wanted)
    else:
        found = found.select_from(KEYED_ENTRY)
    found = found.order_by(line.place.desc() if backwards else line.place)
    whole = lead in _WHOLE or not _asked(wanted) - {lead, "start_time", "end_time"} or (discreet and lead != "tenant")
    size, began = _FIRST_PIECE, time.monotonic()
    for number, run in enumerate(reversed(runs) if backwards else runs, 1):
        low, high = _bounds(connection, line, run)
        while True:
            cut = None if whole else _far(connection, line, (low, high), count=size - 1, backwards=backwards)
            part = (low, high) if cut is None else (cut.place, high) if backwards else (low, cut.place)
            indexes = part if line.asset is None else (run.first or None, run.last)
            equal = _equal_to(connection, wanted, lead, indexes)
            statement = found.where(*_within(line.place, *part), *equal)
            if cut is None:
                yield Piece(statement, None if number == len(runs) else run.last)
                break
            yield Piece(statement, cut.leaf_index)
            low, high = (low, cut.place - 1) if backwards else (cut.place + 1, high)
            now = time.monotonic()
            size, began = _next_size(size, now - began), now


def _next_size(size: int, seconds: float) -> int:
    """How many entries the next piece looks at, when `size` took so long to find, read and hand out."""
    fitting_in = size * _PIECE_SECONDS / max(seconds, 1e-6)
    return int(max(_FIRST_PIECE, min(fitting_in, size * _GROWTH, _LAST_PIECE)))


def _asked(wanted: Filter) -> set[str]:
    return {name for name, value in asdict(wanted).items() if value is not None}


def _behind(runs: tuple[Run, ...], after: int | None) -> list[Run]:
    """What of `runs` lies behind the index `after`."""
    if after is None:
        return list(runs)
    return [Run(max(run.first, after + 1), run.last) for run in runs if run.last is None or run.last > after]


@dataclass(frozen=True, slots=True)
class _Line:
    """The entries of one condition in the order of the log.

    Attributes:
        place: has that order: the index, or an asset's own numbers.
        conditions: what makes an entry one of these.
        asset: whose numbers `place` holds; None where it holds indexes.
    """

    place: Column[Any]
    conditions: tuple[ColumnElement[bool], ...]
    asset: str | None = None


def _line(wanted: Filter, name: str) -> _Line:
    """The line of the condition that `wanted` has by this name, or of all entries."""
    if name == "asset":
        return _Line(_NAMED.counter, (_NAMED.asset == wanted.asset,), wanted.asset)
    if name == "reason":
        return _Line(_REASON.leaf_index, (_REASON.reason == wanted.reason,))
    conditions: list[ColumnElement[bool]] = []
    equal = _equal(wanted)
    if name in equal:
        column, value = equal[name]
        conditions.append(column == value)
    if name == "result" or (name == "policy_digest" and wanted.result is Result.DENIED):
        conditions.append(_result(Result.DENIED))
    return _Line(_ENTRY.leaf_index, tuple(conditions))


def _result(result: Result) -> ColumnElement[bool]:
    # Written into the statement, so that the database sees which questions its indexes of refusals answer.
    return _ENTRY.result == bindparam("result", result.value, literal_execute=True)


def _within(place: ColumnElement[Any], low: int | None, high: int | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if low is not None:
        conditions.append(place >= low)
    if high is not None:
        conditions.append(place <= high)
    return conditions


def _bounds(connection: Connection, line: _Line, run: Run) -> tuple[int | None, int | None]:
    """The first and the last place that entries of `run` can have in `line`; None where nothing bounds them."""
    if line.asset is None:
        return run.first or None, run.last
    low = _number_at(connection, line.asset, run.first - 1) + 1 if run.first else None
    return low, None if run.last is None else _number_at(connection, line.asset, run.last)


class _Place(NamedTuple):
    """Where an entry stands in a line, and in the log."""

    place: int
    leaf_index: int


def _far(
    connection: Connection,
    line: _Line,
    bounds: tuple[int | None, int | None],
    *,
    count: int,
    backwards: bool,
) -> _Place | None:
    """The entry `count` behind the first within `bounds`; None where there are no more than these."""
    found = select(line.place).where(line.place.is_not(None), *line.conditions, *_within(line.place, *bounds))
    found = found.order_by(line.place.desc() if backwards else line.place).limit(1).offset(count)
    if line.asset is None:
        place: int | None = connection.scalar(found)
        return None if place is None else _Place(place, place)
    # An entry that names several versions has several numbers, which are not to be parted.
    own = AUDIT_ENTRY_ASSET.alias("own").c
    far = found.with_only_columns(_NAMED.entry_id).scalar_subquery()
    number = func.min(own.counter) if backwards else func.max(own.counter)
    index = select(_ENTRY.leaf_index).where(_ENTRY.id == own.entry_id).scalar_subquery()
    of_entry = select(number, index).where(own.entry_id == far, own.asset == line.asset).group_by(own.entry_id)
    row = connection.execute(of_entry).one_or_none()
    return None if row is None else _Place(*row)


def _lead(connection: Connection, wanted: Filter, *, first: int, backwards: bool, discreet: bool) -> str:
    """The filter's name of the condition to read by; empty where entries are read as they stand.

    It is that whose `_PROBE`-th entry from where reading begins lies farthest. A `discreet` one is the tenant, but for
    what few entries have.
    """
    asked = _asked(wanted)
    if wanted.alive_at is not None:
        return "alive_at"
    if wanted.lease is not None:
        return "lease"
    names = [name for name in _BY_RARITY if name in asked and (name != "result" or wanted.result is Result.DENIED)]
    if len(names) <= 1:
        return "".join(names)
    lead, farthest = "", 0
    for name in names:
        if name == "hardware":  # its entries are in no order
            of_it = select(_HARDWARE.entry_id).where(_HARDWARE.hardware == wanted.hardware)
            if connection.scalar(of_it.limit(1).offset(_MANY)) is None:
                return name
            continue
        line = _line(wanted, name)
        bounds = (None, None) if backwards else _bounds(connection, line, Run(first, None))
        far = _far(connection, line, bounds, count=_TOGETHER if discreet else _PROBE, backwards=backwards)
        if far is None or (discreet and name == "tenant"):
            return name
        if discreet:
            continue
        if not lead or (far.leaf_index < farthest if backwards else far.leaf_index > farthest):
            lead, farthest = name, far.leaf_index
    return lead


def _by_asset(found: Select[Any], wanted: Filter) -> Select[Any]:
    found = found.join_from(AUDIT_ENTRY_ASSET, AUDIT_ENTRY, _NAMED.entry_id == _ENTRY.id)
    found = found.outerjoin(AUDIT_KEY, KEY_OF_ENTRY)
    found = found.where(_NAMED.asset == wanted.asset, _NAMED.counter.is_not(None))
    if wanted.version is not None:
        return found.where(_NAMED.version == wanted.version)
    # An entry may name two versions of the asset; it is found by the first, which has the lower number, too.
    twin = AUDIT_ENTRY_ASSET.alias("twin").c
    again = exists().where(twin.entry_id == _NAMED.entry_id, twin.asset == _NAMED.asset, twin.version < _NAMED.version)
    return found.where(~again)


def _by_reason(found: Select[Any], wanted: Filter) -> Select[Any]:
    found = found.join_from(AUDIT_ENTRY_REASON, AUDIT_ENTRY, _REASON.entry_id == _ENTRY.id)
    found = found.outerjoin(AUDIT_KEY, KEY_OF_ENTRY)
    return found.where(_REASON.leaf_index.is_not(None), _REASON.reason == wanted.reason)


def _conditions(connection: Connection, wanted: Filter, lead: str) -> list[ColumnElement[bool]]:
    """Everything that `wanted` asks for but equal columns, and a lead of another table."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.result is not None:
        conditions.append(_result(wanted.result))
    if wanted.start_time is not None:
        conditions.append(_ENTRY.time >= wanted.start_time)
    if wanted.end_time is not None:
        conditions.append(_ENTRY.time < wanted.end_time)
    if wanted.hardware is not None:
        of_hardware = _HARDWARE.hardware == wanted.hardware
        if lead == "hardware":
            conditions.append(_ENTRY.id.in_(select(_HARDWARE.entry_id).where(of_hardware)))
        else:
            conditions.append(exists().where(_HARDWARE.entry_id == _ENTRY.id, of_hardware))
    if wanted.reason is not None and lead != "reason":
        conditions.append(exists().where(_REASON.entry_id == _ENTRY.id, _REASON.reason == wanted.reason))
    if wanted.asset is not None and lead != "asset":
        naming = exists().where(_NAMED.entry_id == _ENTRY.id, _NAMED.asset == wanted.asset)
        conditions.append(naming if wanted.version is None else naming.where(_NAMED.version == wanted.version))
    if wanted.alive_at is not None:
        conditions += alive(connection, wanted.alive_at)
    return conditions


def _equal(wanted: Filter) -> Mapping[str, tuple[Column[Any], object]]:
    """The columns that must be equal to something, by the filter's names of them."""
    equal: dict[str, tuple[Column[Any], object]] = {
        "lease": (_ENTRY.lease, wanted.lease),
        "job": (_ENTRY.job, wanted.job),
        "node": (_ENTRY.node, wanted.node),
        "user": (_ENTRY.job_user, wanted.user),
        "actor": (_ENTRY.actor_name, wanted.actor),
        "policy_digest": (_ENTRY.policy_digest, wanted.policy_digest),
        "kind": (_ENTRY.kind, None if wanted.kind is None else wanted.kind.value),
        "site": (_ENTRY.site, wanted.site),
        "jurisdiction": (_ENTRY.jurisdiction, wanted.jurisdiction),
        "tenant": (_ENTRY.tenant, wanted.tenant),
    }
    return {name: pair for name, pair in equal.items() if pair[1] is not None}


def _equal_to(
    connection: Connection, wanted: Filter, lead: str, indexes: tuple[int | None, int | None]
) -> list[ColumnElement[bool]]:
    """Equal columns of entries within `indexes`, asked so that these are read by none but the `lead`."""
    equal = _equal(wanted)
    conditions: list[ColumnElement[bool]] = []
    for name, (column, value) in equal.items():
        if name == lead:
            conditions.append(column == value)
        elif connection.dialect.name == "sqlite":
            # A column with a sign is looked up in no index (The SQLite Query Optimizer Overview, section 2).
            conditions.append(literal_column(f"+{AUDIT_ENTRY.name}.{column.name}") == value)
        elif lead in _WHOLE:
            conditions.append(column == value)
        else:
            # PostgreSQL meets two conditions in their indexes alone, without the rows of either.
            other = AUDIT_ENTRY.alias(f"of_{name}").c
            same = (other.leaf_index == _ENTRY.leaf_index, other[column.name] == value)
            conditions.append(exists().where(*same, *_within(other.leaf_index, *indexes)))
    return conditions


def _number_at(connection: Connection, asset: str, index: int) -> int:
    """The highest number of an entry of `asset` up to the one at `index`; 0 where there is none."""
    own = select(_NAMED.counter).where(
        _NAMED.entry_id == select(_ENTRY.id).where(_ENTRY.leaf_index == index).scalar_subquery(), _NAMED.asset == asset
    )
    numbers: list[int] = [number for number in connection.scalars(own) if number is not None]
    if numbers:  # a page ended here
        return max(numbers)
    # That entry names something else, or was erased: numbers and places grow together.
    low, high = 0, int(connection.scalar(select(func.max(_NAMED.counter)).where(_NAMED.asset == asset)) or 0)
    while low < high:
        middle = (low + high + 1) // 2
        step = (
            select(_NAMED.counter, _ENTRY.leaf_index)
            .join_from(AUDIT_ENTRY_ASSET, AUDIT_ENTRY, _NAMED.entry_id == _ENTRY.id)
            .where(_NAMED.asset == asset, _NAMED.counter >= middle, _ENTRY.leaf_index.is_not(None))
            .order_by(_NAMED.counter)
            .limit(1)
        )
        found = connection.execute(step).one_or_none()
        if found is not None and found.leaf_index <= index:
            low = int(found.counter)
        else:
            high = middle - 1
    return low
