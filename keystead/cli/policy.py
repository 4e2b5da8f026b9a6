"""``keystead policy``: check, format, test, build and evaluate Rego packs; needs no broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from keystead.cli.exits import NO, UsageError
from keystead.cli.output import JsonOption, console, print_json, print_table, reasons_json, reasons_table, show

if TYPE_CHECKING:
    from policy.bundle import Bundle

app: Final = typer.Typer(
    no_args_is_help=True, help="Check, test, build and evaluate Rego policies. Exit codes: 0 yes, 1 no, 2 no answer."
)

PacksArgument = Annotated[
    Path | None, typer.Argument(help="Rego root, with one directory per pack. Default: the packs that ship.")
]


def _root(packs: Path | None) -> Path:
    from policy.sources import PACKS

    root = packs or PACKS
    if not root.is_dir():
        raise UsageError(f"{root} is not a directory: name the Rego root, which holds one directory per pack")
    return root


@app.command()
def check(packs: PacksArgument = None, as_json: JsonOption = False) -> None:
    """Compile packs strictly, against the input schemas and the allowed built-ins."""
    from policy.opa import Opa
    from policy.sources import schemas_of, workspace

    root = _root(packs)
    with workspace(root) as folder:
        Opa.find().check(folder, schemas=schemas_of(folder))
    show({"packs": str(root), "checked": True}, as_json=as_json)


@app.command()
def fmt(
    packs: PacksArgument = None,
    write: Annotated[bool, typer.Option("--write", help="Write the files instead of naming them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say which files are not formatted as opa formats them, or format them."""
    from policy.opa import Opa

    root, opa = _root(packs), Opa.find()
    changed = opa.format(root) if write else opa.unformatted(root)
    if as_json:
        print_json({"packs": str(root), "written" if write else "unformatted": list(changed)})
    else:
        heading = "written" if write else "not formatted; --write mends it"
        print_table([heading], [[name] for name in changed], empty="every file is formatted")
    if changed and not write:
        raise typer.Exit(NO)


@app.command("test")
def run_tests(packs: PacksArgument = None, as_json: JsonOption = False) -> None:
    """Run the packs' tests; no if one fails, or a line is never reached."""
    from policy.opa import Opa
    from policy.sources import SHARED, workspace

    root = _root(packs)
    with workspace(root) as folder:
        # What was only borrowed for this run has its own tests.
        report = Opa.find().test(folder, exempt=() if folder == root else SHARED)
    show(
        {
            "passed": report.passed,
            "failed": list(report.failed),
            "not_reached": list(report.not_covered),
            "ok": report.ok,
        },
        as_json=as_json,
    )
    if not report.ok:
        raise typer.Exit(NO)


@app.command()
def build(
    pack: Annotated[Path, typer.Argument(help="The pack's directory.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the bundle (NAME.tar.gz).")],
    shared: Annotated[
        Path | None, typer.Option(help="Where lib, settings and jurisdictions stand. Default: beside the pack.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile one pack to a bundle that a broker evaluates."""
    from policy.opa import Opa
    from policy.sources import compile_pack

    if not pack.is_dir():
        raise UsageError(f"{pack} is not a directory: name the pack's directory, such as packs/release")
    bundle, tarball = compile_pack(Opa.find(), pack, shared=shared)
    output.write_bytes(tarball)
    show(
        {"bundle": str(output), "entrypoint": bundle.entrypoint, "digest": bundle.digest.hex(), "bytes": len(tarball)},
        as_json=as_json,
    )


@app.command("eval")
def evaluate(
    document: Annotated[Path, typer.Argument(metavar="INPUT", help="The input document (JSON).")],
    pack: Annotated[str | None, typer.Option(help="A pack that ships: appraisal or release.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A bundle that `build` wrote.")] = None,
    data: Annotated[Path | None, typer.Option(help='Data laid over the pack\'s own (JSON): {"settings": {…}}.')] = None,
    as_json: JsonOption = False,
) -> None:
    """Decide about an input document, with every reason why not. Exit code 0 = allowed, 1 = denied."""
    from policy.documents import read_json_object
    from policy.engine import PolicyEngine

    overlay = read_json_object(data.read_bytes(), what=str(data)) if data else None
    engine = PolicyEngine(_bundle(pack, bundle), data=overlay)
    decision = engine.evaluate(read_json_object(document.read_bytes(), what=str(document)))
    if as_json:
        print_json({"policy_digest": engine.digest, **decision.to_json(), "deny": reasons_json(decision.deny)})
    else:
        output = console()
        output.print("allowed" if decision.allow else f"denied; reasons: {len(decision.deny)}")
        output.print(f"policy {decision.policy_version}, digest {engine.digest}")
        if decision.deny:
            output.print(reasons_table(decision.deny))
        if decision.obligations:
            print_table(["obligation", "parameters"], [[item.code, dict(item.params)] for item in decision.obligations])
        if decision.trust_vectors:
            rows = [
                [slot, name, value] for slot, vector in decision.trust_vectors.items() for name, value in vector.items()
            ]
            print_table(["device", "AR4SI claim", "value"], sorted(rows))
    if not decision.allow:
        raise typer.Exit(NO)


def _bundle(pack: str | None, bundle: Path | None) -> Bundle:
    from policy.bundle import Bundle
    from policy.sources import DEFAULT_PACKS, default_bundle

    if (pack is None) == (bundle is None):
        raise UsageError("name one policy: --pack appraisal, --pack release, or --bundle FILE")
    if bundle is not None:
        return Bundle.load(bundle)
    if pack not in DEFAULT_PACKS:
        raise UsageError(f"{pack!r:.40} is not a pack that ships: {', '.join(DEFAULT_PACKS)}")
    return default_bundle(pack)
