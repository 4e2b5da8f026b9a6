"""``keystead evidence``: verify and inspect attestation evidence offline, and judge conformance manifests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from attestation.errors import MalformedError
from attestation.findings import Finding, Severity
from attestation.pem import certificates_from_pem
from attestation.types import Collateral, DeviceResult, Evidence
from keystead.cli import evidence_explain, evidence_replay, instants, output
from keystead.cli.exits import NO, UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.cli.profile import with_broker_options

if TYPE_CHECKING:
    from uuid import UUID

    from rich.table import Table

    from attestation.scheme import ReferenceValues, TrustAnchors

app = typer.Typer(no_args_is_help=True, help="Verify and inspect evidence; run kept appraisals again.")
app.command("explain", help=evidence_explain.HELP)(evidence_explain.explain)
app.command("export", help=evidence_replay.EXPORT_HELP)(with_broker_options(evidence_replay.export))
app.command("replay", help=evidence_replay.REPLAY_HELP)(with_broker_options(evidence_replay.replay))

_MAX_FILE: Final = 16 << 20
_PEM: Final = b"-----BEGIN "
_SHOWN: Final = 40
"""Characters of a value that holds; ``--json`` has it whole."""

_DER: Final = (b"\x30\x82", b"\x30\x81")
"""How a certificate in DER begins: a SEQUENCE of more than 127 bytes."""

_TABLE_END: Final = bytes(24)
"""The entry that ends a certificate table; no PEM file has it."""

_CPU_SIZE: Final = 64
"""Bytes of what a CPU's evidence must be bound to: REPORT_DATA, or the user-data of Azure's paravisor."""

_NONCE_SIZE: Final = 32
"""Bytes of the requester's nonce that a GPU or switch signs."""

_REFERENCE_EXAMPLE: Final = (
    "no reference values: give --reference FILE, a TOML or JSON file that says what is accepted; for example "
    "[snp.minimum_tcb.Genoa] bl = 10, tee = 0, snp = 23, ucode = 84 or [nvgpu] products = ['GH100'], modes = ['spt']. "
    "What is not named there is refused; there are no defaults"
)


