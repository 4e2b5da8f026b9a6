"""``keystead evidence explain``: what a code means, whose rule it is, what it does to a verdict and how to mend it.

Everything is read from where it is made: checks from `attestation.registry`, errors from each room's error tree,
reasons from `keystead.cli.reasons`. There is no second list.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from keystead.cli import output
from keystead.cli.exits import UsageError
from keystead.cli.help import with_examples
from keystead.cli.output import Json, JsonOption

if TYPE_CHECKING:
    from attestation.findings import Check
    from keystead.cli.reasons import StatedReason

ERROR_TREES: Final = ("attestation", "policy", "audit", "sealed", "keybroker", "attester")
"""The rooms with a tree of errors, in ``errors.py``."""

NODE: Final = "node"
"""The scheme of a check that is about a node as a whole, or about evidence of any scheme."""

_CLOSE: Final = 4
"""How many codes are named where one is not known."""

HELP: Final = with_examples(
    "Explain a code of a finding, an error or a denial: the rule, its source, what it does, how to mend it.\n\n"
    "Without CODE every check of evidence is listed.",
    "evidence explain SNP_DEBUG_ALLOWED",
    "evidence explain --scheme nvgpu",
    "evidence explain MALFORMED --json",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One code, explained.

    Attributes:
        code: stable, UPPER_SNAKE.
        kind: ``check`` of evidence, ``error`` or ``denial``.
        title: the rule, or the meaning, in a few words.
        field: what is checked; empty for an error.
        schemes: which evidence it is about: names of schemes, or ``node``; empty where it is not about evidence.
        source: document, revision and section of a check's rule; the class of an error; who gives a denial.
        strict: ``fail`` or ``inform`` under the strict profile, production's default; empty where no profile applies.
        profiles: what each conformance profile that deviates does, and why, as ``(name, severity, reason)``.
        remedy: what can be done about it; empty for an error, whose text says so.
    """

    code: str
    kind: str
    title: str
    field: str = ""
    schemes: tuple[str, ...] = ()
    source: str = ""
    strict: str = ""
    profiles: tuple[tuple[str, str, str], ...] = ()
    remedy: str = ""

    def to_json(self) -> dict[str, Json]:
        """As in ``--json`` output."""
        return {
            "code": self.code,
            "kind": self.kind,
            "title": self.title,
            "field": self.field,
            "schemes": list(self.schemes),
            "source": self.source,
            "strict": self.strict,
            "profiles": [
                {"profile": name, "severity": severity, "reason": reason} for name, severity, reason in self.profiles
            ],
            "remedy": self.remedy,
        }


def explain(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="As a finding, an error or a denial states it.")
    ] = None,
    *,
    scheme: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only checks of this scheme, or of the whole node: node.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a code, or list the checks."""
    if code is not None:
        if scheme is not None:
            raise UsageError("--scheme narrows the list of checks; leave it out where a CODE is given")
        _show(explain_code(code), as_json=as_json)
        return
    _list(checks_of(scheme), as_json=as_json)


def explain_code(code: str) -> tuple[Explanation, ...]:
    """Everything that `code` can mean; the case of its letters does not matter.

    Raises:
        UsageError: nothing in this release has that code; the closest ones are named.
    """
    wanted = code.strip().upper()
    everything = explanations()
    found = tuple(each for each in everything if each.code == wanted)
    if not found:
        close = difflib.get_close_matches(wanted, sorted({each.code for each in everything}), n=_CLOSE)
        hint = f"did you mean {' or '.join(close)}?" if close else "`keystead evidence explain` lists every check"
        raise UsageError(f"{code!a:.80} is no code of this release; {hint}")
    return found


def explanations() -> tuple[Explanation, ...]:
    """Everything that this release can say by a code: checks, errors, denials."""
    return (*check_explanations(), *error_explanations(), *denial_explanations())


def checks_of(scheme: str | None) -> tuple[Explanation, ...]:
    """Every check, or those of one scheme.

    Raises:
        UsageError: no scheme of that name.
    """
    found = check_explanations()
    if scheme is None:
        return found
    known = sorted({name for each in found for name in each.schemes})
    if scheme not in known:
        raise UsageError(f"--scheme {scheme!a:.40}: known are {', '.join(known)}")
    return tuple(each for each in found if scheme in each.schemes)


def check_explanations() -> tuple[Explanation, ...]:
    """Every registered check of evidence, by code."""
    from attestation.conformance import PROFILES
    from attestation.registry import CHECKS, SCHEMES

    schemes: dict[str, list[str]] = {}
    for name, scheme in SCHEMES.items():
        for each in scheme.checks:
            schemes.setdefault(each.code, []).append(name)

    def explained(check: Check) -> Explanation:
        return Explanation(
            code=check.code,
            kind="check",
            title=check.title,
            field=check.field,
            schemes=tuple(schemes.get(check.code, (NODE,))),
            source=check.source,
            strict=check.severity.value,
            profiles=tuple(
                (profile.name, deviation.severity.value, deviation.reason)
                for profile in PROFILES
                if (deviation := profile.deviations.get(check.code)) is not None
            ),
            remedy=check.remedy,
        )

    return tuple(explained(CHECKS[code]) for code in sorted(CHECKS))


def error_explanations() -> tuple[Explanation, ...]:
    """Every error of every room's tree: they mean "could not decide"."""
    return tuple(
        Explanation(
            code=str(getattr(value, "code", "")),
            kind="error",
            title=(inspect.getdoc(value) or "").partition("\n")[0],
            source=f"{value.__module__}.{value.__name__}",
        )
        for room in ERROR_TREES
        for value in error_classes(room)
    )


