"""`keystead demo` in a pipe: it tells its story and leaves nothing behind, not even when it is stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keystead.cli.main import run

STEPS = [
    "sound-node-opens-the-model",
    "wrong-jurisdiction",
    "debug-enabled-guest",
    "stale-firmware",
    "foreign-gpu",
    "replayed-evidence",
    "purpose-not-permitted",
    "expired-grant",
    "tampered-file",
    "nothing-satisfies-both",
    "checkpoint-inherits-from-both",
    "plan-names-the-one-site",
    "checkpoint-not-in-germany",
    "checkpoint-not-in-america",
    "checkpoint-opens-between",
    "author-does-not-approve",
    "two-others-approve",
    "checkpoint-after-declassification",
    "declassified-no-further",
    "budget-runs-out",
    "the-log-knows",
    "proof-holds-offline",
    "package-holds-offline",
    "log-is-whole",
    "altered-record-is-named",
]
LONGEST = 240.0


def _start(temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "keystead.cli.main", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )


def _processes_about(folder: Path) -> list[str]:
    """Command lines of running processes that name `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if str(folder) in command:
                found.append(command)
    return found


@pytest.mark.slow
def test_the_story_goes_as_told_and_leaves_nothing(tmp_path: Path) -> None:
    process = _start(tmp_path)
    out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, out + err
    assert "\x1b" not in out
    assert "NOT AS TOLD" not in out
    assert f"All {len(STEPS)} steps went as told." in out
    for text in (
        "Simulated: the CPUs and GPUs",
        "JURISDICTION_NOT_PERMITTED",
        "SNP_DEBUG_ALLOWED",
        "SNP_TCB_BELOW_MINIMUM",
        "DEVICE_OF_ANOTHER_NODE",
        "SNP_REPORT_DATA",
        "NVGPU_NONCE",
        "PURPOSE_NOT_PERMITTED",
        "GRANT_EXPIRED",
        "SEALED_NOT_AUTHENTIC",
        "CONSTRAINTS_CONFLICT",
        "BUDGET_SPENT",
        "PAYLOAD_ALTERED",
        "how to mend it",
    ):
        assert text in out, text
    assert err == ""
    assert list(tmp_path.iterdir()) == []
    assert _processes_about(tmp_path) == []


@pytest.mark.slow
def test_json_and_keep(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    process = _start(tmp_path, "--json", "--keep", str(kept))
    out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, out + err
    document = json.loads(out)
    assert document["as_told"] is True
    assert [step["step"] for step in document["steps"]] == STEPS
    refusals = [step for step in document["steps"] if step["reasons"]]
    assert len(refusals) == 12
    assert all(reason["remedy"] for step in refusals for reason in step["reasons"])
    assert (kept / "proof.json").is_file()
    assert not (kept / "model.safetensors").exists()
    assert "SIMULATED HARDWARE IS TRUSTED" in (kept / "broker.log").read_text()
    assert _processes_about(kept) == []


def _broker_of(process: subprocess.Popen[str]) -> int:
    """Read along until the broker runs; returns its process id."""
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"runs as process (\d+)", line):
            return int(match[1])
    raise AssertionError("the broker was never started")


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_it_ends_the_broker_and_tidies_up(tmp_path: Path, number: signal.Signals) -> None:
    process = _start(tmp_path)
    pid = _broker_of(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, out + err
    assert _gone(pid)
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    assert _processes_about(tmp_path) == []


@pytest.mark.slow
def test_the_broker_ends_even_if_the_demo_is_killed(tmp_path: Path) -> None:
    process = _start(tmp_path)
    pid = _broker_of(process)
    process.kill()
    process.communicate(timeout=60)
    assert _gone(pid)
    assert _processes_about(tmp_path) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert run(["demo", "--keep", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("INPUT_OUTPUT: ")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
