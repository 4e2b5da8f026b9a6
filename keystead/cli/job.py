"""``keystead job``: open a job, look at it, extend, preempt, requeue and end it. Role: scheduler of the tenant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from attester.grant_file import GrantFile
from keystead.binding import AssetRef, BindingError
from keystead.cli import instants, output
from keystead.cli.amounts import parse_amounts
from keystead.cli.connection import Connection, connected, request_id, to_timestamp
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.v1 import asset_ref_pb2
from keystead.v1 import job_service_pb2 as pb

app = typer.Typer(
    no_args_is_help=True, help="Jobs: authorize, look at, extend, preempt, requeue and end them. Role: scheduler."
)

_STATES: Final = {
    pb.JOB_STATE_OPEN: "open",
    pb.JOB_STATE_PREEMPTED: "preempted",
    pb.JOB_STATE_CLOSED: "closed",
}

_DECLARED: Final = ("project", "user", "stage", "image", "network")

LifetimeOption = Annotated[str, typer.Option("--for", metavar="DURATION", help="How long from now: 30m, 8h, 7d.")]

GrantFileOption = Annotated[Path, typer.Option(metavar="FILE", help="Where the grant goes; replaced if it is there.")]

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The scheduler's unique id of the job: slurm:4711.")]


def parse_ref(text: str) -> asset_ref_pb2.AssetRef:
    """Read ``TENANT/NAME@VERSION``.

    Raises:
        UsageError: another form.
    """
    try:
        ref = AssetRef.parse(text)
    except BindingError as error:
        raise UsageError(f"--asset: {error}") from None
    return asset_ref_pb2.AssetRef(asset=ref.asset, version=ref.version)


@app.command(
    help=with_examples(
        "Ask whether a job may use its assets. If so, write the signed grant for its nodes to a file.",
        "job authorize slurm:4711 --asset acme/llm@1 --purpose inference --grant-file job.json",
        "job authorize slurm:4712 --asset acme/llm@1 --purpose inference --site ber1 --nodes 4 "
        "--for 8h --grant-file job.json",
    )
)
@connected
def authorize(
    connection: Connection,
    job: JobArgument,
    *,
    asset: Annotated[
        list[str],
        typer.Option("--asset", metavar="TENANT/NAME@VERSION", help="What the job will open; repeat for each."),
    ],
    purpose: Annotated[list[str], typer.Option("--purpose", metavar="PURPOSE", help="What for; repeat for each.")],
    node: Annotated[
        list[str] | None, typer.Option("--node", metavar="NODE", help="Only on this node; repeat for each.")
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option("--site", metavar="SITE", help="Only on this site; repeat for each.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes may hold a lease at the same time.")] = 1,
    project: Annotated[str, typer.Option(metavar="PROJECT", help="The project that it belongs to.")] = "",
    user: Annotated[str, typer.Option(metavar="USER", help="The user that it runs for.")] = "",
    stage: Annotated[
        str,
        typer.Option(metavar="STAGE", help="Stage of the data life cycle: ingestion, training, inference and so on."),
    ] = "",
    image: Annotated[str, typer.Option(metavar="SHA256", help="Digest of the code or container image it runs.")] = "",
    network: Annotated[str, typer.Option(metavar="MODE", help="How it is connected: none, fabric, egress.")] = "",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="NAME=NUMBER",
            help="Most that the job may use of each asset: key_seconds, opens, bytes_opened, tokens_served, "
            "bytes_served; repeat for each.",
        ),
    ] = None,
    delay: Annotated[
        str | None, typer.Option("--in", metavar="DURATION", help="When it begins: 30m, 8h from now. Default: now.")
    ] = None,
    lifetime: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long: 30m, 8h, 7d.")] = "1h",
    grant_file: Annotated[Path, typer.Option(metavar="FILE", help="Where the grant goes; replaced if it is there.")],
    as_json: JsonOption = False,
) -> None:
    """Authorize a job."""
    starts = instants.now() + (instants.parse_duration(delay) if delay else 0)
    expires = starts + instants.parse_duration(lifetime)
    request = pb.AuthorizeJobRequest(
        request_id=request_id(),
        job_uid=job,
        assets=[parse_ref(text) for text in asset],
        purposes=purpose,
        nodes=node or (),
        sites=site or (),
        node_ceiling=nodes,
        expire_time=to_timestamp(expires),
        start_time=to_timestamp(starts) if delay else None,
        project=project,
        user=user,
        stage=stage,
        image=image,
        network=network,
        budgets=parse_amounts(budget or (), "--budget"),
    )
    response = connection.call(connection.jobs.AuthorizeJob, request)
    GrantFile.from_response(response).write(grant_file)
    output.show(
        {
            "job": job,
            "grant_file": os.fspath(grant_file),
            "broker": response.broker,
            "assets": list(asset),
            "purposes": list(purpose),
            "expires": output.instant(expires),
            "nonce_expires": output.instant(response.nonce_expire_time.seconds),
        },
        as_json=as_json,
        title="Job authorized",
    )


@app.command(help=with_examples("Show a job and how many leases of it are live.", "job show slurm:4711"))
@connected
def show(connection: Connection, job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Show a job."""
    found = connection.call(connection.jobs.GetJob, pb.GetJobRequest(job_uid=job)).job
    output.show(job_json(found), as_json=as_json)


