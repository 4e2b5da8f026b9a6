"""``keystead evidence export`` and ``replay``: a kept appraisal as one file, and run again wherever that is."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from keystead.cli import instants, output
from keystead.cli.exits import NO, UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption
from keystead.cli.profile import BrokerOptions

if TYPE_CHECKING:
    from rich.table import Table

    from audit.proof import BundleResult
    from keybroker.appraisal_record import Circumstances, Package
    from keybroker.replay import Alternative, Changes, Outcome
    from keybroker.trust import Material, TrustFile

EXPORT_HELP: Final = with_examples(
    "Write the appraisal that a record of the log rests on, with all that it takes to run it again, to one file: "
    "evidence, certificates, collateral, reference values, policy, and the proof that the record is in the log. "
    "`keystead evidence replay` needs this file and nothing else. Needs the role auditor.",
    "evidence export 4711 --profile clients/auditor.toml --out appraisal.json",
)

REPLAY_HELP: Final = with_examples(
    "Run an appraisal again: on what it rested on then, to byte-identical claims, and, where an option says so, on "
    "something else to see what that would change. Exit code 1: the claims are not identical, or the verdict differs.",
    "evidence replay appraisal.json --log-key log.vkey",
    "evidence replay appraisal.json --crl Genoa-today.crl --reference accepted-2027.toml --at 2026-12-01",
    "evidence replay 4711 --today --profile clients/auditor.toml",
)

_MAX_FILE: Final = 16 << 20
_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_COLLATERAL: Final = ("crls", "rims", "ocsp")

Findings = Iterable[tuple[str, Mapping[str, str]]]


def export(
    broker: BrokerOptions,
    entry: Annotated[
        str,
        typer.Argument(metavar="ENTRY", help="The record's place in the log as `audit query` shows it, or its hash."),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write here.")],
    as_json: JsonOption = False,
) -> None:
    """Write a kept appraisal to a file."""
    from keybroker.appraisal_record import Package

    data, _ = _fetch(broker, entry, today=False)
    package = Package.parse(data)
    out.write_bytes(data)
    output.show(
        {
            "written": str(out),
            "bytes": len(data),
            "appraisal": package.record.digest.hex(),
            "documents": len(package.documents),
        },
        as_json=as_json,
    )


def replay(
    broker: BrokerOptions,
    record: Annotated[
        str,
        typer.Argument(
            metavar="RECORD", help="A file of `evidence export`; or a record's place in the log, or its hash."
        ),
    ],
    *,
    log_key: Annotated[
        str | None,
        typer.Option("--log-key", metavar="VKEY", help="The log's verifier key: prove that the record is in the log."),
    ] = None,
    today: Annotated[
        bool,
        typer.Option("--today", help="Judge as of now; with a broker, by what it believes and decides by today."),
    ] = False,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Judge as of then: 2026-11-22T13:00:00Z.")] = None,
    collateral: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", help="Use the CRLs, manifests and OCSP responses that a keystead.toml names."),
    ] = None,
    crl: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Use this revocation list; repeat.")] = None,
    rim: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Use this reference manifest; repeat.")] = None,
    ocsp: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Use this OCSP response; repeat.")] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Use these reference values; signed where FILE.jws is there.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Use this compiled appraisal pack (`keystead policy build`).")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Use these policy settings: TOML, or JSON, as [policy.settings]."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a kept appraisal again."""
    from keybroker import replay as replaying

    package, circumstances = _open(record, broker, today=today)
    entry = replaying.entry(package)
    proven = None if log_key is None else _prove(package, log_key)
    run = replaying.replay(package)
    named, alternative = _alternative(
        circumstances,
        now=instants.parse_instant(at) if at is not None else instants.now() if today else None,
        collateral=collateral,
        files={"crls": crl, "rims": rim, "ocsp": ocsp, "reference_values": None if reference is None else [reference]},
        policy=policy,
        settings=settings,
    )
    after = alternative.apply(replaying.Inputs.of(package)).judge() if named else None
    report = _Report(
        package=package,
        index=None if entry is None else entry[0].index,
        kind=None if entry is None else entry[1].kind.value,
        proven=proven,
        then=run.then,
        identical=run.identical,
        unfaithful=None if run.identical else replaying.changes(run.then, run.again),
        named=named,
        after=after,
        changes=None if after is None else replaying.changes(run.again, after),
    )
    if as_json:
        output.print_json(report.to_json())
    else:
        report.print()
    if not report.ok:
        raise typer.Exit(NO)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What a replay found.

    Attributes:
        package: what was run.
        index, kind: of the log's entry that rests on it; None where the package has none.
        proven: what the log's key says of that entry; None where no key was given.
        then: what the appraisal came to.
        identical: it came to the same, byte for byte.
        unfaithful: what did not.
        named: what was judged by instead, in words; empty where nothing was.
        after: what it comes to by that.
        changes: what that changes.
    """

    package: Package
    index: int | None
    kind: str | None
    proven: BundleResult | None
    then: Outcome
    identical: bool
    unfaithful: Changes | None
    named: tuple[str, ...]
    after: Outcome | None
    changes: Changes | None

    @property
    def ok(self) -> bool:
        """Nothing that was asked is answered with "no"."""
        verdict = self.changes is not None and self.changes.verdict
        return self.identical and not verdict and (self.proven is None or self.proven.ok)

    def to_json(self) -> dict[str, Json]:
        """The report as it stands in ``--json`` output."""
        record = self.package.record
        return {
            "appraisal": record.digest.hex(),
            "entry": self.index,
            "kind": self.kind,
            "proven": None if self.proven is None else self.proven.ok,
            "problems": [] if self.proven is None else [problem.to_json() for problem in self.proven.problems],
            "appraised_at": output.instant(record.appraised_at),
            "verifier": record.verifier,
            "build": record.build,
            "policy_digest": self.then.policy_digest,
            "identical": self.identical,
            "differences": None if self.unfaithful is None else _changes_json(self.unfaithful),
            "allow": self.then.allow,
            "deny": [_plain(denial) for denial in self.then.deny],
            "claims": _plain(self.then.document()),
            "attestation_result": record.token,
            "instead": None
            if self.after is None or self.changes is None
            else {
                "by": list(self.named),
                "policy_digest": self.after.policy_digest,
                "allow": self.after.allow,
                "verdict_differs": self.changes.verdict,
                "deny": [_plain(denial) for denial in self.after.deny],
                "claims": _plain(self.after.document()),
                "changes": _changes_json(self.changes),
            },
        }

    def print(self) -> None:
        """Print the report for people."""
        record, console = self.package.record, output.console()
        output.show(
            {
                "appraisal": record.digest.hex(),
                "appraised": f"{output.instant(record.appraised_at)} by {record.verifier}",
                "policy": self.then.policy_digest,
                "entry": "none comes with it"
                if self.index is None
                else f"{self.index} ({self.kind}), {self._proof_text()}",
                "claims": "byte-identical" if self.identical else "NOT identical",
                "verdict": _verdict(allow=self.then.allow),
            },
            as_json=False,
        )
        if self.proven is not None:
            for problem in self.proven.problems:
                console.print(output.cell(f"{problem.code.value}: {problem.field}: {problem.actual}", style="bold red"))
        if self.unfaithful is not None:
            console.print(output.cell("What this release makes of it is not what was recorded:", style="bold red"))
            _print_changes(self.unfaithful)
        findings = [(slot, finding) for slot, each in self.then.findings().items() for finding in each]
        if findings:
            console.print(output.cell("Findings then", style="bold"))
            console.print(_findings_table(findings))
        if self.changes is not None:
            console.print(output.cell(f"Judged by {'; '.join(self.named)}", style="bold"))
            _print_changes(self.changes)
            before, after = (_verdict(allow=allow) for allow in self.changes.allow)
            text = f"verdict: {before}, as then" if not self.changes.verdict else f"verdict: {before} then, {after} now"
            console.print(output.cell(text, style="bold red" if self.changes.verdict else "bold green"))

    def _proof_text(self) -> str:
        if self.proven is None:
            return "not proven to be in the log: give --log-key"
        return "proven to be in the log" if self.proven.ok else "NOT proven to be in the log"


def _open(record: str, broker: BrokerOptions, *, today: bool) -> tuple[Package, Circumstances | None]:
    """The package that `record` names, and what its broker believes today where that is asked for and can be had."""
    from keybroker import replay as replaying
    from keybroker.appraisal_record import MAX_PACKAGE, Circumstances, Package

    path = Path(record)
    if not path.is_file():
        if not broker.given:
            raise UsageError(
                f"{record}: no such file; for a record of the log, say where its broker is: --profile FILE"
            )
        data, current = _fetch(broker, record, today=today)
        return Package.parse(data), Circumstances.parse(current) if today else None
    package = Package.parse(_read(path, limit=MAX_PACKAGE))
    entry = replaying.entry(package)
    if not today or not broker.given or entry is None:
        return package, None
    _, current = _fetch(broker, str(entry[0].index), today=True)
    return package, Circumstances.parse(current)


def _fetch(broker: BrokerOptions, entry: str, *, today: bool) -> tuple[bytes, bytes]:
    """The two files of `AuditService.GetAppraisal`."""
    from keystead.cli.connection import Connection
    from keystead.v1 import audit_service_pb2 as pb

    request = pb.GetAppraisalRequest(with_today=today)
    if _HASH.match(entry):
        request.leaf_hash = bytes.fromhex(entry)
    elif entry.isascii() and entry.isdigit() and len(entry) <= len(str(2**63)):
        request.leaf_index = int(entry)
    else:
        raise UsageError(f"{entry!a:.80}: neither a file, nor a record's place in the log, nor its hash in hex")
    package, current = bytearray(), bytearray()
    with Connection(broker.find_profile(), timeout=broker.timeout) as link:
        for piece in link.stream(link.audit.GetAppraisal, request):
            package += piece.package
            current += piece.today
    return bytes(package), bytes(current)


def _prove(package: Package, key: str) -> BundleResult:
    from audit.proof import verify_bundle
    from keybroker import replay as replaying
    from keystead.cli.audit_files import read_verifier

    entry = replaying.entry(package)
    if entry is None:
        raise UsageError("--log-key: the appraisal comes without its record's proof; export it again")
    return verify_bundle(entry[0], read_verifier(key))


def _alternative(
    circumstances: Circumstances | None,
    *,
    now: int | None,
    collateral: Path | None,
    files: Mapping[str, Sequence[Path] | None],
    policy: Path | None,
    settings: Path | None,
) -> tuple[tuple[str, ...], Alternative]:
    """What to judge by instead, in words and as it is; no words where nothing is."""
    from attestation.reference.signature import SIGNATURE_SUFFIX
    from keybroker.replay import Alternative
    from keybroker.trust import TrustFile
    from policy.bundle import MAX_COMPRESSED

    named = []
    material, bundle, data = None, None, None
    if circumstances is not None:
        current = circumstances.appraisal_policy()
        material, bundle, data = circumstances.material(), current.bundle, current.data
        named.append("what the broker believes and decides by today")
    if now is not None:
        named.append(f"the time {output.instant(now)}")
    given: dict[str, tuple[TrustFile, ...]] = {}
    if collateral is not None:
        configured = _configured(collateral)
        given |= {role: configured.of(role) for role in _COLLATERAL}
        named.append(f"the collateral of {collateral}")
    for role, paths in files.items():
        if paths:
            given[role] = tuple(TrustFile(str(path), _read(path, limit=_MAX_FILE)) for path in paths)
            named.append(f"{role.replace('_', ' ')} {', '.join(map(str, paths))}")
    for path in files.get("reference_values") or ():
        signature = path.with_name(f"{path.name}{SIGNATURE_SUFFIX}")
        if signature.is_file():
            given["signatures"] = (TrustFile(str(path), _read(signature, limit=_MAX_FILE)),)
    if policy is not None:
        bundle = _read(policy, limit=MAX_COMPRESSED)
        named.append(f"the policy {policy}")
    if settings is not None:
        data = _settings(settings)
        named.append(f"the settings {settings}")
    return tuple(named), Alternative(material=material, files=given, bundle=bundle, data=data, now=now)


def _configured(path: Path) -> Material:
    """The files that a broker's configuration names."""
    from keybroker.config import BrokerConfig
    from keybroker.trust import Trust

    return Trust.load(BrokerConfig.load(path)).material


