"""``keystead reference``: reference values and advisories of an operator: keys, signatures, what is accepted."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from keystead.cli import instants, output
from keystead.cli.exits import NO, UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption

if TYPE_CHECKING:
    from attestation.reference.advisories import AdvisoryTable
    from attestation.scheme import ReferenceValues

app = typer.Typer(
    no_args_is_help=True, help="Reference values and advisories: sign them, check them, see what is accepted."
)

_MAX_KEY: Final = 16 << 10
_MASKS: Final = ("policy_allowed", "policy_required", "policy_forbidden")
_PLATFORM_MASKS: Final = ("platform_required", "platform_forbidden", "platform_tolerated")

Signers = Annotated[
    list[Path] | None,
    typer.Option("--signer", metavar="PUB", help="A key that may have signed (PEM); repeat. None: not looked at."),
]
Threshold = Annotated[int, typer.Option(min=1, max=16, help="How many different signers must have signed.")]
OfAdvisories = Annotated[bool, typer.Option("--advisories", help="FILE is a table of advisories.")]


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"{path}: more than {limit} bytes")
    return data


def _signed_by(path: Path, data: bytes, *, kind: str, signers: Sequence[Path], threshold: int) -> tuple[str, ...]:
    """Who signed, of `signers`; nobody where none is given.

    Raises:
        ReferenceSignatureError: unsigned, wrongly signed, or by too few.
        ManifestError: a signer that is no key.
        OSError: a file that cannot be read.
    """
    from attestation.reference import signature

    if not signers:
        return ()
    beside = _signature_file(path)
    return signature.verify_detached(
        _read(beside, signature.MAX_SIGNATURE_FILE) if beside.exists() else b"",
        data,
        kind=kind,
        signers=[signature.load_public_key(_read(each, _MAX_KEY), name=str(each)) for each in signers],
        threshold=threshold,
        name=str(path),
    )


def _signature_file(path: Path) -> Path:
    from attestation.reference.signature import SIGNATURE_SUFFIX

    return path.with_name(path.name + SIGNATURE_SUFFIX)


def load_advisories(name: str, *, signers: Sequence[Path] = (), threshold: int = 1) -> AdvisoryTable:
    """A table of advisories; ``shipped`` is the one that comes with Keystead, which nobody has signed.

    Raises:
        ReferenceSignatureError, ManifestError, OSError: as in `load_reference`.
    """
    from attestation.reference.advisories import parse_advisories
    from attestation.reference.document import MAX_FILE
    from attestation.reference.shipped import SHIPPED, shipped_advisories
    from attestation.reference.signature import ADVISORIES_TYPE

    if name == SHIPPED:
        shown, data = shipped_advisories()
        return parse_advisories(data, name=shown)
    path = Path(name)
    data = _read(path, MAX_FILE)
    signed = _signed_by(path, data, kind=ADVISORIES_TYPE, signers=signers, threshold=threshold)
    return parse_advisories(data, name=name, signers=signed)


def load_reference(
    path: Path, *, signers: Sequence[Path] = (), threshold: int = 1, advisories: Sequence[str] = ()
) -> ReferenceValues:
    """Reference values, with the advisories that evidence is held against besides.

    Args:
        path: the file; its signatures lie beside it.
        signers: public keys (PEM) of whom `threshold` must have signed; signatures are not looked at where empty.
        threshold: how many.
        advisories: files of tables, or ``shipped``.

    Raises:
        ReferenceSignatureError: unsigned, wrongly signed, or by too few.
        ManifestError: a file that is not what it should be.
        OSError: a file that cannot be read.
    """
    from attestation.reference.document import MAX_FILE
    from attestation.reference.signature import REFERENCE_VALUES_TYPE
    from attestation.reference.values import parse_reference_values

    data = _read(path, MAX_FILE)
    signed = _signed_by(path, data, kind=REFERENCE_VALUES_TYPE, signers=signers, threshold=threshold)
    tables = [load_advisories(name, signers=signers, threshold=threshold) for name in advisories]
    return parse_reference_values(data, name=str(path), signers=signed, advisories=tables)


@app.command(
    help=with_examples(
        "Make a key that signs reference values and advisories: NAME.key, which is secret, and NAME.pub.\n\n"
        "Keep the secret one away from the broker's machine: whoever has it decides what is accepted.",
        "reference keygen security-team",
    )
)
def keygen(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="Path and name, without ending.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Make a key pair."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from attestation.reference.signature import key_id, private_pem, public_pem

    key = Ed25519PrivateKey.generate()
    secret, public = name.with_name(f"{name.name}.key"), name.with_name(f"{name.name}.pub")
    for path, data, mode in ((secret, private_pem(key), 0o600), (public, public_pem(key.public_key()), 0o644)):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    if as_json:
        output.print_json({"key": str(secret), "public_key": str(public), "key_id": key_id(key.public_key())})
        return
    output.console().print(output.cell(f"Made {secret} (secret) and {public}, key id {key_id(key.public_key())}."))


@app.command(
    help=with_examples(
        "Sign reference values, or a table of advisories, into FILE.jws. Signatures of other keys stay.",
        "reference sign reference.toml --key security-team.key",
        "reference sign --advisories our-advisories.toml --key security-team.key",
    )
)
def sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to sign; it must be sound and have [about].")],
    *,
    key: Annotated[Path, typer.Option(metavar="KEY", help="The secret key (PEM).")],
    advisories: OfAdvisories = False,
    as_json: JsonOption = False,
) -> None:
    """Sign a file."""
    from attestation.reference import signature
    from attestation.reference.advisories import parse_advisories
    from attestation.reference.document import MAX_FILE
    from attestation.reference.values import parse_reference_values

    data = _read(file, MAX_FILE)
    private = signature.load_private_key(_read(key, _MAX_KEY), name=str(key))
    signer = signature.key_id(private.public_key())
    kind = signature.ADVISORIES_TYPE if advisories else signature.REFERENCE_VALUES_TYPE
    # Nothing is signed that the broker would then refuse.
    if advisories:
        parse_advisories(data, name=str(file), signers=(signer,))
    else:
        parse_reference_values(data, name=str(file), signers=(signer,))
    beside = _signature_file(file)
    kept = _others(beside, kind=kind, signer=signer, name=str(file)) if beside.exists() else []
    line = signature.sign_detached(data, key=private, kind=kind)
    draft = beside.with_name(f".{beside.name}.draft")
    draft.write_text("".join(f"{each}\n" for each in (*kept, line)), encoding="ascii")
    draft.replace(beside)
    if as_json:
        output.print_json({"signatures": str(beside), "key_id": signer, "count": len(kept) + 1})
        return
    output.console().print(output.cell(f"Signed {file} with key {signer}: {beside}, {len(kept) + 1} signature(s)."))


def _others(beside: Path, *, kind: str, signer: str, name: str) -> list[str]:
    """The signature lines of other keys over the same kind of file; whether they still verify is for `check` to say."""
    from attestation.reference import signature

    lines = signature.signature_lines(_read(beside, signature.MAX_SIGNATURE_FILE), kind=kind, name=name)
    return [line for claimed, line in lines if claimed != signer]


@app.command(
    help=with_examples(
        "Check reference values, or a table of advisories: form, signatures, and what they accept.",
        "reference check reference.toml --signer security-team.pub",
        "reference check reference.toml --signer a.pub --signer b.pub --threshold 2",
        "reference check --advisories our-advisories.toml --signer security-team.pub",
    )
)
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML or JSON.")],
    *,
    signer: Signers = None,
    threshold: Threshold = 1,
    advisories: OfAdvisories = False,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="In force then? 2026-11-22T13:00:00Z.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a file."""
    now = instants.now() if at is None else instants.parse_instant(at)
    if advisories:
        table = load_advisories(str(file), signers=signer or (), threshold=threshold)
        current = table.about.issued <= now < table.next_update
        _show_table(table, current=current, as_json=as_json)
    else:
        reference = load_reference(file, signers=signer or (), threshold=threshold)
        about = None if reference.source is None else reference.source.about
        current = about is None or (about.issued <= now and (about.expires is None or now < about.expires))
        _show_reference(reference, current=current, as_json=as_json)
    if not current:
        raise typer.Exit(NO)


