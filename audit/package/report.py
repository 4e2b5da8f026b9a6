"""``report.html``: what an evidence package says, for people who read it in a browser.

One file, no script, nothing loaded from anywhere: its content security policy forbids all but its own style. Every
value is escaped. It is written from the package's other files alone, so that whoever verifies a package can write it
again and compare. Tables are bounded; what is left out of one is said under it, and stands in ``records.jsonl``.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Final

from audit.alive import LEASE_ENDS
from audit.checkpoint import Checkpoint
from audit.cosignature import WitnessKey
from audit.package.description import Description
from audit.package.gaps import MEANING, instant
from audit.package.lines import State
from audit.package.manifest import CHECKPOINT_KEPT, Scope
from audit.records import Kind, Record, Result

VERSION: Final = 1
"""Version of the layout; a change of anything below is another version."""

ROWS: Final = 2_000
"""Rows of one table."""

_COUNTED: Final = 20_000
"""Jobs, and nodes, that are counted one by one."""

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
h1{font-size:1.7rem;margin-bottom:.2rem}h2{font-size:1.25rem;margin-top:2.2rem;border-bottom:2px solid #1f4e79}
table{border-collapse:collapse;width:100%;font-size:.86rem;margin:.6rem 0}caption{text-align:left;color:#555}
th,td{border:1px solid #c9ced6;padding:.25rem .45rem;text-align:left;vertical-align:top;overflow-wrap:break-word}
th{background:#eef2f7;white-space:nowrap}.long{overflow-wrap:anywhere;min-width:9rem}code,pre{font-family:ui-monospace,monospace;font-size:.86em;overflow-wrap:anywhere}
pre{background:#f4f5f7;padding:.7rem;overflow-x:auto}.none{color:#1d6b36}.gap{background:#fff6e0}
.denied td{background:#fdf0ef}dt{font-weight:600}dd{margin:0 0 .5rem 1rem}
@media print{body{max-width:none;margin:0}h2{break-after:avoid}tr{break-inside:avoid}}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode("utf-8")).digest()).decode("ascii")
_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"

_LONG: Final = 32
"""Letters of a word that is broken where it does not fit: a digest, an identity."""

_USES: Final = (Kind.LEASE_GRANTED, Kind.LEASE_REFUSED, Kind.JOB_REFUSED)

Cell = str | int | None
Use = tuple[Cell, ...]


@dataclass(slots=True)
class _Used:
    times: int
    first: int
    last: int


@dataclass(slots=True)
class _Lease:
    row: tuple[Cell, ...]
    until: int | None
    renewed: int = 0
    end: str = "no end is recorded in this package"


@dataclass(slots=True)
class Report:
    """Gathers what the report shows; feed it every entry of the package, in order."""

    _kinds: Counter[str] = field(default_factory=Counter)
    _results: Counter[str] = field(default_factory=Counter)
    _jobs: set[str] = field(default_factory=set)
    _nodes: set[str] = field(default_factory=set)
    _unreadable: int = 0
    _first: int | None = None
    _last: int | None = None
    _uses: dict[Use, _Used] = field(default_factory=dict)
    _more_uses: int = 0
    _leases: dict[str, _Lease] = field(default_factory=dict)
    _more_leases: int = 0
    _denials: list[tuple[Cell, ...]] = field(default_factory=list)
    _denied: int = 0
    _timeline: list[tuple[bool, tuple[Cell, ...]]] = field(default_factory=list)
    _entries: int = 0

    def add(self, *, index: int, state: State, record: Record | None) -> None:
        """Look at one entry; `record` is None where it cannot be read."""
        self._entries += 1
        if record is None:
            self._unreadable += 1
            row: tuple[Cell, ...] = (index, None, f"({state.value})", None, None, None, None, None, None)
        else:
            self._count(index, record)
            row = (
                index,
                instant(record.time),
                record.kind.value,
                f"{record.actor.name} ({record.actor.role})",
                ", ".join(record.assets),
                record.job,
                record.node,
                _place(record),
                _result(record),
            )
        if len(self._timeline) < ROWS:
            self._timeline.append((record is not None and record.result is Result.DENIED, row))

    def _count(self, index: int, record: Record) -> None:
        self._kinds[record.kind.value] += 1
        self._results[record.result.value] += 1
        self._first = record.time if self._first is None else min(self._first, record.time)
        self._last = record.time if self._last is None else max(self._last, record.time)
        for value, seen in ((record.job, self._jobs), (record.node, self._nodes)):
            if value is not None and len(seen) < _COUNTED:
                seen.add(value)
        if record.kind in _USES:
            self._use(record)
        self._follow(index, record)
        if record.result is Result.DENIED:
            self._denied += 1
            if len(self._denials) < ROWS:
                what = (index, instant(record.time), record.kind.value, record.actor.name, ", ".join(record.assets))
                why = ", ".join(record.reasons)
                self._denials.append((*what, record.job, record.node, _place(record), record.policy_digest, why))

    def _use(self, record: Record) -> None:
        key = (
            record.tenant,
            _text(record, "user"),
            record.job,
            ", ".join(record.assets),
            record.node,
            _place(record),
            record.policy_digest,
            _result(record),
        )
        used = self._uses.get(key)
        if used is not None:
            used.times += 1
            used.first, used.last = min(used.first, record.time), max(used.last, record.time)
        elif len(self._uses) < ROWS:
            self._uses[key] = _Used(1, record.time, record.time)
        else:
            self._more_uses += 1

    def _follow(self, index: int, record: Record) -> None:
        if record.lease is None:
            return
        lease = self._leases.get(record.lease)
        until = record.detail.get("expires_at")
        until = until if isinstance(until, int) and not isinstance(until, bool) else None
        if record.kind is Kind.LEASE_GRANTED and lease is None:
            if len(self._leases) < ROWS:
                what = (record.job, record.node, _place(record), ", ".join(record.assets))
                self._leases[record.lease] = _Lease((*what, instant(record.time), index), until)
            else:
                self._more_leases += 1
        elif record.kind is Kind.LEASE_RENEWED and lease is not None:
            lease.renewed, lease.until = lease.renewed + 1, until
        elif record.kind in LEASE_ENDS and lease is not None:
            lease.end = f"{record.kind.value} {instant(record.time)} (entry {index})"

    def render(
        self, *, scope: Scope, checkpoint: Checkpoint, first: int, end: int, records: int, description: Description
    ) -> Iterator[bytes]:
        """The page, piece by piece."""
        page = self._page(
            scope=scope, checkpoint=checkpoint, first=first, end=end, records=records, description=description
        )
        return (part.encode("utf-8") for part in page)

    def _page(
        self, *, scope: Scope, checkpoint: Checkpoint, first: int, end: int, records: int, description: Description
    ) -> Iterator[str]:
        about = scope.asset or (f"tenant {scope.tenant}" if scope.tenant else "the whole log")
        yield (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
            f"<title>Evidence: {escape(about)}</title><style>{_STYLE}</style></head><body>\n"
            f"<h1>Evidence from the log {escape(checkpoint.origin)}</h1>\n"
        )
        yield _definitions(
            (
                ("About", about if scope.tenant is None or scope.asset is None else f"{about}, tenant {scope.tenant}"),
                ("From", "the beginning" if scope.start_time is None else instant(scope.start_time)),
                ("Until", "the checkpoint" if scope.end_time is None else f"{instant(scope.end_time)} (not included)"),
                ("Span of the log", f"entries {first} to {end - 1}" if end > first else "no entry"),
                ("Entries here", f"{records}, of which {self._unreadable} cannot be read"),
                ("Checkpoint", f"{checkpoint.size} entries, root {checkpoint.root.hex()}"),
                ("Signed", f"{instant(description.signed_at)}, by the log's own clock"),
            )
        )
        yield self._summary()
        yield from _gaps(description)
        yield from self._used()
        yield from self._leases_table()
        yield "<h2>What was refused, and why</h2>\n"
        named = ("entry", "when (UTC)", "what", "who", "assets", "job", "node", "place", "policy", "reasons")
        yield from _table(named, self._denials, more=self._denied - len(self._denials), empty="Nothing was refused.")
        yield "<h2>Everything, in the order of the log</h2>\n"
        names = ("entry", "when (UTC)", "what", "who", "assets", "job", "node", "place", "result")
        rows = [row for _, row in self._timeline]
        marks = ["denied" if denied else "" for denied, _ in self._timeline]
        yield from _table(names, rows, more=self._entries - len(rows), empty="No entry.", marks=marks)
        yield from _witnesses(description)
        yield _how(scope, checkpoint, first, end, description)
        yield "</body></html>\n"

    def _summary(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self._kinds.items()))
        span = "—" if self._first is None or self._last is None else f"{instant(self._first)} to {instant(self._last)}"
        released = self._kinds[Kind.LEASE_GRANTED.value]
        return "<h2>In short</h2>\n" + _definitions(
            (
                ("Releases of keys", str(released)),
                ("Refusals", str(self._results[Result.DENIED.value])),
                ("Jobs, nodes", f"{_many(self._jobs)}, {_many(self._nodes)}"),
                ("Records dated", span),
                ("By kind", kinds or "—"),
            )
        )

    def _used(self) -> Iterator[str]:
        yield "<h2>Who used what, where, under which policy, and with what result</h2>\n"
        names = ("tenant", "user", "job", "assets", "node", "place", "policy", "result", "times", "first", "last")
        rows = [(*key, used.times, instant(used.first), instant(used.last)) for key, used in self._uses.items()]
        yield from _table(names, rows, more=self._more_uses, empty="No use is on record here.")

    def _leases_table(self) -> Iterator[str]:
        yield "<h2>Leases</h2>\n"
        names = ("lease", "job", "node", "place", "assets", "granted", "entry", "renewed", "until", "how it ended")
        rows = [
            (name, *lease.row, lease.renewed, None if lease.until is None else instant(lease.until), lease.end)
            for name, lease in self._leases.items()
        ]
        yield from _table(names, rows, more=self._more_leases, empty="No lease was granted.")


def _many(seen: set[str]) -> str:
    return f"{len(seen)} or more" if len(seen) >= _COUNTED else str(len(seen))


def _place(record: Record) -> str:
    return " / ".join(part for part in (record.site, record.jurisdiction) if part)


def _result(record: Record) -> str:
    return f"{record.result.value}: {', '.join(record.reasons)}" if record.reasons else record.result.value


def _text(record: Record, name: str) -> str | None:
    value = record.detail.get(name)
    return value if isinstance(value, str) else None


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>\n" for name, value in pairs) + "</dl>\n"


def _table(
    names: tuple[str, ...],
    rows: Iterable[tuple[Cell, ...]],
    *,
    empty: str,
    more: int = 0,
    marks: list[str] | None = None,
) -> Iterator[str]:
    shown = list(rows)
    if not shown:
        yield f'<p class="none">{escape(empty)}</p>\n'
        return
    yield "<table><thead><tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr></thead><tbody>\n"
    for number, row in enumerate(shown):
        mark = f' class="{marks[number]}"' if marks is not None and marks[number] else ""
        yield f"<tr{mark}>{''.join(_cell(value) for value in row)}</tr>\n"
    yield "</tbody></table>\n"
    if more:
        yield f'<p class="gap">{more} more are not in this table; <code>records.jsonl</code> has them.</p>\n'


def _cell(value: Cell) -> str:
    text = "" if value is None else str(value)
    # What is broken anywhere would else let its column become as narrow as a letter, and the others' with it.
    long = ' class="long"' if any(len(word) > _LONG for word in text.split()) else ""
    return f"<td{long}>{escape(text)}</td>"


def _gaps(description: Description) -> Iterator[str]:
    yield "<h2>Gaps: what this package does not show</h2>\n"
    if not description.gaps:
        yield '<p class="none">None is known.</p>\n'
        return
    yield "<table><thead><tr><th>gap</th><th>how many</th><th>what it means</th><th>which</th></tr></thead><tbody>\n"
    for gap in description.gaps:
        shown = gap.items[:100]
        which = "<br>".join(escape(_item(item.number, item.note)) for item in shown)
        if gap.count > len(shown):
            which += f"<br>and {gap.count - len(shown)} more"
        yield (
            f'<tr class="gap"><td><code>{gap.code.value}</code></td><td>{gap.count}</td>'
            f"<td>{escape(MEANING[gap.code])}</td><td>{which}</td></tr>\n"
        )
    yield "</tbody></table>\n"


def _item(number: int | None, note: str) -> str:
    return note if number is None else f"{number}: {note}" if note else str(number)


def _witnesses(description: Description) -> Iterator[str]:
    yield "<h2>Witnesses</h2>\n"
    rows = []
    for watcher in description.witnesses:
        key = WitnessKey.parse(watcher.vkey)
        when = "did not cosign" if watcher.cosigned_at is None else instant(watcher.cosigned_at)
        rows.append((key.name, when, watcher.vkey))
    names = ("witness", "cosigned this checkpoint", "verifier key, as the log names it")
    yield from _table(names, rows, empty="The log names no witness.")
    if rows:
        yield f"<p>The log shows a checkpoint once {description.quorum} of them cosigned it.</p>\n"


def _how(scope: Scope, checkpoint: Checkpoint, first: int, end: int, description: Description) -> str:
    if scope.whole:
        complete = f"Every entry from {first} to {end - 1} is here: none can be left out without it being seen."
    elif scope.numbered:
        complete = (
            "The log numbers this asset's entries one by one, and the numbers here are without gaps but for those "
            "listed above. The numbers themselves are the operator's word, signed with this package."
        )
    else:
        complete = "That no record of what was asked for is left out is the operator's word, signed with this package."
    older = "".join(
        f"<li>The log continues the checkpoint <code>{escape(name)}</code>"
        + (" that you kept" if name == CHECKPOINT_KEPT else ", from before the span")
        + ": nothing that it covered was changed since.</li>\n"
        for name in sorted(description.consistency_proofs)
    )
    return (
        "<h2>How to verify this without Keystead and without its operator</h2>\n"
        f"<p>You need the verifier key of the log {escape(checkpoint.origin)}, from somebody other than whoever gave "
        "you this package. <code>VERIFY.md</code> says step by step how; in short, in the unpacked folder:</p>\n"
        "<pre>python3 verify.py 'NAME+KEYID+BASE64'\ngo run -mod=readonly verify.go 'NAME+KEYID+BASE64'</pre>\n"
        "<p>What is proven then:</p>\n<ul>"
        "<li>Each record here stands at its place in the log that the key's owner signed, word for word.</li>\n"
        f"{older}<li>{escape(complete)}</li></ul>\n"
        "<p>What is not: that the machines told the broker the truth (attestation is about that), that times are right "
        "(they are the broker's clock), and, but for the witnesses above, that nobody was shown another log.</p>\n"
    )
