"""``keystead asset lineage``, ``parents`` and ``constrain``: what was derived from what, and what that demands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from keybroker.constraints import Constraints
from keybroker.errors import ConstraintsError
from keybroker.services.convert import constraints_message
from keystead.cli import output
from keystead.cli.asset import app as assets
from keystead.cli.asset import kind_name, read_document, show_asset, version_json, version_ref
from keystead.cli.connection import Connection, connected, request_id
from keystead.cli.declassify import app as declassify
from keystead.cli.declassify import approvers_app, assignments
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import JsonOption
from keystead.v1 import asset_service_pb2
from keystead.v1 import lineage_service_pb2 as pb
from keystead.v1.asset_ref_pb2 import AssetRef

app = assets
"""Every command of ``keystead asset``, those of this module included."""

app.add_typer(declassify, name="declassify")
app.add_typer(approvers_app, name="approvers")

_REVOKED = "revoked"


@app.command(
    help=with_examples(
        "Show what an asset or a version was derived from, or what was derived from it.",
        "asset lineage acme/tuned@2",
        "asset lineage acme/notes --down --json",
    )
)
@connected
def lineage(
    connection: Connection,
    asset: Annotated[str, typer.Argument(metavar="TENANT/NAME[@VERSION]", help="Where to begin.")],
    *,
    up: Annotated[
        bool, typer.Option("--up", help="What it was derived from; this is what is shown by itself.")
    ] = False,
    down: Annotated[bool, typer.Option("--down", help="What was derived from it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show lineage."""
    if up and down:
        raise UsageError("--up and --down: one of them at a time")
    name, version = _split(asset)
    answer = connection.call(
        connection.lineage.GetLineage,
        pb.GetLineageRequest(
            asset=name,
            version=version,
            direction=pb.LINEAGE_DIRECTION_DOWN if down else pb.LINEAGE_DIRECTION_UP,
        ),
    )
    nodes = {_name(node.ref): node for node in answer.nodes}
    if as_json:
        output.print_json(
            {
                "roots": [_name(ref) for ref in answer.roots],
                "direction": "down" if down else "up",
                "versions": {
                    name: {
                        "kind": kind_name(node.kind),
                        "state": "active" if node.state == asset_service_pb2.ASSET_STATE_ACTIVE else _REVOKED,
                        "constraints_digest": node.constraints_digest.hex(),
                    }
                    for name, node in nodes.items()
                },
                "edges": [
                    {
                        "child": _name(edge.child),
                        "parent": _name(edge.parent),
                        "lease": edge.lease_id or None,
                        "grant": edge.grant_id or None,
                        "recorded": output.instant(edge.create_time.seconds),
                    }
                    for edge in answer.edges
                ],
                "truncated": answer.truncated,
            }
        )
        return
    steps: dict[str, list[tuple[str, str]]] = {}
    for edge in answer.edges:
        here, there = (edge.parent, edge.child) if down else (edge.child, edge.parent)
        steps.setdefault(_name(here), []).append((_name(there), edge.lease_id or "declared"))
    lines: list[str] = []
    shown: set[str] = set()
    for ref in answer.roots:
        lines += _tree(_name(ref), steps, nodes, shown)
    console = output.console()
    for line in lines:
        console.print(output.cell(line))
    if not lines:
        console.print("it has no version yet")
    if answer.truncated:
        console.print("There is more: begin at one of the versions above.")


@app.command(
    help=with_examples(
        "Declare more of what a version was derived from. Parents are added, never removed.\n\n"
        "The version, and all that was derived from it, takes on their constraints; leases that break them end.",
        "asset parents acme/mix@2 acme/notes@1 acme/scans@4",
    )
)
@connected
def parents(
    connection: Connection,
    version: Annotated[str, typer.Argument(metavar="TENANT/NAME@VERSION", help="What was derived.")],
    parent: Annotated[list[str], typer.Argument(metavar="TENANT/NAME@VERSION...", help="From what.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Declare parents."""
    request = pb.DeclareParentsRequest(
        request_id=request_id(), ref=version_ref(version), parents=[version_ref(each) for each in parent]
    )
    response = connection.call(connection.lineage.DeclareParents, request)
    document = {
        "asset": response.version.ref.asset,
        **version_json(response.version),
        "tightened": [_name(ref) for ref in response.tightened],
        "revoked_leases": response.revoked_leases,
    }
    output.show(document, as_json=as_json, title="Parents declared")


@app.command(
    help=with_examples(
        "Demand more of an asset, or of one version: what is named holds besides what holds already.\n\n"
        "Nothing ever becomes freer by this. All that was derived from it becomes as strict, and leases that would not "
        "be granted any more end at once.",
        "asset constrain acme/notes --set classification=4 --set 'sites=[\"ber1\"]'",
        "asset constrain acme/notes@3 --constraints stricter.toml",
    )
)
@connected
def constrain(
    connection: Connection,
    asset: Annotated[str, typer.Argument(metavar="TENANT/NAME[@VERSION]", help="The asset, or one version of it.")],
    *,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=JSON", help="What a field is to demand; repeat for each."),
    ] = None,
    constraints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What is to hold besides, in JSON or TOML.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tighten constraints."""
    name, version = _split(asset)
    document = {} if constraints is None else dict(read_document(constraints))
    document |= assignments(set_ or ())
    try:
        extra = Constraints.from_document(document)
    except ConstraintsError as error:
        raise UsageError(str(error)) from None
    request = asset_service_pb2.ConstrainAssetRequest(
        request_id=request_id(), asset=name, version=version, constraints=constraints_message(extra)
    )
    response = connection.call(connection.assets.ConstrainAsset, request)
    show_asset(
        response.asset,
        as_json=as_json,
        title="Constraints tightened",
        more={
            "tightened": [_name(ref) for ref in response.tightened],
            "revoked_leases": response.revoked_leases,
        },
    )


def _tree(
    root: str,
    steps: Mapping[str, Sequence[tuple[str, str]]],
    nodes: Mapping[str, pb.LineageNode],
    shown: set[str],
) -> list[str]:
    """A version with all that follows, indented; what was shown before is not shown again below."""
    lines: list[str] = []
    # Not recursive: a lineage is as deep as there were jobs.
    waiting = [(root, "", "")]
    while waiting:
        name, indent, by = waiting.pop()
        node = nodes.get(name)
        kind = "" if node is None else f" {kind_name(node.kind)}"
        gone = f" {_REVOKED}" if node is not None and node.state != asset_service_pb2.ASSET_STATE_ACTIVE else ""
        again = name in shown and name in steps
        lines.append(f"{indent}{name}{kind}{gone}{f'  ({by})' if by else ''}{'  (as above)' if again else ''}")
        if again:
            continue
        shown.add(name)
        waiting += [(there, f"{indent}  ", step) for there, step in sorted(steps.get(name, ()), reverse=True)]
    return lines


def _split(text: str) -> tuple[str, int]:
    if "@" not in text:
        return text, 0
    ref = version_ref(text)
    if not ref.version:
        raise UsageError(f"{text}: versions count from 1")
    return ref.asset, ref.version


def _name(ref: AssetRef) -> str:
    return f"{ref.asset}@{ref.version}"
