"""``keystead node``: which hardware identities stand together, and where. Needs the role operator."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from keystead.cli import output
from keystead.cli.connection import Connection, connected, request_id
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.v1 import node_service_pb2 as pb

app = typer.Typer(
    no_args_is_help=True, help="Nodes: which hardware identities stand together, and where. Role: operator."
)

_PAGE: Final = 1_000
_MAX_FILE: Final = 1 << 20
_DEVICE: Final = re.compile(r"(?P<slot>[a-z]+[0-9]+)=(?P<kind>[a-z][a-z0-9-]*):(?P<value>[0-9a-fA-F]+)\Z")
_FORM: Final = "SLOT=KIND:HEX, for example cpu0=amd-chip-id:9f3a…"


class State(StrEnum):
    """Whether a node may receive keys."""

    ACTIVE = "active"
    QUARANTINED = "quarantined"
    RETIRED = "retired"


class Form(StrEnum):
    """What a file of nodes is."""

    CSV = "csv"
    JSON = "json"


class Custody(StrEnum):
    """In whose hands a node's hardware is."""

    IN_TRANSIT = "in-transit"
    INSTALLED = "installed"
    MAINTENANCE = "maintenance"
    DECOMMISSIONED = "decommissioned"


_CUSTODIES: Final = {
    Custody.IN_TRANSIT: pb.NODE_CUSTODY_IN_TRANSIT,
    Custody.INSTALLED: pb.NODE_CUSTODY_INSTALLED,
    Custody.MAINTENANCE: pb.NODE_CUSTODY_MAINTENANCE,
    Custody.DECOMMISSIONED: pb.NODE_CUSTODY_DECOMMISSIONED,
}

_STATES: Final = {
    State.ACTIVE: pb.NODE_STATE_ACTIVE,
    State.QUARANTINED: pb.NODE_STATE_QUARANTINED,
    State.RETIRED: pb.NODE_STATE_RETIRED,
}


def parse_device(text: str) -> pb.DeviceIdentity:
    """Read one device from ``SLOT=KIND:HEX``.

    Raises:
        UsageError: another form.
    """
    match = _DEVICE.match(text)
    if match is None:
        raise UsageError(f"--device {text!a:.80}: write {_FORM}")
    return pb.DeviceIdentity(slot=match["slot"], kind=match["kind"], value=match["value"].lower())


def read_devices(file: Path) -> list[pb.DeviceIdentity]:
    """Read devices from a JSON file: ``{"cpu0": "amd-chip-id:HEX", "gpu0": "nvidia-gpu:HEX"}``.

    Raises:
        UsageError: too long, not JSON, or of another form.
        OSError: it cannot be read.
    """
    with file.open("rb") as source:
        data = source.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise UsageError(f"{file}: more than {_MAX_FILE} bytes")
    try:
        document = json.loads(data)
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {error}") from None
    if not isinstance(document, dict) or not document:
        raise UsageError(f'{file}: not an object of devices: {{"cpu0": "amd-chip-id:HEX", …}}')
    return [parse_device(f"{slot}={identity}") for slot, identity in document.items()]