def read_bounded(path: Path) -> bytes:
    """Read a file of at most 16 MiB.

    Raises:
        UsageError: it is larger.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise UsageError(f"{path}: more than {_MAX_FILE} bytes")
    return data


def read_certificates(paths: Iterable[Path], *, leaf: UUID | None = None) -> tuple[bytes, ...]:
    """Read certificates, as DER, in the order given.

    A file holds PEM certificates, one in DER, or the certificate table that a host conveys with an extended SEV-SNP
    report. Whether DER is a certificate is for verification to find out.

    Args:
        paths: the files.
        leaf: which leaf a table is asked for; where None, the one that firmware prefers.

    Raises:
        UsageError: a certificate table that is none.
        MalformedError: a PEM file with anything but certificates.
        OSError: one cannot be read.
    """
    found: list[bytes] = []
    for path in paths:
        data = read_bounded(path)
        if not data.startswith(_DER) and _TABLE_END in data:
            found += _from_table(path, data, leaf)
        else:
            found += certificates_from_pem(data) if _PEM in data else (data,)
    return tuple(found)


def _from_table(path: Path, data: bytes, leaf: UUID | None) -> tuple[bytes, ...]:
    from attestation.snp.cert_table import chain_from_table, parse_cert_table

    try:
        return chain_from_table(parse_cert_table(data), leaf=leaf)
    except MalformedError as error:
        raise UsageError(f"{path}: not certificates in PEM or DER; {error}") from None


def read_root(path: Path) -> bytes:
    """Read one certificate, as DER.

    Raises:
        UsageError: the file holds several.
        MalformedError: a PEM file with anything but certificates.
        OSError: it cannot be read.
    """
    found = read_certificates([path])
    if len(found) != 1:
        raise UsageError(f"{path}: {len(found)} certificates, one is needed")
    return found[0]


def parse_hex(text: str | None, *, option: str, size: int) -> bytes | None:
    """Bytes of an option in hex; None where it is not given.

    Raises:
        UsageError: not hex, or another number of bytes than `size`.
    """
    if text is None:
        return None
    try:
        value = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{option}: not hex") from None
    if len(value) != size:
        raise UsageError(f"{option}: {len(value)} bytes, {size} are needed ({2 * size} hex digits)")
    return value


def anchors_for(roots: Iterable[Path], *, scheme: str) -> TrustAnchors:
    """The vendors' own roots, and simulators' roots of `scheme` where some are given.

    Raises:
        UsageError, MalformedError: a file does not hold exactly one certificate.
        TrustAnchorError: a certificate that cannot be a root of this scheme.
    """
    from attestation.nvgpu.endorsements import NvGpuAnchors
    from attestation.nvswitch.endorsements import NvSwitchAnchors
    from attestation.scheme import TrustAnchors
    from attestation.snp.azure_verify import SCHEME as SNP_AZURE
    from attestation.snp.endorsements import SnpAnchors
    from attestation.snp.verify import SCHEME as SNP

    snp, nvgpu, nvswitch = SnpAnchors.amd(), NvGpuAnchors.nvidia(), NvSwitchAnchors.nvidia()
    simulated = [read_root(path) for path in roots]
    if simulated and scheme in {SNP, SNP_AZURE}:
        snp = snp.with_simulated(*simulated)
    elif simulated:
        nvgpu, nvswitch = nvgpu.with_simulated(*simulated), nvswitch.with_simulated(*simulated)
    return TrustAnchors(snp=snp, nvgpu=nvgpu, nvswitch=nvswitch)


def _reference(
    path: Path | None, *, signers: list[Path] | None, threshold: int, advisories: list[str] | None
) -> ReferenceValues:
    from keystead.cli.reference import load_reference

    if path is None:
        raise UsageError(_REFERENCE_EXAMPLE)
    return load_reference(path, signers=signers or (), threshold=threshold, advisories=advisories or ())


@app.command(
    help=with_examples(
        "Verify evidence: is it authentic, fresh, and what the reference values ask for?\n\n"
        "FILE is an SEV-SNP report, by itself or in Azure's HCL report, or a GPU's or switch's measurements. "
        "Every rule of the strict verifier is shown with what was found and how to mend it.",
        "evidence verify report.bin --certificates vcek.der --certificates ca_chain.pem --crl Genoa.crl "
        "--reference accepted.toml --report-data 4fa1…",
        "evidence verify gpu.bin --certificates chain.pem --reference accepted.toml --nonce 9c22… "
        "--rim driver.swidtag --rim vbios.swidtag --ocsp brom.der",
    )
)
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Evidence, exactly as the device made it.")],
    *,
    certificates: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="PEM or DER, leaf first, repeat in order; or a host's certificate table. For every FILE the same.",
        ),
    ] = None,
    crl: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A revocation list, DER; repeat.")] = None,
    rim: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="GPU, switch: a reference manifest, XML; repeat.")
    ] = None,
    ocsp: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="GPU, switch: an OCSP response, DER; repeat.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(metavar="FILE", help="Reference values, TOML or JSON.")] = None,
    reference_signer: Annotated[
        list[Path] | None,
        typer.Option(metavar="PUB", help="Who must have signed reference values and advisories (PEM); repeat."),
    ] = None,
    reference_threshold: Annotated[int, typer.Option(min=1, max=16, help="How many of them.")] = 1,
    advisories: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A table of advisories, or: shipped; repeat.")
    ] = None,
    report_data: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="CPU: the 64 bytes that it must carry, in REPORT_DATA or Azure's user-data."),
    ] = None,
    nonce: Annotated[
        str | None, typer.Option(metavar="HEX", help="GPU, switch: the 32 bytes that it must answer.")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Judge as of then: 2026-11-22T13:00:00Z.")] = None,
    simulated_root: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Trust this simulator's root as well, PEM or DER; results say so."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify evidence."""
    from attestation.composite import CPU_PREFIX
    from attestation.inspect import leaf_of
    from attestation.verifier import verify_evidence

    cpu_expected = parse_hex(report_data, option="--report-data", size=_CPU_SIZE)
    device_expected = parse_hex(nonce, option="--nonce", size=_NONCE_SIZE)
    now = instants.now() if at is None else instants.parse_instant(at)
    accepted = _reference(reference, signers=reference_signer, threshold=reference_threshold, advisories=advisories)
    collateral = Collateral(
        crls=tuple(read_bounded(path) for path in crl or ()),
        rims=tuple(read_bounded(path) for path in rim or ()),
        ocsp=tuple(read_bounded(path) for path in ocsp or ()),
    )
    results: list[tuple[Path, DeviceResult]] = []
    for path in files:
        data = read_bounded(path)
        scheme, prefix = _recognise(path, data)
        chain = read_certificates(certificates or (), leaf=leaf_of(data, scheme=scheme))
        result = verify_evidence(
            Evidence(f"{prefix}0", scheme, data, chain),
            expected=cpu_expected if prefix == CPU_PREFIX else device_expected,
            anchors=anchors_for(simulated_root or (), scheme=scheme),
            reference=accepted,
            collateral=collateral,
            now=now,
        )
        results.append((path, result))
    if as_json:
        output.print_json([{"file": str(path), **result_json(result)} for path, result in results])
    else:
        for path, result in results:
            _print_result(path, result)
    if not all(result.ok for _, result in results):
        raise typer.Exit(NO)


