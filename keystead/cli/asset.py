"""``keystead asset``: models and datasets, their constraints, their data keys. Needs the role owner of the tenant."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from keybroker.constraints import BOTTOM, MAX_CLASSIFICATION, MAX_TEXT, Constraints, join
from keybroker.errors import ConstraintsError
from keybroker.services.convert import constraints as constraints_of
from keybroker.services.convert import constraints_message
from keystead.binding import hpke_seal, owner_key_info
from keystead.cli import instants, output
from keystead.cli.amounts import parse_amounts
from keystead.cli.asset_kind import Kind
from keystead.cli.connection import Connection, connected, request_id
from keystead.cli.descriptions.draft import Draft
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.cli.seal import read_data_key, read_owner_key
from keystead.toml import read_toml
from keystead.v1 import asset_service_pb2 as pb
from keystead.v1 import constraints_pb2, lineage_service_pb2
from keystead.v1.asset_ref_pb2 import AssetRef
from sealed.asset import SealedAsset
from sealed.format import key_id

app = typer.Typer(
    no_args_is_help=True, help="Assets: models and datasets, their constraints and their data keys. Role: owner."
)

_PAGE: Final = 1_000


class AssuranceName(StrEnum):
    """How well a node must have proven what it is."""

    SIMULATED = "simulated"
    CPU = "cpu"
    CPU_AND_DEVICES = "cpu-and-devices"


_KINDS: Final = {
    Kind.MODEL: pb.ASSET_KIND_MODEL,
    Kind.DATASET: pb.ASSET_KIND_DATASET,
    Kind.CHECKPOINT: pb.ASSET_KIND_CHECKPOINT,
    Kind.ADAPTER: pb.ASSET_KIND_ADAPTER,
    Kind.PREPROCESSED: pb.ASSET_KIND_PREPROCESSED,
    Kind.FEATURES: pb.ASSET_KIND_FEATURES,
    Kind.EVALUATION_SET: pb.ASSET_KIND_EVALUATION_SET,
}
_STATES: Final = {pb.ASSET_STATE_ACTIVE: "active", pb.ASSET_STATE_REVOKED: "revoked"}

AssetArgument = Annotated[str, typer.Argument(metavar="TENANT/NAME", help="The asset.")]


@app.command(
    help=with_examples(
        "Register an asset and the constraints that travel with it. Its versions are added later.\n\n"
        "Options and --constraints hold together: where both speak of a field, the stricter counts.",
        "asset register acme/llm --kind model --classification 4 --purpose inference --allow EU",
        "asset register acme/notes --kind dataset --purpose fine-tuning --allow EEA --forbid LI --node-ceiling 16",
        "asset register acme/scans --kind dataset --constraints scans.toml",
    )
)
@connected
def register(
    connection: Connection,
    asset: AssetArgument,
    *,
    kind: Annotated[Kind, typer.Option(help="What it is.")],
    purpose: Annotated[
        list[str] | None, typer.Option("--purpose", metavar="PURPOSE", help="What it may be used for; repeat for each.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CODE",
            help="Where it may be opened: ISO 3166 codes, EU, EEA, * for anywhere; repeat for each.",
        ),
    ] = None,
    forbid: Annotated[
        list[str] | None,
        typer.Option("--forbid", metavar="CODE", help="Where it may not, even if allowed by a group; repeat for each."),
    ] = None,
    classification: Annotated[
        int | None,
        typer.Option(min=0, max=4, help="Confidentiality: 0 public, to 4 crown jewel.", show_default="4"),
    ] = None,
    allow_exposure: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-exposure",
            metavar="CODE",
            help="Whose law may reach the site's operator and its owners; repeat for each.",
        ),
    ] = None,
    forbid_exposure: Annotated[
        list[str] | None, typer.Option("--forbid-exposure", metavar="CODE", help="Whose law may not; repeat for each.")
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option("--site", metavar="SITE", help="Only at this site; repeat for each.")
    ] = None,
    retain: Annotated[
        str | None, typer.Option("--retain", metavar="DURATION", help="How long it may be opened: 30d, 8760h.")
    ] = None,
    assurance: Annotated[AssuranceName | None, typer.Option(help="What a node must at least have proven.")] = None,
    node_ceiling: Annotated[
        int | None, typer.Option(min=1, help="How many nodes may hold its keys at a time, over all jobs.")
    ] = None,
    copy_ceiling: Annotated[
        int | None, typer.Option(min=1, help="How many leases may cover it at a time, over all jobs.")
    ] = None,
    project: Annotated[
        list[str] | None, typer.Option("--project", metavar="PROJECT", help="Only for this project; repeat for each.")
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="USER", help="Only for this user; repeat for each.")
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage",
            metavar="STAGE",
            help="Only at this stage: ingestion, training, inference and so on; repeat for each.",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="SHA256", help="Only by this code or container image; repeat for each."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option("--network", metavar="MODE", help="Only so connected: none, fabric, egress; repeat for each."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="NAME=N",
            help="At most so much: key_seconds, opens, bytes_opened, tokens_served; repeat for each.",
        ),
    ] = None,
    obligation: Annotated[
        list[str] | None,
        typer.Option(
            "--obligation",
            metavar="CODE[:NAME=N]",
            help="A duty: no_logits, no_egress, output_ceiling:tokens=N; repeat for each.",
        ),
    ] = None,
    constraints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Constraints in JSON or TOML, by the names in docs/concepts.md.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Register an asset."""
    document: dict[str, object] = {
        "classification": classification,
        "purposes": purpose,
        "residency": _areas(allow, forbid),
        "exposure": _areas(allow_exposure, forbid_exposure),
        "sites": site,
        "retain_until": None if retain is None else instants.now() + instants.parse_duration(retain),
        "assurance": None if assurance is None else assurance.value,
        "node_ceiling": node_ceiling,
        "copy_ceiling": copy_ceiling,
        "projects": project,
        "users": user,
        "stages": stage,
        "images": image,
        "networks": network,
        "budgets": parse_amounts(budget or (), "--budget"),
        "obligations": _obligations(obligation or ()),
    }
    stated = read_constraints(constraints) if constraints is not None else BOTTOM
    if classification is None and "classification" not in stated.to_document():
        document["classification"] = MAX_CLASSIFICATION
    demanded = join(stated, _constraints({name: value for name, value in document.items() if value}, "option"))
    request = pb.RegisterAssetRequest(
        request_id=request_id(), asset=asset, kind=_KINDS[kind], constraints=constraints_message(demanded)
    )
    response = connection.call(connection.assets.RegisterAsset, request)
    show_asset(response.asset, as_json=as_json, title="Asset registered")


