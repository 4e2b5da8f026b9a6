"""``keystead asset declassify`` and ``keystead asset approvers``: relaxing what data demand takes several people.

``show``, ``approve`` and ``approvers key`` need no broker: a statement travels as a file from its author to its
approvers and back. What an approver is shown is read from the very bytes that are signed. The rest needs the role
owner.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from attester.errors import AccessDeniedError, RequestRefusedError
from keybroker import approvers as approver_sets
from keybroker import declassification
from keybroker.approvers import ApproverSet
from keybroker.constraints import FIELDS, Constraints
from keybroker.declassification import Declassification
from keybroker.errors import ConstraintsError
from keybroker.services.convert import constraints as constraints_of
from keybroker.statements import Statement
from keystead.binding import AssetRef, BindingError
from keystead.cli import instants, output, signing
from keystead.cli.connection import Connection, connected, request_id
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.v1 import asset_service_pb2
from keystead.v1 import declassification_service_pb2 as pb

app = typer.Typer(
    no_args_is_help=True,
    help="Relax what a version demands, by a statement that several approvers sign. Role: owner.",
)
approvers_app = typer.Typer(
    no_args_is_help=True, help="Who may approve declassifications, and how many of them must. Role: owner."
)

_PAGE: Final = 1_000
_STATES: Final = {
    pb.DECLASSIFICATION_STATE_PROPOSED: "proposed",
    pb.DECLASSIFICATION_STATE_APPLIED: "applied",
}

VersionArgument = Annotated[str, typer.Argument(metavar="TENANT/NAME@VERSION", help="The asset version.")]
StatementArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The statement, with its signatures so far.")]
KeyOption = Annotated[Path, typer.Option("--key", metavar="PATH", help="The approver's private key.")]
NameOption = Annotated[
    str, typer.Option("--name", metavar="NAME", help="The approver's name, as in their certificate.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask: what is signed was looked at before.")]


@app.command(
    help=with_examples(
        "Propose other constraints for one version, and write the statement that approvers are to sign.\n\n"
        "Only the fields that are named change. What was derived from the version keeps its own constraints.",
        "asset declassify propose acme/notes@3 --set classification=1 --drop stages --reason 'anonymised, audit 12'",
        "asset declassify propose acme/notes@3 --constraints open.toml --reason 'released' --valid 14d",
    )
)
@connected
def propose(
    connection: Connection,
    version: VersionArgument,
    *,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=JSON", help="A field's new value, in JSON; repeat for each."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="FIELD", help="A field that is to demand nothing; repeat.")
    ] = None,
    constraints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fields with their new values, in JSON or TOML; others stay.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the approvers and the record.")],
    valid: Annotated[str, typer.Option(metavar="DURATION", help="How long it may wait for signatures.")] = "14d",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; NAME-VERSION.declassify.json.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Propose a declassification."""
    ref = _ref(version)
    found = connection.call(connection.assets.GetAsset, asset_service_pb2.GetAssetRequest(asset=ref.asset)).asset
    present = [each for each in found.versions if each.ref.version == ref.version]
    if not present:
        raise UsageError(f"{ref}: there is no such version")
    before = constraints_of(present[0].constraints)
    wanted = Declassification(
        ref=ref,
        serial=1 + sum(1 for each in _all(connection, ref) if each.state == pb.DECLASSIFICATION_STATE_APPLIED),
        before=before,
        after=_changed(before, set_ or (), drop or (), constraints),
        reason=reason,
        not_after=instants.now() + instants.parse_duration(valid),
    )
    statement = wanted.statement(author=_principal(connection))
    path = out or Path(f"{ref.asset.partition('/')[2]}-{ref.version}.declassify.json")
    signing.StatementFile(statement, ()).write(path, replace=False)
    request = pb.ProposeDeclassificationRequest(request_id=request_id(), statement=statement.payload)
    try:
        connection.call(connection.declassifications.ProposeDeclassification, request)
    except (AccessDeniedError, RequestRefusedError):
        path.unlink(missing_ok=True)  # what the broker did not take is nothing to sign
        raise
    if as_json:
        output.print_json({"file": str(path), **statement_json(statement)})
        return
    _show(statement, title=f"Proposed, and written to {path}")
    output.console().print(
        output.cell(f"Next: the approvers sign it: keystead asset declassify approve {path} --key KEY --name NAME")
    )


