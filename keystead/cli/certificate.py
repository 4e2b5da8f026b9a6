"""``keystead certificate``: more client certificates from an installation's own authority."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from keystead.cli import instants, output
from keystead.cli.help import with_examples
from keystead.cli.output import JsonOption

app = typer.Typer(no_args_is_help=True, help="Client certificates, from the installation's own authority.")


@app.callback()
def group() -> None:
    """Keep the group: with one command alone typer would fold it away."""


@app.command(
    help=with_examples(
        "Issue a client certificate: one role, one name, and a tenant for owners and schedulers.",
        "certificate issue ./factory scheduler hall-2 --tenant acme",
        "certificate issue ./factory auditor data-protection --tenant acme",
        "certificate issue ./factory node ber1-n01",
    )
)
def issue(
    installation: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="An installation whose tls/ca.key is there.")
    ],
    role: Annotated[str, typer.Argument(help="owner, scheduler, node, operator or auditor.")],
    name: Annotated[str, typer.Argument(help="The principal's name.")],
    *,
    tenant: Annotated[
        str | None, typer.Option(metavar="TENANT", help="Owners and schedulers need one; auditors may have one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Issue a client certificate."""
    from keybroker.config import BrokerConfig
    from keybroker.initialise import issue_client
    from keybroker.principals import new_principal

    config = BrokerConfig.load(installation)
    principal = new_principal(role, name, tenant)
    profile = issue_client(config, principal, now=instants.now())
    identity = principal.spiffe_id(config.broker.trust_domain)
    if as_json:
        output.print_json({"spiffe_id": identity, "profile": os.fspath(profile)})
        return
    output.console().print(output.cell(f"Issued {identity}: profile {profile}, valid for 397 days."))