@app.command(
    "add-version",
    help=with_examples(
        "Add a sealed version: its manifest's digest, and its data key, wrapped to the broker by HPKE.\n\n"
        "The files stay where they are. The key leaves this machine wrapped, and no one but the broker can open it.",
        "asset add-version ./llm-v1.sealed --key-file llm-v1.key --owner-key owner.pub.pem",
        "asset add-version ./corpus.sealed --draft draft.json --key-file corpus.key --owner-key owner.pub.pem",
    ),
)
@connected
def add_version(
    connection: Connection,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that `keystead seal` wrote.")],
    *,
    key_file: Annotated[Path, typer.Option(metavar="FILE", help="The data key: 32 bytes.")],
    owner_key: Annotated[
        Path, typer.Option(metavar="PEM", help="The owner's public key: the manifest must be signed by it.")
    ],
    parent: Annotated[
        list[str] | None,
        typer.Option(
            "--parent",
            metavar="TENANT/NAME@VERSION",
            help="What it was derived from: it takes on that version's constraints; repeat for each.",
        ),
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A draft by `keystead asset import`: its inputs are declared as parents, and the record cites the "
            "description that it was made from.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a sealed version."""
    key = read_data_key(key_file)
    manifest = SealedAsset.load(folder, owner=read_owner_key(owner_key)).manifest
    parents, description = list(parent or ()), b""
    if draft is not None:
        drafted = Draft.load(draft)
        drafted.check_sealed(manifest)
        parents += [ref for ref in drafted.parents() if ref not in parents]
        description = bytes.fromhex(drafted.description_digest)
    if not hmac.compare_digest(key_id(key), manifest.key_id):
        raise UsageError(f"{key_file}: is key {key_id(key)}, {folder} was sealed with {manifest.key_id}")
    wrapping = connection.call(connection.assets.GetWrappingKey, pb.GetWrappingKeyRequest())
    info = owner_key_info(broker=wrapping.broker, ref=manifest.ref, key_id=manifest.key_id)
    request = pb.AddAssetVersionRequest(
        request_id=request_id(),
        ref=AssetRef(asset=manifest.asset, version=manifest.version),
        key_id=manifest.key_id,
        manifest_digest=manifest.digest(),
        wrapped_key=hpke_seal(key, public_key=wrapping.hpke_key, info=info),
        parents=[version_ref(each) for each in parents],
        description_digest=description,
    )
    response = connection.call(connection.assets.AddAssetVersion, request)
    document = {"asset": manifest.asset, **version_json(response.version)}
    if draft is not None:
        document |= {"description_digest": description.hex(), "declared_parents": parents}
    output.show(document, as_json=as_json, title="Asset version added")


@app.command("list", help=with_examples("List the assets of this tenant.", "asset list --json"))
@connected
def list_(connection: Connection, *, as_json: JsonOption = False) -> None:
    """List the assets."""
    assets: list[pb.Asset] = []
    token = ""
    while True:
        page = connection.call(connection.assets.ListAssets, pb.ListAssetsRequest(page_size=_PAGE, page_token=token))
        assets += page.assets
        token = page.next_page_token
        if not token:
            break
    if as_json:
        output.print_json([asset_json(asset, versions=False) for asset in assets])
        return
    output.print_table(
        ("asset", "kind", "state", "class", "purposes", "may be opened in"),
        (
            (
                asset.asset,
                kind_name(asset.kind),
                _STATES.get(asset.state, "unknown"),
                asset.constraints.classification,
                ", ".join(asset.constraints.purposes.names),
                residency(asset.constraints.residency),
            )
            for asset in assets
        ),
        empty="no asset is registered",
    )


@app.command(help=with_examples("Show an asset, its rules and its versions.", "asset show acme/llm"))
@connected
def show(connection: Connection, asset: AssetArgument, *, as_json: JsonOption = False) -> None:
    """Show an asset."""
    found = connection.call(connection.assets.GetAsset, pb.GetAssetRequest(asset=asset)).asset
    if as_json:
        output.print_json(asset_json(found))
        return
    show_asset(found, as_json=False)
    output.print_table(
        ("version", "state", "key", "manifest digest", "added"),
        (
            (
                version.ref.version,
                _STATES.get(version.state, "unknown"),
                version.key_id,
                version.manifest_digest.hex(),
                output.instant(version.create_time.seconds),
            )
            for version in found.versions
        ),
        empty="it has no version yet: `keystead asset add-version` adds one",
    )


@app.command(
    help=with_examples(
        "Stop every further release of an asset's keys, for ever; its live leases end.\n\n"
        "With --descendants the same happens to every version that was derived from it; they are listed first.",
        "asset revoke acme/llm --yes",
        "asset revoke acme/notes --descendants",
    )
)
@connected
def revoke(
    connection: Connection,
    asset: AssetArgument,
    *,
    descendants: Annotated[bool, typer.Option("--descendants", help="And whatever was derived from it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke an asset."""
    if descendants and not as_json:
        _list_descendants(connection, asset)
    also = " and whatever was derived from it" if descendants else ""
    output.confirm(f"Revoke {asset}{also}? No key of it is ever released again.", yes=yes)
    response = connection.call(
        connection.assets.RevokeAsset,
        pb.RevokeAssetRequest(request_id=request_id(), asset=asset, descendants=descendants),
    )
    more = {"descendants": [f"{each.asset}@{each.version}" for each in response.descendants]} if descendants else None
    show_asset(response.asset, as_json=as_json, title="Asset revoked", more=more)


def show_asset(asset: pb.Asset, *, as_json: bool, title: str = "", more: Mapping[str, Json] | None = None) -> None:
    """Print an asset, and `more` about it; people read each constraint on a line of its own."""
    document = asset_json(asset, versions=as_json)
    if not as_json:
        document = {name: value for name, value in document.items() if name != "constraints"}
        document |= constraints_json(asset.constraints)
        if asset.constraints.HasField("residency"):
            document["residency"] = residency(asset.constraints.residency)
        if asset.constraints.HasField("exposure"):
            document["exposure"] = residency(asset.constraints.exposure)
        if asset.constraints.HasField("retain_until"):
            document["retain_until"] = output.instant(asset.constraints.retain_until.seconds)
    output.show({**document, **(more or {})}, as_json=as_json, title=title)


def _list_descendants(connection: Connection, asset: str) -> None:
    answer = connection.call(
        connection.lineage.GetLineage,
        lineage_service_pb2.GetLineageRequest(asset=asset, direction=lineage_service_pb2.LINEAGE_DIRECTION_DOWN),
    )
    names = sorted({f"{node.ref.asset}@{node.ref.version}" for node in answer.nodes if node.ref.asset != asset})
    more = ("", "and more") if answer.truncated else ()
    output.print_table(("derived from it",), ((name,) for name in (*names, *more)), empty="nothing was derived from it")


def version_ref(text: str) -> AssetRef:
    """``TENANT/NAME@VERSION`` as a message.

    Raises:
        UsageError: another form.
    """
    name, at, number = text.rpartition("@")
    if not at or not number.isascii() or not number.isdigit():
        raise UsageError(f"{text}: not TENANT/NAME@VERSION")
    return AssetRef(asset=name, version=int(number))


def kind_name(value: int) -> str:
    """The word for an asset's kind; ``unknown`` for one that this release does not know."""
    return next((kind.value for kind, number in _KINDS.items() if number == value), "unknown")


def residency(rule: constraints_pb2.Areas) -> str:
    """A residency rule in words."""
    allowed = " and ".join(" or ".join(clause.areas) or "nowhere" for clause in rule.allowed) or "anywhere"
    return f"{allowed}, not {', '.join(rule.forbidden)}" if rule.forbidden else allowed


def read_constraints(path: Path) -> Constraints:
    """Read constraints from a JSON or TOML file.

    Raises:
        UsageError: the file cannot be read, or a field is wrong; it names file and field.
    """
    return _constraints(read_document(path), str(path))


def read_document(path: Path) -> dict[str, object]:
    """Read a JSON or TOML file that holds an object.

    Raises:
        UsageError: the file cannot be read, or holds none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    try:
        document = read_toml(data, limit=MAX_TEXT) if path.suffix == ".toml" else _json(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: neither JSON nor, where it is named .toml, TOML: {error}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path}: constraints: must be an object")
    return document


def _json(data: bytes) -> object:
    if len(data) > MAX_TEXT:
        raise ValueError(f"more than {MAX_TEXT} bytes")

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("a member is there twice")
        return members

    return json.loads(data, object_pairs_hook=once)


def _constraints(document: object, source: str) -> Constraints:
    try:
        return Constraints.from_document(document)
    except ConstraintsError as error:
        raise UsageError(f"{source}: {error}") from None


def _areas(allowed: list[str] | None, forbidden: list[str] | None) -> dict[str, object]:
    areas: dict[str, object] = {}
    if allowed:
        areas["allowed"] = [allowed]
    if forbidden:
        areas["forbidden"] = forbidden
    return areas


def _obligations(texts: Iterable[str]) -> dict[str, dict[str, int]]:
    duties: dict[str, dict[str, int]] = {}
    for text in texts:
        code, _, params = text.partition(":")
        if code in duties:
            raise UsageError(f"--obligation {text!r}: {code} is there twice")
        duties[code] = parse_amounts(params.split(",") if params else (), "--obligation")
    return duties


def constraints_json(message: constraints_pb2.Constraints) -> dict[str, Json]:
    """Constraints as they stand in ``--json`` output, and as ``--constraints`` reads them."""
    return constraints_of(message).to_document()


def asset_json(asset: pb.Asset, *, versions: bool = True) -> dict[str, Json]:
    """An asset as it stands in ``--json`` output."""
    document: dict[str, Json] = {
        "asset": asset.asset,
        "kind": kind_name(asset.kind),
        "state": _STATES.get(asset.state, "unknown"),
        "constraints": constraints_json(asset.constraints),
        "registered": output.instant(asset.create_time.seconds),
    }
    if versions:
        document["versions"] = [version_json(version) for version in asset.versions]
    return document


def version_json(version: pb.AssetVersion) -> dict[str, Json]:
    """An asset's version as it stands in ``--json`` output."""
    return {
        "version": version.ref.version,
        "state": _STATES.get(version.state, "unknown"),
        "key_id": version.key_id,
        "manifest_digest": version.manifest_digest.hex(),
        "added": output.instant(version.create_time.seconds),
        "constraints": constraints_json(version.constraints),
    }