@app.command(
    help=with_examples(
        "Show what reference values accept, or the advisories of a table; signatures are not looked at.",
        "reference show reference.toml",
        "reference show --advisories",
        "reference show --advisories our-advisories.toml --json",
    )
)
def show(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="TOML or JSON; the shipped table where left out.")
    ] = None,
    *,
    advisories: OfAdvisories = False,
    as_json: JsonOption = False,
) -> None:
    """Show a file."""
    from attestation.reference.shipped import SHIPPED

    if advisories:
        _show_table(load_advisories(file or SHIPPED), current=None, as_json=as_json)
    elif file is None:
        raise UsageError("name a file of reference values, or give --advisories for the shipped table")
    else:
        _show_reference(load_reference(Path(file)), current=None, as_json=as_json)


@app.command(
    help=with_examples(
        "List the newest collateral that an installation has used, which nothing older may follow.",
        "reference floors ./factory",
        "reference floors ./factory --forget reference-values",
    )
)
def floors(
    installation: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="An installation.")],
    *,
    forget: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Forget this source's number: an older file may then be used.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List or forget floors."""
    from keybroker.config import BrokerConfig
    from keybroker.store import floors as stored
    from keybroker.store.engine import open_engine
    from keybroker.store.migrate import check_current

    engine = open_engine(BrokerConfig.load(installation).database_url)
    try:
        check_current(engine)
        if forget is not None:
            output.confirm(f"Forget the newest number of {forget}? Older files of it will be accepted again.", yes=yes)
            with engine.begin() as connection:
                if not stored.forget(connection, forget):
                    raise UsageError(f"{forget!a:.200} has no number; `keystead reference floors` lists the sources")
        with engine.begin() as connection:
            rows = stored.stored_floors(connection)
    finally:
        engine.dispose()
    if as_json:
        output.print_json(
            [
                {
                    "source": row.source,
                    "number": row.number,
                    "sha256": bytes(row.digest).hex(),
                    "updated_at": row.updated_at,
                }
                for row in rows
            ]
        )
        return
    output.print_table(
        ("source", "newest number used", "SHA-256 of the file", "since"),
        [(row.source, str(row.number), bytes(row.digest).hex(), output.instant(row.updated_at)) for row in rows],
    )


