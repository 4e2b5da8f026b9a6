"""``keystead job plan`` and ``keystead job would-release``: where a job may run, before anything is queued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import typer

from keystead.cli import instants, output
from keystead.cli.connection import Connection, connected, to_timestamp
from keystead.cli.exits import NO, UsageError
from keystead.cli.help import with_examples
from keystead.cli.job import app, parse_ref
from keystead.cli.output import Json, JsonOption
from keystead.v1 import job_service_pb2, lease_service_pb2
from keystead.v1 import placement_service_pb2 as pb

MAX_PAGES: Final = 1_000
"""Pages that one plan asks for; a factory with a hundred thousand sites is not one."""

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="The scheduler's unique id of the job; with --asset one that is not there.")
]
AssetOption = Annotated[
    list[str] | None,
    typer.Option("--asset", metavar="TENANT/NAME@VERSION", help="What a job would open; repeat for each."),
]
PurposeOption = Annotated[
    list[str] | None, typer.Option("--purpose", metavar="PURPOSE", help="What for; repeat for each.")
]
NodeOption = Annotated[
    list[str] | None, typer.Option("--on-node", metavar="NODE", help="Only on this node; repeat for each.")
]
SiteOption = Annotated[
    list[str] | None, typer.Option("--site", metavar="SITE", help="Only on this site; repeat for each.")
]
NodesOption = Annotated[int, typer.Option(min=1, help="How many nodes may hold a lease at the same time.")]
ProjectOption = Annotated[str, typer.Option(metavar="PROJECT", help="The project that it belongs to.")]
UserOption = Annotated[str, typer.Option(metavar="USER", help="The user that it runs for.")]
StageOption = Annotated[str, typer.Option(metavar="STAGE", help="Stage of the data life cycle.")]
ImageOption = Annotated[str, typer.Option(metavar="SHA256", help="Digest of the code or container image it runs.")]
NetworkOption = Annotated[str, typer.Option(metavar="MODE", help="How it is connected: none, fabric, egress.")]
DelayOption = Annotated[
    str | None, typer.Option("--in", metavar="DURATION", help="When it begins: 30m, 8h from now. Default: now.")
]
LifetimeOption = Annotated[str, typer.Option("--for", metavar="DURATION", help="How long: 30m, 8h, 7d.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a job that is not there would ask for, as the options say it."""

    assets: list[str] | None
    purposes: list[str] | None
    nodes: list[str] | None
    sites: list[str] | None
    node_ceiling: int
    project: str
    user: str
    stage: str
    image: str
    network: str
    delay: str | None
    lifetime: str

    def request(self, job: str) -> job_service_pb2.AuthorizeJobRequest | None:
        """What AuthorizeJob would be asked; None where no asset is named: then the job is there.

        Raises:
            UsageError: options that say what a job would ask for, without an asset.
        """
        if not self.assets:
            said = [self.purposes, self.nodes, self.sites, self.project, self.user, self.stage, self.image]
            if any([*said, self.network, self.delay]):
                raise UsageError(
                    "--asset: name what the job would open, or leave its other options out for an open job"
                )
            return None
        starts = instants.now() + (instants.parse_duration(self.delay) if self.delay else 0)
        return job_service_pb2.AuthorizeJobRequest(
            job_uid=job,
            assets=[parse_ref(text) for text in self.assets],
            purposes=self.purposes,
            nodes=self.nodes,
            sites=self.sites,
            node_ceiling=self.node_ceiling,
            expire_time=to_timestamp(starts + instants.parse_duration(self.lifetime)),
            start_time=to_timestamp(starts) if self.delay else None,
            project=self.project,
            user=self.user,
            stage=self.stage,
            image=self.image,
            network=self.network,
        )