def error_classes(room: str) -> list[type[Exception]]:
    """The error classes that a room's ``errors`` module defines, in the order of its text."""
    module = importlib.import_module(f"{room}.errors")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == module.__name__
    ]
    return sorted(found, key=lambda value: inspect.getsourcelines(value)[1])


def denial_explanations() -> tuple[Explanation, ...]:
    """Every reason for which the broker or a shipped policy refuses."""
    from keystead.cli.reasons import PACKS, broker_reasons, pack_reasons

    def explained(reason: StatedReason) -> Explanation:
        return Explanation(
            code=reason.code,
            kind="denial",
            title=reason.message,
            field=reason.field,
            source=reason.origin,
            remedy=reason.remedy,
        )

    return tuple(
        explained(each) for each in (*broker_reasons(), *(each for pack in PACKS for each in pack_reasons(pack)))
    )


def _show(explanations: tuple[Explanation, ...], *, as_json: bool) -> None:
    if as_json:
        output.print_json([each.to_json() for each in explanations])
        return
    for each in explanations:
        members: dict[str, Json] = {"meaning" if each.kind == "error" else "rule": each.title}
        if each.field:
            members["checked"] = each.field
        if each.schemes:
            members["evidence"] = ", ".join(each.schemes)
        members[{"check": "source", "error": "raised as", "denial": "given by"}[each.kind]] = each.source
        if each.strict:
            does = "refuses the evidence" if each.strict == "fail" else "is told and refuses nothing"
            members["production"] = f"{each.strict}: {does}"
            members["conformance"] = "\n".join(_profile_lines(each)) or "as in production, in every profile"
        if each.kind == "error":
            members["production"] = "no answer: nothing was decided, and nothing is released"
        if each.remedy:
            members["how to mend it"] = each.remedy
        output.show(members, as_json=False, title=f"{each.code} ({_KINDS[each.kind]})")


_KINDS: Final = {"check": "check of evidence", "error": "error", "denial": "reason for a denial"}


def _profile_lines(each: Explanation) -> Iterable[str]:
    return (f"{severity} in {name}: {reason}" for name, severity, reason in each.profiles)


def _list(checks: tuple[Explanation, ...], *, as_json: bool) -> None:
    if as_json:
        output.print_json([each.to_json() for each in checks])
        return
    made = output.table("code", "evidence", "strict", "rule", "source")
    made.columns[0].no_wrap = True
    for each in checks:
        style = "red" if each.strict == "fail" else "yellow"
        made.add_row(
            output.cell(each.code, style="bold"),
            output.cell(", ".join(each.schemes)),
            output.cell(each.strict, style=style),
            output.cell(each.title),
            output.cell(each.source),
        )
    console = output.console()
    console.print(made)
    console.print(f"{len(checks)} checks; `keystead evidence explain CODE` says how to mend one")