def _recognise(path: Path, data: bytes) -> tuple[str, str]:
    """Scheme of evidence, told from its bytes, and what slots of its kind are called.

    Raises:
        UsageError: neither a CPU's nor a GPU's nor a switch's.
    """
    from attestation.inspect import detect_scheme
    from attestation.registry import SCHEMES

    try:
        scheme = detect_scheme(data)
    except MalformedError as error:
        raise UsageError(f"{path}: {error}") from None
    return scheme, SCHEMES[scheme].slot_prefix


def result_json(result: DeviceResult) -> dict[str, Json]:
    """A result as it stands in ``--json`` output."""
    return {
        "ok": result.ok,
        "scheme": result.scheme,
        "simulated": result.simulated,
        "identity": None if result.identity is None else str(result.identity),
        "findings": [finding.to_json() for finding in result.findings],
        "passed": [
            {"code": each.code, "title": each.title, "field": each.field, "value": each.value} for each in result.passed
        ],
        "collateral_age": dict(result.collateral_age),
        "appraised_by": dict(result.appraised_by),
        "claims": dict(result.claims),
    }


def _findings_table(findings: Iterable[Finding]) -> Table:
    made = output.table("", "finding", "checked", "expected", "found", "how to mend it")
    for finding in findings:
        fails = finding.severity is Severity.FAIL
        made.add_row(
            output.cell("FAIL" if fails else "info", style="bold red" if fails else "yellow"),
            output.cell(f"{finding.code}: {finding.title}"),
            output.cell(finding.field),
            output.cell(f"{finding.expected}\n({finding.reference})"),
            output.cell(finding.actual),
            output.cell(finding.remedy),
        )
    return made


def _print_result(path: Path, result: DeviceResult) -> None:
    console = output.console()
    title = f"{path}: {result.scheme} evidence, {result.identity or 'identity not proven'}"
    console.print(output.cell(title, style="bold"))
    if result.simulated:
        console.print(
            output.cell("SIMULATED: this chain ends in a simulator's root, not in the vendor's.", style="red")
        )
    held = output.table("", "rule that holds", "checked", "found")
    for passed in result.passed:
        value = passed.value if len(passed.value) <= _SHOWN else f"{passed.value[:_SHOWN]}…"
        held.add_row(
            output.cell("ok", style="green"), output.cell(passed.title), output.cell(passed.field), output.cell(value)
        )
    console.print(held)
    if result.findings:
        console.print(_findings_table(result.findings))
    failing = sum(finding.severity is Severity.FAIL for finding in result.findings)
    summary = f"{len(result.passed)} rules hold, {failing} fail, {len(result.findings) - failing} inform"
    verdict = "accepted" if result.ok else "NOT accepted"
    console.print(output.cell(f"{verdict}: {summary}", style="bold green" if result.ok else "bold red"))


