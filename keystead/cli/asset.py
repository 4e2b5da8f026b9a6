"""``keystead asset``: models and datasets, their rules and their data keys. Needs the role owner of the tenant."""

from __future__ import annotations

import hmac
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from keystead.binding import hpke_seal, owner_key_info
from keystead.cli import output
from keystead.cli.connection import Connection, connected, request_id
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.cli.seal import read_data_key, read_owner_key
from keystead.v1 import asset_service_pb2 as pb
from keystead.v1.asset_ref_pb2 import AssetRef
from sealed.asset import SealedAsset
from sealed.format import key_id

app = typer.Typer(
    no_args_is_help=True, help="Assets: models and datasets, their rules and their data keys. Role: owner."
)

_PAGE: Final = 1_000


class Kind(StrEnum):
    """What an asset is."""

    MODEL = "model"
    DATASET = "dataset"
    CHECKPOINT = "checkpoint"
    ADAPTER = "adapter"


_KINDS: Final = {
    Kind.MODEL: pb.ASSET_KIND_MODEL,
    Kind.DATASET: pb.ASSET_KIND_DATASET,
    Kind.CHECKPOINT: pb.ASSET_KIND_CHECKPOINT,
    Kind.ADAPTER: pb.ASSET_KIND_ADAPTER,
}
_STATES: Final = {pb.ASSET_STATE_ACTIVE: "active", pb.ASSET_STATE_REVOKED: "revoked"}

AssetArgument = Annotated[str, typer.Argument(metavar="TENANT/NAME", help="The asset.")]


@app.command(
    help=with_examples(
        "Register an asset and the rules that travel with it. Its versions are added later.",
        "asset register acme/llm --kind model --classification 4 --purpose inference --allow EU",
        "asset register acme/notes --kind dataset --purpose fine-tuning --allow EEA --forbid LI",
    )
)
@connected
def register(
    connection: Connection,
    asset: AssetArgument,
    *,
    kind: Annotated[Kind, typer.Option(help="What it is.")],
    purpose: Annotated[
        list[str], typer.Option("--purpose", metavar="PURPOSE", help="What it may be used for; repeat for each.")
    ],
    allow: Annotated[
        list[str],
        typer.Option(
            "--allow", metavar="CODE", help="Where it may be opened: ISO 3166 codes, EU or EEA; repeat for each."
        ),
    ],
    forbid: Annotated[
        list[str] | None,
        typer.Option("--forbid", metavar="CODE", help="Where it may not, even if allowed by a group; repeat for each."),
    ] = None,
    classification: Annotated[int, typer.Option(min=0, max=4, help="Confidentiality: 0 public, to 4 crown jewel.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Register an asset."""
    request = pb.RegisterAssetRequest(
        request_id=request_id(),
        asset=asset,
        kind=_KINDS[kind],
        classification=classification,
        purposes=purpose,
        residency=pb.Residency(allowed=allow, forbidden=forbid or ()),
    )
    response = connection.call(connection.assets.RegisterAsset, request)
    output.show(asset_json(response.asset), as_json=as_json, title="Asset registered")


@app.command(
    "add-version",
    help=with_examples(
        "Add a sealed version: its manifest's digest, and its data key, wrapped to the broker by HPKE.\n\n"
        "The files stay where they are. The key leaves this machine wrapped, and no one but the broker can open it.",
        "asset add-version ./llm-v1.sealed --key-file llm-v1.key --owner-key owner.pub.pem",
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
    as_json: JsonOption = False,
) -> None:
    """Add a sealed version."""
    key = read_data_key(key_file)
    manifest = SealedAsset.load(folder, owner=read_owner_key(owner_key)).manifest
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
    )
    response = connection.call(connection.assets.AddAssetVersion, request)
    output.show(
        {"asset": manifest.asset, **version_json(response.version)}, as_json=as_json, title="Asset version added"
    )


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
                asset.classification,
                ", ".join(asset.purposes),
                residency(asset.residency),
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
    output.show(asset_json(found, versions=False), as_json=False)
    output.print_table(
        ("version", "key", "manifest digest", "added"),
        (
            (
                version.ref.version,
                version.key_id,
                version.manifest_digest.hex(),
                output.instant(version.create_time.seconds),
            )
            for version in found.versions
        ),
        empty="it has no version yet: `keystead asset add-version` adds one",
    )


@app.command(
    help=with_examples("Stop every further release of an asset's keys, for ever.", "asset revoke acme/llm --yes")
)
@connected
def revoke(
    connection: Connection,
    asset: AssetArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where there is no terminal.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke an asset."""
    output.confirm(f"Revoke {asset}? No key of it is ever released again.", yes=yes)
    response = connection.call(
        connection.assets.RevokeAsset, pb.RevokeAssetRequest(request_id=request_id(), asset=asset)
    )
    output.show(asset_json(response.asset, versions=False), as_json=as_json, title="Asset revoked")


def kind_name(value: int) -> str:
    """The word for an asset's kind; ``unknown`` for one that this release does not know."""
    return next((kind.value for kind, number in _KINDS.items() if number == value), "unknown")


def residency(rule: pb.Residency) -> str:
    """A residency rule in words."""
    allowed = ", ".join(rule.allowed) or "nowhere"
    return f"{allowed}, not {', '.join(rule.forbidden)}" if rule.forbidden else allowed


def asset_json(asset: pb.Asset, *, versions: bool = True) -> dict[str, Json]:
    """An asset as it stands in ``--json`` output."""
    document: dict[str, Json] = {
        "asset": asset.asset,
        "kind": kind_name(asset.kind),
        "state": _STATES.get(asset.state, "unknown"),
        "classification": asset.classification,
        "purposes": list(asset.purposes),
        "allowed": list(asset.residency.allowed),
        "forbidden": list(asset.residency.forbidden),
        "registered": output.instant(asset.create_time.seconds),
    }
    if versions:
        document["versions"] = [version_json(version) for version in asset.versions]
    return document


def version_json(version: pb.AssetVersion) -> dict[str, Json]:
    """An asset's version as it stands in ``--json`` output."""
    return {
        "version": version.ref.version,
        "key_id": version.key_id,
        "manifest_digest": version.manifest_digest.hex(),
        "added": output.instant(version.create_time.seconds),
    }