@app.command(
    help=with_examples(
        "Show a statement file: everything that is signed, and who has signed.",
        "asset declassify show notes-3.declassify.json",
    )
)
def show(file: StatementArgument, *, as_json: JsonOption = False) -> None:
    """Show a statement."""
    loaded = signing.StatementFile.load(file)
    _check(loaded.statement)
    if as_json:
        output.print_json({**statement_json(loaded.statement), "signers": list(loaded.signers)})
        return
    _show(loaded.statement, title=f"{file}: what is signed, all of it")
    output.console().print(output.cell(f"Signed so far by: {', '.join(loaded.signers) or 'nobody'}"))


@app.command(
    help=with_examples(
        "Sign a declassification, or a set of approvers. Shows everything that is signed first.",
        "asset declassify approve notes-3.declassify.json --key bob.pem --name bob",
    )
)
def approve(
    file: StatementArgument,
    *,
    key_file: KeyOption,
    name: NameOption,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sign a statement as an approver."""
    from keybroker.keys.signing import SigningKey

    loaded = signing.StatementFile.load(file)
    statement = loaded.statement
    _check(statement)
    if name in loaded.signers:
        raise UsageError(f"{file}: {name} has signed it already")
    if statement.kind == declassification.KIND and name == statement.author:
        raise UsageError(f"{file}: {name} wrote it and cannot approve it")
    private = SigningKey.load(key_file)
    if not as_json:
        _show(statement, title="This is what you sign, all of it:")
        output.console().print(output.cell(f"Signed so far by: {', '.join(loaded.signers) or 'nobody'}"))
    output.confirm(f"Sign this {statement.kind} of digest {statement.digest.hex()} as {name}?", yes=yes)
    signed = replace(loaded, signatures=(*loaded.signatures, statement.sign(private.private_key, signer=name)))
    signed.write(file, replace=True)
    if as_json:
        output.print_json({"file": str(file), "digest": statement.digest.hex(), "signers": list(signed.signers)})
        return
    output.console().print(output.cell(f"{file}: signed by {', '.join(signed.signers)}"))


@app.command(
    help=with_examples(
        "Carry out a declassification that enough approvers have signed.",
        "asset declassify apply notes-3.declassify.json",
    )
)
@connected
def apply(connection: Connection, file: StatementArgument, *, as_json: JsonOption = False) -> None:
    """Apply a declassification."""
    loaded = signing.StatementFile.load(file)
    response = connection.call(
        connection.declassifications.ApplyDeclassification,
        pb.ApplyDeclassificationRequest(
            request_id=request_id(), statement=loaded.statement.payload, signatures=loaded.signatures
        ),
    )
    document = {
        **declassification_json(response.declassification),
        "constraints": constraints_of(response.version.constraints).to_document(),
    }
    output.show(document, as_json=as_json, title="Declassified")
    if not as_json:
        output.console().print("New leases see these constraints. What was derived from it before keeps its own.")


@app.command(
    "list",
    help=with_examples(
        "List declassifications, proposed and applied: the tenant's, an asset's or a version's.",
        "asset declassify list",
        "asset declassify list acme/notes@3 --json",
    ),
)
@connected
def list_(
    connection: Connection,
    asset: Annotated[str, typer.Argument(metavar="[TENANT/NAME[@VERSION]]", help="Only of this.")] = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """List declassifications."""
    name, _, number = asset.partition("@")
    ref = _ref(asset) if number else None
    found = _all(connection, ref, asset=name)
    if as_json:
        output.print_json([declassification_json(each) for each in found])
        return
    output.print_table(
        ("version", "serial", "state", "author", "signed by", "proposed", "digest"),
        (
            (
                f"{each.ref.asset}@{each.ref.version}",
                each.serial,
                _STATES.get(each.state, "unknown"),
                each.author,
                ", ".join(each.signers),
                output.instant(each.create_time.seconds),
                each.digest.hex()[:16],
            )
            for each in found
        ),
        empty="no declassification was proposed",
    )


@approvers_app.command(
    help=with_examples("Make an approver's key: PATH (secret) and PATH.pub.", "asset approvers key bob.pem")
)
def key(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where the private key goes; it must not be there.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Make an approver's key."""
    from keybroker import pki
    from keybroker.keys.signing import SigningKey

    public = path.with_name(f"{path.name}.pub")
    made = SigningKey.create(path)
    pki.write_new(public, made.public_pem())
    output.show(
        {"private_key": str(path), "public_key": str(public), "key_id": made.key_id}, as_json=as_json, title="Key made"
    )


@approvers_app.command(
    "propose",
    help=with_examples(
        "Write a set of approvers. The first one is set as it is; every further one is signed by the set before it.",
        "asset approvers propose --threshold 2 --approver alice=alice.pem.pub --approver bob=bob.pem.pub "
        "--approver carol=carol.pem.pub --reason 'first set'",
    ),
)
@connected
def propose_approvers(
    connection: Connection,
    *,
    threshold: Annotated[int, typer.Option(min=1, help="How many different approvers must sign.")],
    approver: Annotated[
        list[str],
        typer.Option(
            "--approver", metavar="NAME=PEM", help="A name, as in their certificate, and a public key; repeat."
        ),
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
    valid: Annotated[str, typer.Option(metavar="DURATION", help="How long it may wait for signatures.")] = "14d",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; approvers-SERIAL.json.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a set of approvers."""
    response = connection.call(connection.declassifications.GetApprovers, pb.GetApproversRequest())
    tenant, author = _tenant(connection), _principal(connection)
    keys: dict[str, bytes] = {}
    for each in approver:
        name, _, pem = each.partition("=")
        if not pem or name in keys:
            raise UsageError(f"--approver {each!r}: not NAME=FILE, or the name is there twice")
        keys[name] = _public_key(Path(pem))
    wanted = ApproverSet(
        tenant=tenant,
        serial=response.approvers.serial + 1,
        threshold=threshold,
        keys=keys,
        reason=reason,
        not_after=instants.now() + instants.parse_duration(valid),
    )
    statement = wanted.statement(author=author)
    ApproverSet.of(statement)
    path = out or Path(f"approvers-{wanted.serial}.json")
    signing.StatementFile(statement, ()).write(path, replace=False)
    if as_json:
        output.print_json({"file": str(path), **statement_json(statement)})
        return
    _show(statement, title=f"Written to {path}")
    if wanted.serial == 1:
        output.console().print(output.cell(f"Next: keystead asset approvers set {path}"))
    else:
        output.console().print(
            output.cell(
                f"Next: {response.approvers.threshold} of the present approvers sign it: "
                f"keystead asset declassify approve {path} --key KEY --name NAME"
            )
        )


@approvers_app.command(
    "set",
    help=with_examples(
        "Put a set of approvers in the place of the present one, which must have signed it.",
        "asset approvers set approvers-2.json",
    ),
)
@connected
def set_approvers(connection: Connection, file: StatementArgument, *, as_json: JsonOption = False) -> None:
    """Set the approvers."""
    loaded = signing.StatementFile.load(file)
    response = connection.call(
        connection.declassifications.SetApprovers,
        pb.SetApproversRequest(
            request_id=request_id(), statement=loaded.statement.payload, signatures=loaded.signatures
        ),
    )
    output.show(approvers_json(response.approvers), as_json=as_json, title="Approvers set")


@approvers_app.command(
    "show", help=with_examples("Show who may approve, and how many of them must.", "asset approvers show")
)
@connected
def show_approvers(connection: Connection, *, as_json: JsonOption = False) -> None:
    """Show the approvers."""
    response = connection.call(connection.declassifications.GetApprovers, pb.GetApproversRequest())
    if not response.HasField("approvers"):
        if as_json:
            output.print_json(None)
        else:
            output.console().print("no approvers are set: nothing can be declassified")
        return
    output.show(approvers_json(response.approvers), as_json=as_json)


def assignments(pairs: Sequence[str]) -> dict[str, object]:
    """``FIELD=JSON`` pairs; a value that is no JSON is taken as a word.

    Raises:
        UsageError: another form, or no field of constraints.
    """
    document: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in FIELDS or name in document:
            raise UsageError(f"--set {pair!r}: not FIELD=JSON, or there twice; the fields are {', '.join(FIELDS)}")
        try:
            document[name] = json.loads(text)
        except ValueError:
            document[name] = text
    return document


def statement_json(statement: Statement) -> dict[str, Json]:
    """A statement as it stands in ``--json`` output."""
    return {
        "kind": statement.kind,
        "author": statement.author,
        "digest": statement.digest.hex(),
        "body": json.loads(statement.payload)["body"],
    }


def declassification_json(message: pb.Declassification) -> dict[str, Json]:
    """A declassification as it stands in ``--json`` output."""
    wanted = Declassification.of(Statement.parse(message.statement))
    return {
        "version": str(wanted.ref),
        "serial": message.serial,
        "state": _STATES.get(message.state, "unknown"),
        "digest": message.digest.hex(),
        "author": message.author,
        "signers": list(message.signers),
        "reason": wanted.reason,
        "changes": [
            {"field": each.field, "before": each.before, "after": each.after, "relaxes": each.relaxes}
            for each in wanted.changes
        ],
        "proposed": output.instant(message.create_time.seconds),
        "applied": output.instant(message.apply_time.seconds) if message.HasField("apply_time") else None,
        "expires": output.instant(wanted.not_after),
    }


def approvers_json(message: pb.ApproverSet) -> dict[str, Json]:
    """A set of approvers as it stands in ``--json`` output."""
    return {
        "serial": message.serial,
        "threshold": message.threshold,
        "approvers": {each.name: each.public_key.hex() for each in message.approvers},
        "set": output.instant(message.create_time.seconds),
    }


def _show(statement: Statement, *, title: str) -> None:
    """Everything that is signed, from the signed bytes; a declassification's changes once more, side by side."""
    signing.show(statement, title=title)
    if statement.kind != declassification.KIND:
        return
    output.print_table(
        ("field", "before", "after"),
        (
            (
                each.field,
                "nothing demanded" if each.before is None else json.dumps(each.before, sort_keys=True),
                "nothing demanded" if each.after is None else json.dumps(each.after, sort_keys=True),
            )
            for each in Declassification.of(Statement.parse(statement.payload)).changes
        ),
        title="What is relaxed",
    )


def _check(statement: Statement) -> None:
    """Refuse what is neither kind, or contradicts itself: nobody is shown, or signs, such a thing."""
    if statement.kind == approver_sets.KIND:
        ApproverSet.of(statement)
    else:
        Declassification.of(statement)


def _changed(before: Constraints, pairs: Sequence[str], drop: Iterable[str], file: Path | None) -> Constraints:
    from keystead.cli.asset import read_document

    document = before.to_document()
    if file is not None:
        document |= read_document(file)
    document |= assignments(pairs)
    for name in drop:
        if document.pop(name, None) is None:
            raise UsageError(f"--drop {name}: the version demands nothing of this name")
    try:
        return Constraints.from_document(document)
    except ConstraintsError as error:
        raise UsageError(str(error)) from None


def _all(connection: Connection, ref: AssetRef | None, *, asset: str = "") -> list[pb.Declassification]:
    found: list[pb.Declassification] = []
    token = ""
    while True:
        page = connection.call(
            connection.declassifications.ListDeclassifications,
            pb.ListDeclassificationsRequest(
                asset=asset if ref is None else ref.asset,
                version=0 if ref is None else ref.version,
                page_size=_PAGE,
                page_token=token,
            ),
        )
        found += page.declassifications
        token = page.next_page_token
        if not token:
            return found


def _ref(text: str) -> AssetRef:
    try:
        return AssetRef.parse(text)
    except BindingError as error:
        raise UsageError(f"{text}: {error}") from None


def _identity(connection: Connection) -> list[str]:
    """The parts of the SPIFFE ID in the profile's certificate: tenant, TENANT, ROLE, NAME."""
    certificate = x509.load_pem_x509_certificate(connection.profile.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    parts = uris[0].split("/")[3:] if uris else []
    if len(parts) != 4:
        raise UsageError(f"{connection.profile.certificate}: not the certificate of an owner")
    return parts


def _principal(connection: Connection) -> str:
    return _identity(connection)[3]


def _tenant(connection: Connection) -> str:
    return _identity(connection)[1]


def _public_key(path: Path) -> bytes:
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError:
        raise UsageError(f"{path}: not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: not an Ed25519 public key; keystead asset approvers key makes one")
    return key.public_bytes_raw()
