"""``keystead site``: where hardware stands, and under whose law; every record of a site is signed by two parties.

``key``, ``record`` and ``sign`` need no broker: a record travels as a file from who writes it to who signs it. The
rest needs the role operator.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from keystead.cli import instants, output
from keystead.cli.connection import Connection, connected, request_id
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.v1 import site_service_pb2 as pb

app = typer.Typer(no_args_is_help=True, help="Sites: where hardware stands, and under whose law. Role: operator.")

PAGE: Final = 1_000
"""Items asked for at a time; the broker gives no more."""

_DAY: Final = 86_400
_STATES: Final = {
    pb.SITE_STATE_ACTIVE: "active",
    pb.SITE_STATE_SUSPENDED: "suspended",
    pb.SITE_STATE_RETIRED: "retired",
}

RecordFile = Annotated[Path, typer.Argument(metavar="FILE", help="A record that keystead site record wrote.")]


@app.command(
    help=with_examples(
        "Make the key of an authority, one of the parties that sign for sites: PATH (secret) and PATH.pub.",
        "site key legal.pem",
    )
)
def key(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where the private key goes; it must not be there.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Make an authority's key."""
    from keybroker import pki
    from keybroker.keys.signing import SigningKey

    public = path.with_name(f"{path.name}.pub")
    made = SigningKey.create(path)
    pki.write_new(public, made.public_pem())
    output.show(
        {"private_key": str(path), "public_key": str(public), "key_id": made.key_id}, as_json=as_json, title="Key made"
    )