@app.command(
    help=with_examples(
        "Show every field of a piece of evidence. Nothing is verified: anyone can write such bytes.",
        "evidence inspect report.bin",
        "evidence inspect gpu.bin --json",
    )
)
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Evidence, exactly as the device made it.")],
    *,
    certificates: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="PEM or DER, leaf first: shows what a CPU's leaf certifies; repeat."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Inspect evidence."""
    from attestation.inspect import detect_scheme, inspect_evidence, leaf_of

    data = read_bounded(file)
    chain = read_certificates(certificates or (), leaf=leaf_of(data, scheme=detect_scheme(data)))
    inspection = inspect_evidence(data, certificates=chain)
    if as_json:
        output.print_json(inspection.to_json())
        return
    made = output.table("field", "value")
    _add_fields(made, inspection.fields, "")
    console = output.console()
    console.print(output.cell(f"{file}: {inspection.title}", style="bold"))
    console.print(
        output.cell("Not verified: this is what the bytes say. `keystead evidence verify` says whether it is so.")
    )
    console.print(made)


def _add_fields(made: Table, fields: Mapping[str, Json], path: str) -> None:
    """One line for each field that is no object itself, by its path."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _add_fields(made, value, f"{path}{name}.")
        else:
            made.add_row(output.cell(f"{path}{name}"), output.cell(output.plain(value)))


@app.command(
    help=with_examples(
        "Judge every case of a manifest of published evidence under the documented conformance profile of its TEE.",
        "evidence conformance vectors/manifest.json",
        "evidence conformance vectors/manifest.json --tee snp --tee nvidia --json",
    )
)
def conformance(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="The manifest; its files lie beside it.")],
    *,
    tee: Annotated[
        list[str] | None, typer.Option("--tee", metavar="TEE", help="Only cases of this TEE; repeat, or use commas.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a manifest."""
    from attestation.conformance import judge

    tees = None if tee is None else frozenset(name.strip() for text in tee for name in text.split(","))
    results = judge(manifest, tees)
    if not results:
        raise UsageError(f"{manifest}: no case of {', '.join(sorted(tees or ()))}")
    if as_json:
        output.print_json([result.to_json() for result in results])
    else:
        console = output.console()
        name_width, tee_width = (max(len(getattr(each, name)) for each in results) for name in ("name", "tee"))
        for result in results:
            word, style = ("agrees", "green") if result.agree else ("DIFFERS", "bold red")
            if result.verdict == "unsupported" and not result.agree:
                word, style = "not judged", "yellow"
            because = "; ".join((*result.mismatches, *filter(None, (result.why,)))) or ", ".join(result.findings)
            # One line a case, whatever the terminal's width: people grep it.
            line = output.cell(f"{result.name:<{name_width}}  {result.tee:<{tee_width}}  ")
            line.append(f"{word:<10}", style=style)
            line.append(f"  expected {result.expected}, found {result.verdict}  {output.printable(because)}".rstrip())
            console.print(line, soft_wrap=True)
        counts = Counter(
            "agree" if each.agree else "not judged" if each.verdict == "unsupported" else "differ" for each in results
        )
        console.print(
            f"{len(results)} cases: {counts['agree']} agree, {counts['differ']} differ, "
            f"{counts['not judged']} not judged (unsupported)"
        )
    if not all(result.agree for result in results):
        raise typer.Exit(NO)
