"""The README's command lines exist: every command, and every option that they use."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from keystead.cli.main import ROOMS, run

README = Path(__file__).resolve().parents[3] / "README.md"
LINES = re.findall(r"^keystead .*$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_readme_has_command_lines() -> None:
    assert len(LINES) >= 10


@pytest.mark.parametrize("line", LINES)
def test_it_is_a_command_line_of_this_release(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, room, *rest = shlex.split(line, comments=True)
    assert room in ROOMS
    assert run([room, "--help"]) == 0
    names = re.findall(r"^  ([a-z][a-z-]*)  ", capsys.readouterr().out.partition("Commands:")[2], flags=re.MULTILINE)
    command = [room, rest[0]] if rest and rest[0] in names else [room]
    assert not names or len(command) == 2, f"{room} has no command {rest[:1]}"
    assert run([*command, "--help"]) == 0
    printed = capsys.readouterr().out
    options = [word for word in rest if word.startswith("--")]
    assert [option for option in options if not re.search(rf"{option}\b", printed)] == []
