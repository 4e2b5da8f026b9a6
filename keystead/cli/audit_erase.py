"""``keystead audit erase``: crypto-erasure of a tenant's or user's records. Role: operator."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from keystead.cli import output
from keystead.cli.help import with_examples
from keystead.cli.output import JsonOption
from keystead.cli.profile import BrokerOptions, with_broker_options

ERASE_HELP: Final = with_examples(
    "Erase the records of a tenant, or of one of its users, for ever: the keys that they are sealed under are "
    "destroyed. Every proof still verifies. That it was done, by whom and why stays on record, without the user's name."
    "\n\nRefused while the tenant, or a job of the user, holds keys by a live lease. Copies of the keys' table, as in "
    "backups, must be destroyed by whoever keeps them.",
    'audit erase --tenant acme --user ada --reason "request 2026-117" --profile clients/operator.toml',
    'audit erase --tenant acme --reason "contract ended" --yes --profile clients/operator.toml',
)


@with_broker_options
def erase_command(
    broker: BrokerOptions,
    *,
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Whose records.")],
    user: Annotated[
        str, typer.Option(metavar="USER", help="Only records of jobs that ran for this user, as declared.")
    ] = "",
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, in one line that is kept for ever: it must name no person.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase records."""
    # Verifying offline, in the same room, needs no gRPC.
    from keystead.cli.connection import Connection, request_id
    from keystead.v1 import audit_service_pb2 as pb

    whose = f"the records of user {user} of {tenant}" if user else f"all records of {tenant}"
    output.confirm(f"Erase {whose}? Nobody can read them ever again.", yes=yes)
    request = pb.EraseRecordsRequest(request_id=request_id(), tenant=tenant, user=user, reason=reason)
    with Connection(broker.find_profile(), timeout=broker.timeout) as connection:
        done = connection.call(connection.audit.EraseRecords, request)
    recorded = done.HasField("records")
    output.show(
        {
            "erasure": done.erasure,
            "keys": done.keys,
            "records": done.records if recorded else None,
            "entry hash": done.leaf_hash.hex() if recorded else None,
            "cleared": done.cleared,
        },
        as_json=as_json,
    )
    if not as_json and not done.cleared:
        what = "query columns are being cleared" if recorded else "some records wait for their place in the log"
        output.console(stderr=True).print(f"Note: {what}; the broker goes on by itself")
