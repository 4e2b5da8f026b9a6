"""Output: nothing from elsewhere reaches a terminal raw; JSON is one document; reasons are shown whole."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from keystead.cli import output
from keystead.cli.exits import UsageError


@dataclass(frozen=True)
class _Reason:
    code: str = "JURISDICTION_NOT_PERMITTED"
    field: str = "site.jurisdiction"
    expected: str = "EU"
    actual: str = "US"
    message: str = "The asset may not be opened there"
    remedy: str = "run the job on a site in the EU"
    reference: str = ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Köln ✓", "Köln ✓"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\rb", "a\\rb"),
        ("two\nlines", "two\nlines"),
        ("\u202eright", "\\u202eright"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert output.printable(text) == shown


def test_markup_from_elsewhere_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("name",), [("[bold red]x[/]",), ("\x1b]0;title\x07",)])
    printed = capsys.readouterr().out
    assert "[bold red]x[/]" in printed
    assert "\x1b" not in printed


def test_no_colour_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error("ACCESS_DENIED", "no", reasons=[_Reason()], as_json=False)
    assert "\x1b" not in capsys.readouterr().err


def test_a_denial_shows_every_member_of_every_reason(capsys: pytest.CaptureFixture[str]) -> None:
    second = _Reason(code="PURPOSE_NOT_PERMITTED", field="grant.purposes", expected="inference", actual="pretraining")
    output.print_error("ACCESS_DENIED", "two reasons", reasons=[_Reason(), second], as_json=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    for reason in (_Reason(), second):
        for text in (reason.code, reason.field, reason.expected, reason.actual, reason.remedy):
            assert text in captured.err


def test_an_error_in_json_is_one_document_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error("ACCESS_DENIED", "no", reasons=[_Reason()], as_json=True)
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.err == ""
    assert document["error"]["code"] == "ACCESS_DENIED"
    assert document["error"]["reasons"][0]["remedy"] == "run the job on a site in the EU"


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("a",), [], empty="no site is enrolled")
    assert capsys.readouterr().out == "no site is enrolled\n"


def test_values_in_cells() -> None:
    assert output.plain(["a", "b"]) == "a, b"
    assert output.plain({"a": True, "b": None}) == "a=yes, b=—"
    assert output.plain(4) == "4"


def test_instants_are_utc() -> None:
    assert output.instant(1_795_353_480) == "2026-11-22T13:18:00Z"


def test_what_cannot_be_undone_needs_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    class _Pipe:
        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", _Pipe())
    with pytest.raises(UsageError, match="--yes"):
        output.confirm("Revoke?", yes=False)
    output.confirm("Revoke?", yes=True)


@pytest.mark.parametrize("columns", ["60", "80", "109", "110", "200"])
def test_a_denial_can_be_read_at_any_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    output.print_error("ACCESS_DENIED", "no", reasons=[_Reason()], as_json=False)
    printed = capsys.readouterr().err
    assert "JURISDICTION_NOT_PERMITTED" in printed
    assert max(map(len, printed.splitlines())) <= int(columns)
    words = " ".join(printed.split())
    for word in ("site.jurisdiction", "EU", "US", "how to mend it"):
        assert word in words


def test_the_same_defect_of_many_devices_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [_Reason(code="NVGPU_NONCE", field=f"gpu{n} GET_MEASUREMENTS Nonce") for n in range(3)]
    output.print_error("ACCESS_DENIED", "no", reasons=[*reasons, _Reason(code="OTHER")], as_json=False)
    printed = capsys.readouterr().err
    assert printed.count("NVGPU_NONCE") == 1
    assert "gpu0, gpu1, gpu2" in printed
    assert "OTHER" in printed


def test_long_hex_keeps_its_ends() -> None:
    digest = "0123456789ab" + "0" * 44 + "89abcdef"
    assert output.shorten(f"authentic, {digest}") == "authentic, 0123456789ab…89abcdef"
    assert output.shorten("41bac35c482e1b7d80") == "41bac35c482e1b7d80"