@app.command(
    help=with_examples(
        "Enrol a node by the hardware identities of its CPU, GPUs and switches.",
        "node enrol ber1-n01 --site ber1 --device cpu0=amd-chip-id:9f3a… --device gpu0=nvidia-gpu:41c7…",
        "node enrol ber1-n02 --site ber1 --file ber1-n02.json --rack r07 --power-zone a --cooling-zone west",
        "node enrol ber1-n03-p0 --site ber1 --partition p0 --file ber1-n03-p0.json",
    )
)
@connected
def enrol(
    connection: Connection,
    node: Annotated[str, typer.Argument(help="The node's id.")],
    *,
    site: Annotated[str, typer.Option(metavar="SITE", help="The site it stands on.")],
    device: Annotated[
        list[str] | None, typer.Option("--device", metavar="SLOT=KIND:HEX", help="One device; repeat for each.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="JSON object from slot to KIND:HEX.")
    ] = None,
    partition: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which confidential VM partition of its host it is, where the host carries several: they share the "
            "CPU's identity, and each has devices of its own.",
        ),
    ] = "",
    custody: Annotated[
        Custody, typer.Option(help="In whose hands the hardware is; only installed nodes receive keys.")
    ] = Custody.INSTALLED,
    rack: Annotated[str, typer.Option(metavar="NAME", help="The rack.")] = "",
    power_zone: Annotated[str, typer.Option(metavar="ZONE", help="The power feed that it hangs on.")] = "",
    cooling_zone: Annotated[str, typer.Option(metavar="ZONE", help="The cooling loop.")] = "",
    network_zone: Annotated[str, typer.Option(metavar="ZONE", help="The network.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Enrol a node."""
    devices = [parse_device(text) for text in device or ()]
    if file is not None:
        devices += read_devices(file)
    if not devices:
        raise UsageError(f"no device: give --device {_FORM}, or --file FILE")
    response = connection.call(
        connection.nodes.EnrolNode,
        pb.EnrolNodeRequest(
            request_id=request_id(),
            node=pb.Node(
                node_id=node,
                site_id=site,
                devices=devices,
                partition=partition,
                custody=_CUSTODIES[custody],
                rack=rack,
                power_zone=power_zone,
                cooling_zone=cooling_zone,
                network_zone=network_zone,
            ),
        ),
    )
    _show(response.node, as_json=as_json, title="Node enrolled")


@app.command(
    "import",
    help=with_examples(
        "Enrol many nodes from a CSV or JSON file, all or none; - reads standard input. Every mistake is told by its "
        "line. Repeating an import with its --request-id is safe.",
        "node import hall-7.csv --dry-run",
        "node import hall-7.csv",
        "inventory | keystead node import - --format json",
    ),
)
@connected
def import_(
    connection: Connection,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or JSON, see docs/operations.md; - is stdin.")],
    *,
    form: Annotated[
        Form | None, typer.Option("--format", help="What the file is; by its name where this is not given.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")] = False,
    request: Annotated[
        str | None, typer.Option("--request-id", metavar="UUID", help="The id of an import to repeat.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Enrol many nodes."""
    from keystead.cli.node_import import import_nodes

    import_nodes(
        connection, file, form=form.value if form else None, dry_run=dry_run, request_id=request, as_json=as_json
    )


@app.command("list", help=with_examples("List the enrolled nodes.", "node list", "node list --json"))
@connected
def list_(connection: Connection, *, as_json: JsonOption = False) -> None:
    """List the nodes."""
    nodes: list[pb.Node] = []
    token = ""
    while True:
        page = connection.call(connection.nodes.ListNodes, pb.ListNodesRequest(page_size=_PAGE, page_token=token))
        nodes += page.nodes
        token = page.next_page_token
        if not token:
            break
    if as_json:
        output.print_json([node_json(node) for node in nodes])
        return
    output.print_table(
        ("node", "site", "rack", "partition", "state", "custody", "devices"),
        (
            (
                node.node_id,
                node.site_id,
                node.rack,
                node.partition,
                state_name(node.state),
                custody_name(node.custody),
                " ".join(sorted(d.slot for d in node.devices)),
            )
            for node in nodes
        ),
        empty="no node is enrolled",
    )


@app.command(
    help=with_examples(
        "Change whether a node may receive keys: active, quarantined or retired (which is for ever).",
        "node state ber1-n01 quarantined --reason 'open chassis seal'",
    )
)
@connected
def state(
    connection: Connection,
    node: Annotated[str, typer.Argument(help="The node's id.")],
    to: Annotated[State, typer.Argument(help="The new state.")],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
    as_json: JsonOption = False,
) -> None:
    """Change a node's state."""
    response = connection.call(
        connection.nodes.SetNodeState,
        pb.SetNodeStateRequest(request_id=request_id(), node_id=node, state=_STATES[to], reason=reason),
    )
    _show(response.node, as_json=as_json, title="Node changed")


@app.command(
    help=with_examples(
        "Say in whose hands a node's hardware is: in-transit, installed, maintenance, decommissioned (for ever). "
        "Only installed nodes receive keys; leaving installed ends the node's leases.",
        "node custody ber1-n01 maintenance --reason 'fan replaced by vendor'",
    )
)
@connected
def custody(
    connection: Connection,
    node: Annotated[str, typer.Argument(help="The node's id.")],
    to: Annotated[Custody, typer.Argument(help="In whose hands it is now.")],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
    as_json: JsonOption = False,
) -> None:
    """Change a node's custody."""
    response = connection.call(
        connection.nodes.SetNodeCustody,
        pb.SetNodeCustodyRequest(request_id=request_id(), node_id=node, custody=_CUSTODIES[to], reason=reason),
    )
    _show(response.node, as_json=as_json, title="Node changed")


@app.command(
    help=with_examples(
        "Move a node within its site, or to another one: then its leases end, and it is in transit until somebody "
        "says that it is installed.",
        "node move ber1-n01 --rack r08 --reason 'row 3 rebuilt'",
        "node move ber1-n01 --site muc1 --reason 'sold to Munich'",
    )
)
@connected
def move(
    connection: Connection,
    node: Annotated[str, typer.Argument(help="The node's id.")],
    *,
    site: Annotated[str, typer.Option(metavar="SITE", help="The site, where it is another one.")] = "",
    rack: Annotated[str | None, typer.Option(metavar="NAME", help="The rack.")] = None,
    power_zone: Annotated[str | None, typer.Option(metavar="ZONE", help="The power feed.")] = None,
    cooling_zone: Annotated[str | None, typer.Option(metavar="ZONE", help="The cooling loop.")] = None,
    network_zone: Annotated[str | None, typer.Option(metavar="ZONE", help="The network.")] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
    as_json: JsonOption = False,
) -> None:
    """Move a node."""
    response = connection.call(
        connection.nodes.MoveNode,
        pb.MoveNodeRequest(
            request_id=request_id(),
            node_id=node,
            site_id=site,
            rack=rack,
            power_zone=power_zone,
            cooling_zone=cooling_zone,
            network_zone=network_zone,
            reason=reason,
        ),
    )
    _show(response.node, as_json=as_json, title="Node moved")


@app.command(
    help=with_examples(
        "Exchange devices of a node. What is taken out never comes back; what comes in must be new to the estate. "
        "The node's leases end.",
        "node devices ber1-n01 --remove gpu3 --add gpu3=nvidia-gpu:41c7… --reason 'RMA 4711'",
    )
)
@connected
def devices(
    connection: Connection,
    node: Annotated[str, typer.Argument(help="The node's id.")],
    *,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="SLOT", help="A slot to empty; repeat for each.")
    ] = None,
    add: Annotated[
        list[str] | None, typer.Option("--add", metavar="SLOT=KIND:HEX", help="A device that comes in; repeat.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
    as_json: JsonOption = False,
) -> None:
    """Exchange devices."""
    response = connection.call(
        connection.nodes.ChangeNodeDevices,
        pb.ChangeNodeDevicesRequest(
            request_id=request_id(),
            node_id=node,
            remove=remove or (),
            add=[parse_device(text) for text in add or ()],
            reason=reason,
        ),
    )
    _show(response.node, as_json=as_json, title="Node changed")


def custody_name(value: int) -> str:
    """The word for a node's custody; ``unknown`` for one that this release does not know."""
    return next((custody.value for custody, number in _CUSTODIES.items() if number == value), "unknown")


def state_name(value: int) -> str:
    """The word for a node's state; ``unknown`` for one that this release does not know."""
    return next((state.value for state, number in _STATES.items() if number == value), "unknown")


def node_json(node: pb.Node) -> dict[str, Json]:
    """A node as it stands in ``--json`` output."""
    return {
        "node": node.node_id,
        "site": node.site_id,
        "state": state_name(node.state),
        "custody": custody_name(node.custody),
        "partition": node.partition,
        "rack": node.rack,
        "power_zone": node.power_zone,
        "cooling_zone": node.cooling_zone,
        "network_zone": node.network_zone,
        "devices": {device.slot: f"{device.kind}:{device.value}" for device in node.devices},
    }


def _show(node: pb.Node, *, as_json: bool, title: str) -> None:
    if as_json:
        output.print_json(node_json(node))
        return
    console = output.console()
    console.print(
        f"{title}: {node.node_id} on {node.site_id}, {state_name(node.state)}, {custody_name(node.custody)}",
        markup=False,
    )
    output.print_table(
        ("slot", "kind", "identity"), ((device.slot, device.kind, device.value) for device in node.devices)
    )