@app.command(
    help=with_examples(
        "Write a record of a site, to be signed by two authorities and then enrolled.",
        "site record ber1 --jurisdiction DE-BE --facility 'Berlin 1' --operator 'ACME GmbH:DE' --author alice",
        "site record ber1 --serial 2 --jurisdiction DE-BE --facility 'Berlin 1' --operator 'ACME GmbH:DE' "
        "--controller 'ACME Holding:LU' --certification iso27001 --valid 365d --author alice --out ber1-2.json",
    )
)
def record(
    site: Annotated[str, typer.Argument(help="The site's id.")],
    *,
    jurisdiction: Annotated[
        str, typer.Option(metavar="CODE", help="ISO 3166-1 alpha-2 code of the country, or an ISO 3166-2 code.")
    ],
    facility: Annotated[str, typer.Option(metavar="NAME", help="The facility's name.")],
    operator: Annotated[
        str, typer.Option(metavar="NAME:CODE[:LEI]", help="Who runs it, under whose law, and its LEI if it has one.")
    ],
    controller: Annotated[
        list[str] | None,
        typer.Option("--controller", metavar="NAME:CODE[:LEI]", help="A legal entity that controls it; repeat."),
    ] = None,
    certification: Annotated[
        list[str] | None, typer.Option("--certification", metavar="NAME", help="What it is certified for; repeat.")
    ] = None,
    network_zone: Annotated[str, typer.Option(metavar="ZONE", help="The network that it is in.")] = "",
    serial: Annotated[int, typer.Option(min=1, help="Higher than that of the site's present record.")] = 1,
    valid: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the record holds, from today 00:00 UTC: 30d, 365d.")
    ] = "365d",
    author: Annotated[str, typer.Option(metavar="NAME", help="Who writes it.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; SITE.site.json by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a record."""
    from keybroker.site_record import LegalEntity, SiteRecord
    from keystead.cli import signing
    from policy.places import known_places

    begins = instants.now() // _DAY * _DAY
    made = SiteRecord.read(
        {
            "site": site,
            "serial": serial,
            "jurisdiction": jurisdiction,
            "facility": facility,
            "operator": LegalEntity.read(operator).model_dump(mode="json"),
            "controllers": [
                entity.model_dump(mode="json")
                for entity in sorted(
                    map(LegalEntity.read, controller or ()), key=lambda each: (each.name, each.jurisdiction)
                )
            ],
            "certifications": sorted(certification or ()),
            "network_zone": network_zone,
            "valid_from": begins,
            "valid_until": begins + instants.parse_duration(valid),
        }
    )
    made.check(known_places=known_places())
    statement = made.statement(author=author)
    path = out or Path(f"{site.replace('/', '_')}.site.json")
    signing.StatementFile(statement, ()).write(path, replace=False)
    if as_json:
        output.print_json({"file": str(path), "digest": statement.digest.hex(), "site": site, "serial": serial})
        return
    signing.show(statement, title=f"Record written to {path}")
    output.console().print(
        output.cell(f"Next: two authorities sign it: keystead site sign {path} --key KEY --name NAME")
    )


@app.command(
    help=with_examples(
        "Sign a record as one of the authorities. Shows every field of it first; compare the digest with the others.",
        "site sign ber1.site.json --key legal.pem --name legal",
    )
)
def sign(
    file: RecordFile,
    *,
    key_file: Annotated[Path, typer.Option("--key", metavar="PATH", help="The authority's private key.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="The authority's name in the broker's configuration.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: what is signed was looked at before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign a record."""
    from keybroker.keys.signing import SigningKey
    from keybroker.site_record import SiteRecord
    from keystead.cli import signing
    from policy.places import known_places

    loaded = signing.StatementFile.load(file)
    statement = loaded.statement
    SiteRecord.of(statement, known_places=known_places())
    if name in loaded.signers:
        raise UsageError(f"{file}: {name} has signed it already")
    private = SigningKey.load(key_file)
    if not as_json:
        signing.show(statement, title="This is what you sign, all of it:")
        output.console().print(output.cell(f"Signed so far by: {', '.join(loaded.signers) or 'nobody'}"))
    output.confirm(f"Sign this record of digest {statement.digest.hex()} as {name}?", yes=yes)
    signature = statement.sign(private.private_key, signer=name)
    signed = replace(loaded, signatures=(*loaded.signatures, signature))
    signed.write(file, replace=True)
    if as_json:
        output.print_json({"file": str(file), "digest": statement.digest.hex(), "signers": list(signed.signers)})
        return
    output.console().print(output.cell(f"{file}: signed by {', '.join(signed.signers)}"))


@app.command(help=with_examples("Enrol a site by its first signed record.", "site enrol ber1.site.json"))
@connected
def enrol(connection: Connection, file: RecordFile, *, as_json: JsonOption = False) -> None:
    """Enrol a site."""
    response = connection.call(
        connection.sites.EnrolSite, pb.EnrolSiteRequest(request_id=request_id(), record=_record_of(file))
    )
    output.show(site_json(response.site), as_json=as_json, title="Site enrolled")


@app.command(
    help=with_examples(
        "Put a newer signed record in the place of a site's present one. A suspended site is active again.",
        "site renew ber1-2.json",
    )
)
@connected
def renew(connection: Connection, file: RecordFile, *, as_json: JsonOption = False) -> None:
    """Renew a site's record."""
    response = connection.call(
        connection.sites.RenewSite, pb.RenewSiteRequest(request_id=request_id(), record=_record_of(file))
    )
    output.show(site_json(response.site), as_json=as_json, title="Site renewed")


@app.command(
    help=with_examples(
        "Keep all keys from a site, at once, until a newer record is signed. Its live leases end.",
        "site suspend ber1 --reason 'fence breached'",
    )
)
@connected
def suspend(
    connection: Connection,
    site: Annotated[str, typer.Argument(help="The site's id.")],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
    as_json: JsonOption = False,
) -> None:
    """Suspend a site."""
    response = connection.call(
        connection.sites.SuspendSite, pb.SuspendSiteRequest(request_id=request_id(), site_id=site, reason=reason)
    )
    output.show(site_json(response.site), as_json=as_json, title="Site suspended")


@app.command(
    help=with_examples("Show a site, its record and who signed it.", "site show ber1", "site show ber1 --json")
)
@connected
def show(
    connection: Connection,
    site: Annotated[str, typer.Argument(help="The site's id.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show a site."""
    from keybroker.statements import Statement, signer_of
    from keystead.cli import signing

    response = connection.call(connection.sites.GetSite, pb.GetSiteRequest(site_id=site))
    signers = [signer_of(each) for each in response.record.signatures]
    signed = Statement.parse(response.record.statement) if response.record.statement else None
    if as_json:
        output.print_json(
            {
                **site_json(response.site),
                "signers": signers,
                "digest": None if signed is None else signed.digest.hex(),
                "record": None if signed is None else dict(signed.body),
                "signatures": list(response.record.signatures),
            }
        )
        return
    output.show(site_json(response.site), as_json=False, title=f"Site {site}")
    if signed is None:
        output.console().print("Nobody has signed a record for it.")
        return
    signing.show(signed, title=f"Record, signed by {', '.join(signers)}")


@app.command("list", help=with_examples("List the enrolled sites.", "site list --json"))
@connected
def list_(connection: Connection, *, as_json: JsonOption = False) -> None:
    """List the sites."""
    sites: list[pb.Site] = []
    token = ""
    while True:
        page = connection.call(connection.sites.ListSites, pb.ListSitesRequest(page_size=PAGE, page_token=token))
        sites += page.sites
        token = page.next_page_token
        if not token:
            break
    if as_json:
        output.print_json([site_json(site) for site in sites])
        return
    output.print_table(
        ("site", "jurisdiction", "facility", "operator", "under the law of", "state", "record holds until"),
        (
            (
                site.site_id,
                site.jurisdiction,
                site.facility,
                site.operator,
                ", ".join(site.exposures),
                state_name(site.state),
                output.instant(site.expire_time.seconds),
            )
            for site in sites
        ),
        empty="no site is enrolled",
    )


def state_name(value: int) -> str:
    """The word for a site's state; ``unknown`` for one that this release does not know."""
    return next((name for number, name in _STATES.items() if number == value), "unknown")


def site_json(site: pb.Site) -> dict[str, Json]:
    """A site as it stands in ``--json`` output."""
    return {
        "site": site.site_id,
        "jurisdiction": site.jurisdiction,
        "facility": site.facility,
        "operator": site.operator,
        "exposures": list(site.exposures),
        "certifications": list(site.certifications),
        "network_zone": site.network_zone,
        "state": state_name(site.state),
        "serial": site.serial,
        "starts": output.instant(site.start_time.seconds),
        "expires": output.instant(site.expire_time.seconds),
    }


def _record_of(file: Path) -> pb.SignedStatement:
    from keystead.cli import signing

    loaded = signing.StatementFile.load(file)
    return pb.SignedStatement(statement=loaded.statement.payload, signatures=loaded.signatures)
