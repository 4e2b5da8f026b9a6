"""``keystead asset import``: a draft of an asset from a Croissant or OpenLineage description. Needs no broker."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from keystead.cli import output
from keystead.cli.asset_kind import Kind
from keystead.cli.descriptions.document import MAX_DESCRIPTION, DescriptionError
from keystead.cli.descriptions.draft import Draft, DraftFile, DraftInput, read_description
from keystead.cli.exits import NO, UsageError
from keystead.cli.help import with_examples
from keystead.cli.lineage import app as assets
from keystead.cli.output import JsonOption
from keystead.cli.seal import progress_bar
from sealed.atomic import atomic_file

app = assets
"""Every command of ``keystead asset``, those of this module included."""

_CHUNK: Final = 1 << 20
_SHOWN: Final = 20
"""Problems and unknown files that people are shown; JSON has all of them."""


@app.command(
    "import",
    help=with_examples(
        "Make a draft of an asset from a description: Croissant 1.0 or 1.1, or an OpenLineage event. It takes names, "
        "version, licences, sources, files with digests and sizes, and inputs; what it leaves out it says. Nothing is "
        "fetched, and nothing is registered: the draft is a file to look over, and `asset add-version --draft` then "
        "cites the description's digest in its record.\n\n"
        "Inputs are what somebody declared. Say of each which asset version it is (--input), or that it is none here "
        "(--outside); they become declared parents, whose constraints the version takes on. With --files every file "
        "that is described is checked; 1 is returned, and no draft is written, where one is missing or differs.",
        "asset import croissant.json --asset acme/corpus --out draft.json --files ./corpus",
        "asset import event.json --asset acme/clean --out draft.json --input 'lake/raw@7=acme/raw@2'",
    ),
)
def import_(
    description: Annotated[Path, typer.Argument(metavar="FILE", help="The description.")],
    *,
    asset: Annotated[str, typer.Option(metavar="TENANT/NAME", help="What the asset is, or will be, called.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DRAFT", help="Where the draft goes; what is there is replaced.")
    ],
    kind: Annotated[
        Kind | None,
        typer.Option(help="What it is.", show_default="dataset; preprocessed, where it was derived from assets"),
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=TENANT/NAME@VERSION", help="Which asset version an input is; repeat for each."
        ),
    ] = None,
    outside: Annotated[
        list[str] | None,
        typer.Option("--outside", metavar="NAME", help="An input that is no asset here; repeat for each."),
    ] = None,
    of: Annotated[
        str | None,
        typer.Option("--output", metavar="NAMESPACE/NAME", help="Which output of an OpenLineage run is described."),
    ] = None,
    files: Annotated[
        Path | None, typer.Option("--files", metavar="DIR", help="Check the files in this folder by their digests.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a draft from a description."""
    try:
        described = read_description(_read(description), output=of)
    except DescriptionError as error:
        raise DescriptionError(str(description), str(error)) from None
    inputs = _inputs(described.inputs, input_ or (), outside or ())
    derived = any(each.ref is not None for each in inputs)
    if derived and kind is Kind.DATASET:
        raise UsageError("--kind dataset is raw data, derived from no asset; with --input take preprocessed or another")
    chosen = kind or (Kind.PREPROCESSED if derived else Kind.DATASET)
    draft = Draft.of(described, asset=asset, kind=chosen, inputs=inputs)
    checked = None if files is None else _check(files, draft.files)
    if checked is None or not checked.problems:
        try:
            with atomic_file(out, mode=0o666) as file:
                file.write(draft.to_bytes())
        except OSError as error:
            raise UsageError(f"--out {out}: {error.strerror}") from None
    _show(draft, out, checked, as_json=as_json)
    if checked is not None and checked.problems:
        raise typer.Exit(NO)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_DESCRIPTION + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _inputs(names: tuple[str, ...], mapped: list[str] | tuple[()], outside: list[str] | tuple[()]) -> list[DraftInput]:
    """What each input is, by the options.

    Raises:
        UsageError: an option names no input, or one that another names too, or is no asset version.
    """
    refs: dict[str, str] = {}
    for text in mapped:
        name, _, ref = text.rpartition("=")
        if not name:
            raise UsageError(f"--input {text!a:.120}: write NAME=TENANT/NAME@VERSION")
        if name in refs:
            raise UsageError(f"--input {name!a:.120}: is there twice")
        refs[name] = ref
    for name in (*refs, *outside):
        if name not in names:
            known = ", ".join(f"{each!a:.80}" for each in names[:8]) or "none"
            raise UsageError(f"{name!a:.120}: the description has no such input; it has {known}")
    both = refs.keys() & set(outside)
    if both:
        raise UsageError(f"{min(both)!a:.120}: is given by --input and --outside; one of them")
    try:
        return [DraftInput(name=name, ref=refs.get(name), outside=name in outside) for name in names]
    except ValueError:
        wrong = next(ref for ref in refs.values() if not _is_version(ref))
        raise UsageError(f"--input: {wrong!a:.120} is not TENANT/NAME@VERSION") from None


