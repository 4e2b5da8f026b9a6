"""The `keystead` command: quick help, one line for an error, no traceback unless asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from keystead.cli import main


def _keystead(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "keystead.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_loads_no_room() -> None:
    code = (
        "import sys\nfrom keystead.cli.main import run\nassert run(['--help']) == 0\n"
        "rooms = {'attestation', 'policy', 'audit', 'sealed', 'keybroker', 'attester', 'grpc', 'pydantic',"
        " 'sqlalchemy', 'cryptography'}\n"
        "sys.exit(', '.join(rooms & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in main.ROOMS)


@pytest.mark.parametrize("room", sorted(main.ROOMS))
def test_every_room_has_help(room: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([room, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"keystead {room}" in printed
    assert "\x1b" not in printed


def test_no_arguments_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 2
    assert "Usage: keystead" in "".join(capsys.readouterr())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"keystead {main.version()}\n"


def test_an_unknown_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["atest"]) == 2
    assert "atest" in capsys.readouterr().err


def test_a_missing_option_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["site", "record", "ber1"]) == 2
    assert "--jurisdiction" in capsys.readouterr().err


def test_without_a_broker_one_line_says_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["site", "list"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("WRONG_USE: ")
    assert "--profile" in captured.err
    assert "Traceback" not in captured.err


def test_an_error_with_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["site", "list", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "WRONG_USE"


def test_an_unexpected_error_is_one_line_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(arguments: list[str]) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.delenv("KEYSTEAD_DEBUG", raising=False)
    monkeypatch.setattr(main, "_invoke", broken)
    assert main.run(["site", "list"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("UNEXPECTED: ZeroDivisionError")
    assert "KEYSTEAD_DEBUG=1" in error
    assert "Traceback" not in error
    monkeypatch.setenv("KEYSTEAD_DEBUG", "1")
    assert main.run(["site", "list"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_dependency_is_one_line_that_names_the_extra() -> None:
    code = "import sys\nsys.modules['grpc'] = None\nfrom keystead.cli.main import run\nsys.exit(run(['site', 'list']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'keystead[" in done.stderr


def test_without_the_cli_extra_the_line_still_comes_out() -> None:
    code = "import sys\nsys.modules['typer'] = None\nfrom keystead.cli.main import run\nsys.exit(run(['site', 'list']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("EXTRA_MISSING: this command needs typer")


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_invoke", interrupted)
    assert main.run(["demo"]) == 130


def test_the_module_is_the_command() -> None:
    done = _keystead("--version")
    assert (done.returncode, done.stdout) == (0, f"keystead {main.version()}\n")


def test_verifying_offline_needs_no_grpc() -> None:
    code = (
        "import sys\nfor name in ('grpc', 'google', 'wasmtime', 'awscrt'): sys.modules[name] = None\n"
        "from keystead.cli.main import run\nsys.exit(run(['audit', 'verify', 'nothing.json', '--key', 'none']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("WRONG_USE: --key")
