"""Other people's verifiers, each run by its own interpreter in an environment of its own under ``.cache/``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
CACHE = FOLDER.parents[1] / ".cache" / "peers"
INSTALL_SECONDS = 600
RUN_SECONDS = 300


class PeerMissingError(Exception):
    """The peer cannot be had or does not run here; the message says why."""


def run(program: str, requirement: str, case: dict[str, Any]) -> dict[str, list[float]]:
    """Run ``<program>.py`` of this folder on `case` where `requirement` (``name==version``) is installed.

    The environment is made at first use, which takes a package index.

    Raises:
        PeerMissingError: it cannot be made, or the program fails.
    """
    home = CACHE / requirement.replace("==", "-")
    python = home / "bin" / "python"
    if not (home / "complete").is_file():
        _call([sys.executable, "-m", "venv", "--clear", str(home)], seconds=INSTALL_SECONDS)
        _call([str(python), "-m", "pip", "install", "--quiet", requirement], seconds=INSTALL_SECONDS)
        (home / "complete").touch()
    answer = _call([str(python), str(FOLDER / f"{program}.py")], seconds=RUN_SECONDS, text=json.dumps(case))
    timings: dict[str, list[float]] = json.loads(answer)
    return timings


def _call(command: list[str], *, seconds: int, text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissingError(str(error)) from error
    if done.returncode:
        raise PeerMissingError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout
