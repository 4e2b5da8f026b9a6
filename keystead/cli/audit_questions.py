"""Questions that auditors ask again and again, each as a command, and ``keystead audit tail``.

What they answer can be asked of ``keystead audit query`` too; each command's help says how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from audit.query import MAX_PAGE, Entry, Filter, parse_asset
from audit.records import Kind, Record, Result
from keystead.cli import output
from keystead.cli.audit import DatabaseOption, app, every_entry, open_source
from keystead.cli.audit_output import COLUMNS, LinesOption, entry_json, print_line, print_rows, row, show_entries
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.instants import parse_instant
from keystead.cli.output import Json, JsonOption
from keystead.cli.profile import BrokerOptions, with_broker_options

__all__ = ["app"]

AssetArgument = Annotated[str, typer.Argument(metavar="ASSET", help="TENANT/NAME or TENANT/NAME@VERSION.")]


@app.command(
    help=with_examples(
        "Show the newest records, and with --follow each new one as soon as it has its place in the log.\n\n"
        "Following is recorded twice, when it begins and when it ends; it does not feed itself.",
        "audit tail -n 50 --profile clients/auditor.toml",
        "audit tail --follow --result denied --jsonl --profile clients/auditor.toml",
    )
)
@with_broker_options
def tail(
    broker: BrokerOptions,
    *,
    database: DatabaseOption = None,
    number: Annotated[
        int, typer.Option("--number", "-n", min=1, max=MAX_PAGE, metavar="N", help="How many to begin with.")
    ] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records until interrupted.")] = False,
    asset: Annotated[str | None, typer.Option(metavar="ASSET", help="TENANT/NAME or TENANT/NAME@VERSION.")] = None,
    job: Annotated[str | None, typer.Option(metavar="JOB", help="The scheduler's id of a job.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="TENANT", help="Whose assets or job it was.")] = None,
    node: Annotated[str | None, typer.Option(metavar="NODE", help="An enrolled node.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="What happened.", show_choices=False)] = None,
    result: Annotated[Result | None, typer.Option(help="How it ended.")] = None,
    as_json: JsonOption = False,
    as_lines: LinesOption = False,
) -> None:
    """Show the newest records."""
    if follow and as_json:
        raise UsageError("--json is one document, which has an end; with --follow use --jsonl")
    name, version = (None, None) if asset is None else parse_asset(asset)
    wanted = Filter(asset=name, version=version, job=job, tenant=tenant, node=node, kind=kind, result=result)
    with open_source(database, broker) as source:
        pages = source.stream(wanted, newest=number, follow=follow)
        if not follow:
            found = (entry for page in pages for entry in page.entries)
            show_entries(found, as_json=as_json, as_lines=as_lines)
            return
        for page in pages:
            for entry in page.entries:
                _print_as_it_comes(entry, as_lines=as_lines)


def _print_as_it_comes(entry: Entry, *, as_lines: bool) -> None:
    if as_lines:
        print_line(entry_json(entry))
        return
    record = entry.record()
    if record is not None:
        values = dict(zip(COLUMNS, row(entry, record), strict=True))
        place = f"{values.pop('entry')}  {values.pop('time')}  {values.pop('kind')}"
        result = values.pop("result")
        facts = "  ".join(f"{name}={value}" for name, value in values.items() if value)
        output.console().print(output.cell(f"{place}  {result}  {facts}"), soft_wrap=True)


@app.command(
    help=with_examples(
        "Who used an asset: every release of its keys, for which job and user, by which scheduler, on which node.\n\n"
        "The same records: `keystead audit query --asset ASSET --kind lease.granted --all`.",
        "audit who-used acme/corpus --profile clients/auditor.toml",
        "audit who-used acme/corpus@3 --since 2026-11-01 --jsonl --database sqlite:///keystead.db",
    )
)
@with_broker_options
def who_used(
    broker: BrokerOptions,
    asset: AssetArgument,
    *,
    database: DatabaseOption = None,
    since: Annotated[str | None, typer.Option(metavar="INSTANT", help="From this instant or day (UTC) on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="INSTANT", help="Up to, not including, this one.")] = None,
    as_json: JsonOption = False,
    as_lines: LinesOption = False,
) -> None:
    """Who used an asset."""
    wanted = _released(asset, since, until)
    with open_source(database, broker) as source:
        found = every_entry(source, wanted)
        if as_json or as_lines:
            show_entries(found, as_json=as_json, as_lines=as_lines)
            return
        print_rows(
            ("entry", "time", "tenant", "job", "user", "scheduler", "node", "site", "lease"),
            (
                (
                    entry.index,
                    output.instant(record.time),
                    record.tenant,
                    record.job,
                    record.detail.get("user"),
                    record.detail.get("scheduler"),
                    record.node,
                    record.site,
                    record.lease,
                )
                for entry, record in _with_records(found)
            ),
            empty="no key of it was ever released",
        )


@dataclass(slots=True)
class _Place:
    """How often keys were released at one place."""

    releases: int
    first: int
    last: int
    jobs: set[str]


@app.command(
    help=with_examples(
        "Where an asset was opened: sites, jurisdictions and nodes that its keys were released to, how often and when.",
        "audit where-opened acme/llm --profile clients/auditor.toml",
    )
)
@with_broker_options
def where_opened(
    broker: BrokerOptions,
    asset: AssetArgument,
    *,
    database: DatabaseOption = None,
    since: Annotated[str | None, typer.Option(metavar="INSTANT", help="From this instant or day (UTC) on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="INSTANT", help="Up to, not including, this one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Where an asset was opened."""
    wanted = _released(asset, since, until)
    places: dict[tuple[str, str, str], _Place] = {}
    with open_source(database, broker) as source:
        for _, record in _with_records(every_entry(source, wanted)):
            key = (record.site or "", record.jurisdiction or "", record.node or "")
            place = places.setdefault(key, _Place(0, record.time, record.time, set()))
            place.releases += 1
            place.first, place.last = min(place.first, record.time), max(place.last, record.time)
            if record.job is not None:
                place.jobs.add(record.job)
    if as_json:
        document: list[Json] = [
            {
                "site": site,
                "jurisdiction": jurisdiction,
                "node": node,
                "releases": place.releases,
                "jobs": len(place.jobs),
                "first": place.first,
                "last": place.last,
            }
            for (site, jurisdiction, node), place in sorted(places.items())
        ]
        output.print_json({"asset": asset, "places": document})
        return
    print_rows(
        ("site", "jurisdiction", "node", "releases", "jobs", "first", "last"),
        (
            (*key, place.releases, len(place.jobs), output.instant(place.first), output.instant(place.last))
            for key, place in sorted(places.items())
        ),
        empty="it was never opened anywhere",
    )