@app.command(
    help=with_examples(
        "Give a running job more time. Nodes that hold a lease go on under the new grant by themselves.",
        "job extend slurm:4711 --for 8h --grant-file job.json",
    )
)
@connected
def extend(
    connection: Connection,
    job: JobArgument,
    *,
    lifetime: LifetimeOption = "1h",
    grant_file: GrantFileOption,
    as_json: JsonOption = False,
) -> None:
    """Extend a job."""
    expires = instants.now() + instants.parse_duration(lifetime)
    request = pb.ExtendJobRequest(request_id=request_id(), job_uid=job, expire_time=to_timestamp(expires))
    response = connection.call(connection.jobs.ExtendJob, request)
    GrantFile.from_response(response).write(grant_file)
    output.show(
        {"job": job, "grant_file": os.fspath(grant_file), "expires": output.instant(expires)},
        as_json=as_json,
        title="Job extended",
    )


@app.command(
    help=with_examples(
        "Stop a job until it is requeued: its live leases are revoked, no other is granted.", "job preempt slurm:4711"
    )
)
@connected
def preempt(connection: Connection, job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Preempt a job."""
    request = pb.PreemptJobRequest(request_id=request_id(), job_uid=job)
    response = connection.call(connection.jobs.PreemptJob, request)
    output.show(
        {**job_json(response.job), "revoked_leases": response.revoked_leases}, as_json=as_json, title="Job preempted"
    )


@app.command(
    help=with_examples(
        "Run a job again under the same id: its live leases are revoked, and it gets the next attempt's grant.",
        "job requeue slurm:4711 --for 8h --grant-file job.json",
    )
)
@connected
def requeue(
    connection: Connection,
    job: JobArgument,
    *,
    lifetime: LifetimeOption = "1h",
    grant_file: GrantFileOption,
    as_json: JsonOption = False,
) -> None:
    """Requeue a job."""
    expires = instants.now() + instants.parse_duration(lifetime)
    request = pb.RequeueJobRequest(request_id=request_id(), job_uid=job, expire_time=to_timestamp(expires))
    response = connection.call(connection.jobs.RequeueJob, request)
    GrantFile.from_response(response).write(grant_file)
    output.show(
        {
            "job": job,
            "attempt": response.attempt,
            "grant_file": os.fspath(grant_file),
            "expires": output.instant(expires),
            "revoked_leases": response.revoked_leases,
        },
        as_json=as_json,
        title="Job requeued",
    )


@app.command(help=with_examples("End a job: its live leases are revoked, no other is granted.", "job end slurm:4711"))
@connected
def end(connection: Connection, job: JobArgument, *, as_json: JsonOption = False) -> None:
    """End a job."""
    response = connection.call(connection.jobs.EndJob, pb.EndJobRequest(request_id=request_id(), job_uid=job))
    output.show(
        {**job_json(response.job), "revoked_leases": response.revoked_leases}, as_json=as_json, title="Job ended"
    )


def job_json(job: pb.Job) -> dict[str, Json]:
    """A job as it stands in ``--json`` output."""
    return {
        "job": job.job_uid,
        "grant": job.grant_id,
        "tenant": job.tenant,
        "state": _STATES.get(job.state, "unknown"),
        "assets": [f"{ref.asset}@{ref.version}" for ref in job.assets],
        "purposes": list(job.purposes),
        "starts": output.instant(job.start_time.seconds),
        "expires": output.instant(job.expire_time.seconds),
        **{name: value for name in _DECLARED if (value := getattr(job, name))},
        "attempt": job.attempt,
        "live_leases": job.live_leases,
        **({"budgets": [_use_json(use) for use in job.uses]} if job.uses else {}),
    }


def _use_json(use: pb.BudgetUse) -> dict[str, Json]:
    return {
        "asset": f"{use.asset.asset}@{use.asset.version}",
        "budget": use.name,
        "scope": use.scope,
        "limit": use.limit,
        "spent": use.spent,
    }