@app.command(
    help=with_examples(
        "Show where a job may run: which nodes would get its keys, how many have attested, and why the others would "
        "not. Exit code 1 where no node would.",
        "job plan slurm:4711",
        "job plan slurm:4712 --asset acme/llm@1 --purpose inference --for 8h",
    )
)
@connected
def plan(
    connection: Connection,
    job: JobArgument,
    *,
    asset: AssetOption = None,
    purpose: PurposeOption = None,
    on_node: NodeOption = None,
    site: SiteOption = None,
    nodes: NodesOption = 1,
    project: ProjectOption = "",
    user: UserOption = "",
    stage: StageOption = "",
    image: ImageOption = "",
    network: NetworkOption = "",
    delay: DelayOption = None,
    lifetime: LifetimeOption = "1h",
    as_json: JsonOption = False,
) -> None:
    """Plan a job's placement."""
    proposal = Proposal(
        assets=asset,
        purposes=purpose,
        nodes=on_node,
        sites=site,
        node_ceiling=nodes,
        project=project,
        user=user,
        stage=stage,
        image=image,
        network=network,
        delay=delay,
        lifetime=lifetime,
    ).request(job)
    request = pb.PlanPlacementRequest(job=proposal, job_uid=None if proposal else job)
    found: list[pb.SitePlacement] = []
    for _ in range(MAX_PAGES):
        response = connection.call(connection.placement.PlanPlacement, request)
        found += response.sites
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    eligible = sum(each.eligible for each in found)
    if as_json:
        output.print_json(
            {
                "job": job,
                "eligible": eligible,
                "attested": sum(each.attested for each in found),
                "reasons": list(output.reasons_json(response.reasons)),
                "sites": [_site_json(each) for each in found],
            }
        )
    else:
        output.print_table(
            ("site", "where", "nodes", "eligible", "attested", "why not"), [_site_row(each) for each in found]
        )
        if response.reasons:
            output.console().print("The job would not be authorized:")
            output.console().print(output.reasons_table(response.reasons))
    if not eligible:
        raise typer.Exit(NO)


@app.command(
    help=with_examples(
        "Ask whether a node would get a job's keys, by what it proved last. No key is wrapped and nothing is spent; "
        "that it was asked is recorded. Exit code 1 where it would not.",
        "job would-release slurm:4711 --node node-17",
        "job would-release slurm:4712 --node node-17 --asset acme/llm@1 --purpose inference",
    )
)
@connected
def would_release(
    connection: Connection,
    job: JobArgument,
    *,
    node: Annotated[str, typer.Option(metavar="NODE", help="The node.")],
    asset: AssetOption = None,
    purpose: PurposeOption = None,
    on_node: NodeOption = None,
    site: SiteOption = None,
    nodes: NodesOption = 1,
    project: ProjectOption = "",
    user: UserOption = "",
    stage: StageOption = "",
    image: ImageOption = "",
    network: NetworkOption = "",
    delay: DelayOption = None,
    lifetime: LifetimeOption = "1h",
    as_json: JsonOption = False,
) -> None:
    """Ask for one node."""
    proposal = Proposal(
        assets=asset,
        purposes=purpose,
        nodes=on_node,
        sites=site,
        node_ceiling=nodes,
        project=project,
        user=user,
        stage=stage,
        image=image,
        network=network,
        delay=delay,
        lifetime=lifetime,
    ).request(job)
    answer = connection.call(
        connection.placement.WouldRelease,
        pb.WouldReleaseRequest(job=proposal, job_uid=None if proposal else job, node_id=node),
    )
    appraised = answer.appraise_time.seconds if answer.HasField("appraise_time") else None
    shown: dict[str, Json] = {
        "job": job,
        "node": node,
        "would_release": answer.would_release,
        "appraised": None if appraised is None else output.instant(appraised),
        "obligations": [_obligation(item) for item in answer.obligations],
    }
    if as_json:
        output.print_json(shown | {"reasons": list(output.reasons_json(answer.reasons))})
    else:
        output.show(shown, as_json=False)
        if answer.reasons:
            output.console().print(output.reasons_table(answer.reasons))
    if not answer.would_release:
        raise typer.Exit(NO)


def _obligation(item: lease_service_pb2.Obligation) -> str:
    return item.code if item.params == "{}" else f"{item.code} {item.params}"


def _site_json(site: pb.SitePlacement) -> dict[str, Json]:
    return {
        "site": site.site_id,
        "jurisdiction": site.jurisdiction,
        "nodes": site.nodes,
        "eligible": site.eligible,
        "attested": site.attested,
        "ineligible": [
            {"nodes": group.nodes, "example": group.example, "reasons": list(output.reasons_json(group.reasons))}
            for group in site.ineligible
        ],
        "untold": site.untold,
    }


def _site_row(site: pb.SitePlacement) -> tuple[object, ...]:
    why = [
        f"{f'{group.nodes}: ' if group.nodes else ''}{', '.join(dict.fromkeys(item.code for item in group.reasons))}"
        for group in site.ineligible
    ]
    if site.untold:
        why.append(f"{site.untold}: for other reasons")
    return site.site_id, site.jurisdiction, site.nodes, site.eligible, site.attested, "\n".join(why)