@app.command(
    help=with_examples(
        "What was refused, and why: by one version of the release policy, or altogether.\n\n"
        "The same records: `keystead audit query --result denied --policy DIGEST --all`.",
        "audit refused --policy 3f1c…9a --profile clients/auditor.toml",
        "audit refused --reason JURISDICTION_NOT_PERMITTED --since 2026-11-01 --database sqlite:///keystead.db",
    )
)
@with_broker_options
def refused(
    broker: BrokerOptions,
    *,
    database: DatabaseOption = None,
    policy: Annotated[str | None, typer.Option(metavar="DIGEST", help="The policy bundle that decided.")] = None,
    reason: Annotated[str | None, typer.Option(metavar="CODE", help="Only what was refused for this.")] = None,
    since: Annotated[str | None, typer.Option(metavar="INSTANT", help="From this instant or day (UTC) on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="INSTANT", help="Up to, not including, this one.")] = None,
    as_json: JsonOption = False,
    as_lines: LinesOption = False,
) -> None:
    """What was refused."""
    wanted = Filter(
        result=Result.DENIED,
        policy_digest=policy,
        reason=reason,
        start_time=_instant(since),
        end_time=_instant(until),
    )
    with open_source(database, broker) as source:
        show_entries(every_entry(source, wanted), as_json=as_json, as_lines=as_lines)


@app.command(
    help=with_examples(
        "Every lease that was alive at an instant, with the grant or renewal that it was alive by.\n\n"
        "From the log alone: a lease is alive from its grant on until what its newest grant or renewal says, and no "
        "longer than to its return, expiry or revocation.",
        "audit leases --at 2026-11-22T13:00:00Z --profile clients/auditor.toml",
        "audit leases --at 2026-11-22T13:00:00Z --asset acme/llm --jsonl --database sqlite:///keystead.db",
    )
)
@with_broker_options
def leases(
    broker: BrokerOptions,
    *,
    database: DatabaseOption = None,
    at: Annotated[str, typer.Option("--at", metavar="INSTANT", help="When, for example 2026-11-22T13:00:00Z.")],
    asset: Annotated[str | None, typer.Option(metavar="ASSET", help="TENANT/NAME or TENANT/NAME@VERSION.")] = None,
    node: Annotated[str | None, typer.Option(metavar="NODE", help="An enrolled node.")] = None,
    site: Annotated[str | None, typer.Option(metavar="SITE", help="An enrolled site.")] = None,
    as_json: JsonOption = False,
    as_lines: LinesOption = False,
) -> None:
    """Leases alive at an instant."""
    name, version = (None, None) if asset is None else parse_asset(asset)
    wanted = Filter(asset=name, version=version, node=node, site=site, alive_at=parse_instant(at))
    with open_source(database, broker) as source:
        found = every_entry(source, wanted)
        if as_json or as_lines:
            show_entries(found, as_json=as_json, as_lines=as_lines)
            return
        print_rows(
            ("lease", "job", "node", "site", "assets", "granted or renewed", "until", "entry"),
            (
                (
                    record.lease,
                    record.job,
                    record.node,
                    record.site,
                    ", ".join(record.assets),
                    output.instant(record.time),
                    _until(record),
                    entry.index,
                )
                for entry, record in _with_records(found)
            ),
            empty="no lease was alive",
        )


def _released(asset: str, since: str | None, until: str | None) -> Filter:
    name, version = parse_asset(asset)
    return Filter(
        asset=name,
        version=version,
        kind=Kind.LEASE_GRANTED,
        start_time=_instant(since),
        end_time=_instant(until),
    )


def _until(record: Record) -> str | None:
    value = record.detail.get("expires_at")
    return output.instant(value) if isinstance(value, int) else None


def _instant(text: str | None) -> int | None:
    return None if text is None else parse_instant(text)


def _with_records(entries: Iterator[Entry]) -> Iterator[tuple[Entry, Record]]:
    for entry in entries:
        record = entry.record()
        if record is not None:
            yield entry, record
