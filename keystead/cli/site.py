"""``keystead site``: where hardware stands, and under whose law. Needs the role operator."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from keystead.cli import instants, output
from keystead.cli.connection import Connection, connected, request_id, to_timestamp
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.v1 import site_service_pb2 as pb

app = typer.Typer(no_args_is_help=True, help="Sites: where hardware stands, and under whose law. Role: operator.")

PAGE: Final = 1_000
"""Items asked for at a time; the broker gives no more."""


@app.command(
    help=with_examples(
        "Enrol a site: a place where nodes stand, in one jurisdiction.",
        "site enrol ber1 --jurisdiction DE --facility 'Berlin 1' --operator 'ACME GmbH' --valid 365d",
    )
)
@connected
def enrol(
    connection: Connection,
    site: Annotated[str, typer.Argument(help="The site's id.")],
    *,
    jurisdiction: Annotated[
        str, typer.Option(metavar="CODE", help="ISO 3166-1 alpha-2 code of the country, or an ISO 3166-2 code.")
    ],
    facility: Annotated[str, typer.Option(metavar="NAME", help="The facility's name.")],
    operator: Annotated[str, typer.Option(metavar="NAME", help="Who runs it.")],
    valid: Annotated[str, typer.Option(metavar="DURATION", help="How long the enrolment holds: 30d, 365d.")] = "365d",
    as_json: JsonOption = False,
) -> None:
    """Enrol a site."""
    expires = instants.now() + instants.parse_duration(valid)
    request = pb.EnrolSiteRequest(
        request_id=request_id(),
        site=pb.Site(
            site_id=site,
            jurisdiction=jurisdiction,
            facility=facility,
            operator=operator,
            expire_time=to_timestamp(expires),
        ),
    )
    response = connection.call(connection.sites.EnrolSite, request)
    output.show(site_json(response.site), as_json=as_json, title="Site enrolled")


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
        ("site", "jurisdiction", "facility", "operator", "enrolled until"),
        (
            (site.site_id, site.jurisdiction, site.facility, site.operator, output.instant(site.expire_time.seconds))
            for site in sites
        ),
        empty="no site is enrolled",
    )


def site_json(site: pb.Site) -> dict[str, Json]:
    """A site as it stands in ``--json`` output."""
    return {
        "site": site.site_id,
        "jurisdiction": site.jurisdiction,
        "facility": site.facility,
        "operator": site.operator,
        "expires": output.instant(site.expire_time.seconds),
    }