def _show_reference(reference: ReferenceValues, *, current: bool | None, as_json: bool) -> None:
    accepted = {
        name: _plain(getattr(reference, name))
        for name in ("snp", "snp_azure_hcl", "nvgpu", "nvswitch", "fabric", "devices")
    }
    source = reference.source
    if as_json:
        output.print_json(
            {
                "origin": reference.origin,
                "sha256": None if source is None else source.digest.hex(),
                "signers": [] if source is None else list(source.signers),
                "about": None if source is None else _plain(source.about),
                "in_force": current,
                "advisories_grace": reference.advisories_grace,
                "accepted": accepted,
            }
        )
        return
    console = output.console()
    console.print(output.cell(reference.origin, style="bold"))
    if current is False:
        console.print(output.cell("NOT in force at this time: see about.issued and about.expires.", style="bold red"))
    output.print_table(("accepted", "value"), list(_rows(accepted, "")))


def _show_table(table: AdvisoryTable, *, current: bool | None, as_json: bool) -> None:
    import json

    from attestation.reference.advisories import dump_advisories
    from attestation.reference.document import instant

    document = json.loads(dump_advisories(table))
    if as_json:
        output.print_json(
            {
                "table": str(table),
                "sha256": table.source.digest.hex(),
                "signers": list(table.source.signers),
                "current": current,
                **document,
            }
        )
        return
    console = output.console()
    console.print(output.cell(f"{table}; next update {instant(table.next_update)}", style="bold"))
    if current is False:
        console.print(output.cell("STALE at this time: evidence is refused by it.", style="bold red"))
    known = {"id", "title", "published", "products", "basis", "url", "severity", "enforced"}
    output.print_table(
        ("advisory", "about", "products", "asks for", "enforced", "basis"),
        [
            (
                each["id"],
                each["title"],
                ", ".join(each["products"]),
                "\n".join(
                    f"{name} {output.plain(value)}" for name, value in each.items() if name not in known and value
                ),
                "yes" if each["enforced"] else "informs only",
                each["basis"],
            )
            for each in document["advisory"]
        ],
    )


def _plain(value: object, name: str = "") -> Json:
    """Any reference value as JSON: bytes in hex, masks by the names of their bits, sets sorted."""
    from attestation.reference.bits import names_of
    from attestation.snp.abi import GuestPolicy, PlatformInfo

    if isinstance(value, int) and not isinstance(value, bool) and name in (*_MASKS, *_PLATFORM_MASKS):
        return list(names_of(GuestPolicy if name in _MASKS else PlatformInfo, value))
    if isinstance(value, enum.Enum):
        return str(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            each.name: _plain(getattr(value, each.name), each.name)
            for each in dataclasses.fields(value)
            if each.name != "origin"
        }
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, frozenset):
        return sorted((_plain(each) for each in value), key=str)
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def _rows(values: Mapping[str, Json], path: str) -> Iterator[tuple[str, str]]:
    """One row for each value that says something, by its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{path}{name}.")
        elif value is None and not path:
            yield name, "nothing of this kind is accepted" if name != "fabric" else "not declared"
        elif value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
            yield f"{path}{name}", output.plain(shown)