def _settings(path: Path) -> dict[str, object]:
    """Policy settings as a pack reads them, those that are not named at their defaults."""
    from pydantic import ValidationError

    from policy.inputs import Settings

    data = _read(path, limit=_MAX_FILE)
    try:
        text = data.decode("utf-8")
        document = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        return Settings.model_validate_json(json.dumps(document)).to_data()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"--settings {path}: {where}: {first['msg']}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"--settings {path}: neither TOML nor JSON: {error}") from None


def _read(path: Path, *, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"{path}: more than {limit} bytes")
    return data


def _verdict(*, allow: bool) -> str:
    return "accepted" if allow else "NOT accepted"


def _findings_table(findings: Findings) -> Table:
    made = output.table("", "device", "finding", "checked", "expected", "found")
    for slot, finding in findings:
        fails = finding["severity"] == "fail"
        made.add_row(
            output.cell("FAIL" if fails else "info", style="bold red" if fails else "yellow"),
            output.cell(slot),
            output.cell(f"{finding['code']}: {finding.get('title', '')}"),
            output.cell(finding["field"]),
            output.cell(f"{output.shorten(finding.get('expected', ''))}\n({finding.get('reference', '')})"),
            output.cell(output.shorten(finding.get("actual", ""))),
        )
    return made


def _print_changes(changes: Changes) -> None:
    console = output.console()
    for title, findings in (
        ("Findings that are new", changes.findings_new),
        ("Findings that are gone", changes.findings_gone),
    ):
        if findings:
            console.print(output.cell(title, style="bold"))
            console.print(_findings_table(findings))
    rows = [
        (each.slot, each.before["code"], name, each.before.get(name), each.after.get(name))
        for each in changes.findings_changed
        for name in sorted(each.before.keys() | each.after.keys())
        if each.before.get(name) != each.after.get(name)
    ]
    if rows:
        output.print_table(("device", "finding", "what changed", "then", "now"), rows, title="Findings that changed")
    for title, denials in (("Denials that are new", changes.deny_new), ("Denials that are gone", changes.deny_gone)):
        if denials:
            output.print_table(
                ("denial", "checked", "expected", "found"),
                [
                    (
                        denial.get("code"),
                        denial.get("field"),
                        *(output.shorten(str(denial.get(each))) for each in _SIDES),
                    )
                    for denial in denials
                ],
                title=title,
            )
    if changes.claims:
        output.print_table(
            ("claim", "then", "now"),
            [(each.path, output.plain(each.before), output.plain(each.after)) for each in changes.claims],
            title="Claims that differ",
        )
    if not any(
        (changes.findings_new, changes.findings_gone, rows, changes.deny_new, changes.deny_gone, changes.claims)
    ):
        console.print("Nothing differs.")


_SIDES: Final = ("expected", "actual")


def _changes_json(changes: Changes) -> dict[str, Json]:
    return {
        "allow": list(changes.allow),
        "findings_new": [{"slot": slot, **finding} for slot, finding in changes.findings_new],
        "findings_gone": [{"slot": slot, **finding} for slot, finding in changes.findings_gone],
        "findings_changed": [
            {"slot": each.slot, "before": dict(each.before), "after": dict(each.after)}
            for each in changes.findings_changed
        ],
        "deny_new": [_plain(denial) for denial in changes.deny_new],
        "deny_gone": [_plain(denial) for denial in changes.deny_gone],
        "claims": [
            {"path": each.path, "before": _plain(each.before), "after": _plain(each.after)} for each in changes.claims
        ],
    }


def _plain(value: object) -> Json:
    """A value of claims or denials, which are JSON, as the output's type."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