def _is_version(ref: str) -> bool:
    try:
        DraftInput(name="x", ref=ref)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Checked:
    """What a folder has of what was described.

    Attributes:
        verified: files whose digest is as described.
        undigested: files that are there, for which the description has no digest.
        problems: what is missing or differs.
        unknown: files that the description does not name.
    """

    verified: int
    undigested: int
    problems: list[str]
    unknown: list[str]


def _check(folder: Path, files: tuple[DraftFile, ...]) -> _Checked:
    """Check files by size and SHA-256.

    Raises:
        UsageError: the folder cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"--files {folder}: no such folder")
    verified = undigested = 0
    problems: list[str] = []
    total = sum(file.size or 0 for file in files)
    with progress_bar(total, what="checking") as progress:
        for file in files:
            problem = _problem(folder / file.name, file, progress)
            if problem:
                problems.append(f"{file.name}: {problem}")
            elif file.sha256 is None:
                undigested += 1
            else:
                verified += 1
    try:
        present = sorted(_names(folder))
    except OSError as error:
        raise UsageError(f"--files {folder}: {error.strerror}") from None
    known = {file.name for file in files}
    return _Checked(verified, undigested, problems, [name for name in present if name not in known])


def _names(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise error

    for root, _, names in os.walk(folder, onerror=fail):
        yield from (Path(root, name).relative_to(folder).as_posix() for name in names)


def _problem(path: Path, wanted: DraftFile, progress: Callable[[int], None] | None) -> str:
    """What is wrong with a file; empty where nothing is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return error.strerror or "cannot be read"
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return "is no regular file"
        if wanted.size is not None and status.st_size != wanted.size:
            return f"{status.st_size} bytes, described are {wanted.size}"
        if wanted.sha256 is None:
            return ""
        try:
            found = _digest(file, progress)
        except OSError as error:
            return error.strerror or "cannot be read"
    return "" if found == wanted.sha256 else f"SHA-256 {found}, described is {wanted.sha256}"


def _digest(file: BinaryIO, progress: Callable[[int], None] | None) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        if progress is not None:
            progress(len(chunk))
    return digest.hexdigest()


def _show(draft: Draft, out: Path, checked: _Checked | None, *, as_json: bool) -> None:
    undecided = [each.name for each in draft.inputs if not each.decided]
    written = checked is None or not checked.problems
    if as_json:
        output.print_json(
            {
                "written": str(out) if written else None,
                "draft": draft.model_dump(mode="json"),
                "undecided_inputs": undecided,
                "files": None
                if checked is None
                else {
                    "verified": checked.verified,
                    "without_digest": checked.undigested,
                    "problems": checked.problems,
                    "not_described": checked.unknown,
                },
            }
        )
        return
    digests = sum(file.sha256 is not None for file in draft.files)
    output.show(
        {
            "asset": draft.asset,
            "kind": draft.kind.value,
            "described as": draft.name,
            "version of the description": draft.version,
            "form": draft.form,
            "description's SHA-256": draft.description_digest,
            "licences": list(draft.licences),
            "sources": list(draft.sources),
            "files": f"{len(draft.files)}, {digests} with a digest",
            "inputs": [f"{each.name} = {each.ref or ('outside' if each.outside else '?')}" for each in draft.inputs],
            "left out": list(draft.left_out),
        },
        as_json=False,
        title="Draft" if written else "No draft was written",
    )
    console = output.console()
    if checked is not None:
        console.print(output.cell(f"{checked.verified} files are as described; {checked.undigested} have no digest"))
        _list("differs or is missing", checked.problems)
        _list("not described", checked.unknown)
    if not written:
        return
    if undecided:
        _list("undecided inputs: give --input NAME=TENANT/NAME@VERSION or --outside NAME", undecided)
        return
    console.print(output.cell(f"Look over {out} and keep the description. Then:"))
    for line in (
        f"keystead asset register {draft.asset} --kind {draft.kind.value} --purpose ... --allow ...",
        f"keystead seal DIR --asset {draft.asset} --version N --key-file KEY --signing-key PEM --out SEALED",
        f"keystead asset add-version SEALED --draft {out} --key-file KEY --owner-key PEM",
    ):
        console.print(output.cell(f"  {line}"), soft_wrap=True)


def _list(heading: str, lines: list[str]) -> None:
    if lines:
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        output.print_table((heading,), ((line,) for line in (*lines[:_SHOWN], *more)))
