"""The README's main job, run line by line as a newcomer would, from an empty folder to a proven release."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keystead.cli.demo.process import free_port

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SECONDS = 240


def shell_blocks(text: str) -> list[str]:
    """The shell blocks between the first step and the table of packages; those before are `make`."""
    begin, end = text.index("## From the command line"), text.index("## What is in the box")
    return re.findall(r"^```sh\n(.*?)^```", text[begin:end], flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `keystead` and `python` are this checkout's, and temporary folders are the test's."""
    for tool in ("openssl", "bash"):
        if shutil.which(tool) is None:
            pytest.skip(f"NO {tool}: the README's commands need it")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, arguments in (("python", ""), ("keystead", "-P -m keystead.cli.main ")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTEAD_")}
    return kept | {"PROGRAMS": str(programs), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}


def test_a_newcomer_gets_from_nothing_to_a_released_key(shell: dict[str, str], tmp_path: Path) -> None:
    first, *rest = shell_blocks(README.read_text(encoding="utf-8"))
    assert len(rest) >= 8
    script = tmp_path / "readme.sh"
    port = free_port()
    # Two things differ from what the README says: the port, for another broker may run, and where the programs lie.
    lines = "\n".join(rest).replace("--tenant acme\n", f"--tenant acme --listen 127.0.0.1:{port}\n", 1)
    assert f":{port}" in lines
    lines = lines.replace("kill %1", "kill $!; wait $!")
    # Whatever fails, the broker ends with the script.
    head = (
        f"set -eu\ntrap 'jobs -p | xargs -r kill 2> /dev/null || true' EXIT\n{first}export PATH=\"$PROGRAMS:$PATH\"\n"
    )
    script.write_text(head + lines)
    done = subprocess.run(
        ["bash", str(script)], cwd=ROOT, env=shell, check=False, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    assert "acme/llm@1 weights.bin: 5000000 bytes opened in memory" in done.stdout
    assert "key erased, lease returned" in done.stdout
    # The proof is of the release itself, which is what entry 6 must be.
    assert "lease.granted" in done.stdout.partition("proven")[2].partition("verified")[0]
    assert done.stdout.count("verified") >= 2
    assert done.stdout.count("exit code 1") == 2
    assert "PURPOSE_NOT_PERMITTED" in done.stderr
    assert "NODE_NOT_ACTIVE" in done.stderr
    assert done.stdout.count("accepted: ") == 2
